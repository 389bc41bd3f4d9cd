"""The README's figures on real images: mean and range over seeds, each with its own source model.

python -m benchmarks.real root=DIR [seeds=[0,1,2]] [output=runs/real]
"""

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from adapt import adapt, configure
from train import GROUPS as TRAIN_GROUPS
from train import TrainConfig, train
from tta import entry
from tta.errors import InputError
from tta.options import option

USAGE = "usage: python -m benchmarks.real root=DIR [key=value ...]\n\nMeasure guarded and unguarded adaptation on real images."

_NUCLEI, _CHEST = "nuclei_patches.npz", "pneumoniamnist.npz"
_HARSH = "method.optimizer=adam method.lr=1e-2"
#: File, title and words of each cell; every cell runs the methods below.
_CELLS = (
    (_NUCLEI, "nuclei fluor_360, iid, default lr", "data.target=fluor_360", ("tent", "dsbr"), ""),
    (
        _NUCLEI,
        "nuclei fluor_520x696, 85 %, Adam 1e-2",
        "data.target=fluor_520x696 stream=prevalence stream.label=0 stream.fraction=0.85",
        ("dsbr",),
        _HARSH,
    ),
    (
        _NUCLEI,
        "the same, 4 passes",
        "data.target=fluor_520x696 stream=prevalence stream.label=0 stream.fraction=0.85 stream.passes=4",
        ("dsbr",),
        _HARSH,
    ),
    (_CHEST, "pneumoniamnist, contrast 3, 10 passes, Adam 1e-2", "shift=contrast stream.passes=10", ("tent", "dsbr"), _HARSH),
)


@dataclass
class RealConfig:
    """Options of the real-image figures."""

    root: str = option("../shared/data", "folder of nuclei_patches.npz and pneumoniamnist.npz")
    output: str = option("runs/real", "folder of the results; source models found there are used again")
    seeds: list[int] = option([0, 1, 2], "seeds of training and stream")


def real(config: RealConfig) -> None:
    """Train what is missing, run all cells, print the table in Markdown."""
    root, output = Path(config.root), Path(config.output)
    for name in (_NUCLEI, _CHEST):
        if not (root / name).is_file():
            raise InputError(f"{root / name} does not exist: set root to the folder of the real images")
    quiet = ["wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    scores: dict[tuple[str, str], list[tuple[float, float, float, int]]] = {}
    with tqdm(total=len(config.seeds) * 20, desc="real images", unit="run", disable=None) as progress:
        for seed in config.seeds:
            for file in (_NUCLEI, _CHEST):
                folder = output / f"{Path(file).stem}-seed{seed}"
                if not (folder / "source.ckpt").is_file():
                    words = ["data=npz", f"data.path={root / file}", f"seed={seed}", f"output={folder}"]
                    train(entry.configured(TrainConfig, TRAIN_GROUPS, [*quiet, *words]))
            for file, title, words_of_cell, methods, harsh in _CELLS:
                runs = [("source", "method=source guard=off"), ("control", "method=norm guard=off")]
                for method in methods:
                    runs += [(f"{method}, {guard}", f"method={method} {harsh} guard={guard}") for guard in ("off", "on")]
                for name, words_of_run in runs:
                    source = output / f"{Path(file).stem}-seed{seed}"
                    words = [f"source={source}", f"data.path={root / file}", f"seed={seed}", f"output={output / 'last'}"]
                    metrics = adapt(configure([*quiet, *words, *words_of_cell.split(), *words_of_run.split()]))
                    share = _largest_share(output / "last" / "predictions.csv")
                    values = (metrics["balanced_accuracy"], metrics["last_quarter"], share, metrics["resets"])
                    scores.setdefault((title, name), []).append(values)
                    progress.update()
    print("| stream | run | balanced accuracy | last quarter | largest class in it | resets |")
    print("|---|---|---|---|---|---|")
    for (title, name), of_seeds in scores.items():
        columns = [[values[i] for values in of_seeds] for i in range(4)]
        shown = [f"{sum(c) / len(c):.1f} ({min(c):.1f}–{max(c):.1f})" for c in columns[:3]]
        print(f"| {title} | {name} | {' | '.join(shown)} | {', '.join(str(v) for v in columns[3])} |")


def _largest_share(path: Path) -> float:
    """Percent of the last quarter's predictions that name its most frequent class."""
    with path.open(newline="") as file:
        names = [row["prediction"] for row in csv.DictReader(file)]
    last = names[len(names) * 3 // 4 :]
    return 100 * Counter(last).most_common(1)[0][1] / len(last)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(lambda: real(entry.configured(RealConfig, {}, argv)), RealConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
