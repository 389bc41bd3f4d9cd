"""The figures of docs/measured.md: mean and range over seeds, each seed with its own source model.

python -m holdfast.benchmarks.figures [sets=[phantom,nuclei,chest]] [root=DIR] [seeds=[0,1,2]]
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.adapting.run import adapt
from holdfast.benchmarks.sources import data_words, source_model
from holdfast.tta import entry
from holdfast.tta.config import closest
from holdfast.tta.csvfile import read_rows
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.figures [key=value ...]\n\n"
    "Measure adaptation with and "
    "without guard, over seeds."
)


class Set(NamedTuple):
    """A data set, and how its source models are trained other than by default."""

    data: str
    training: str = ""


#: The last one's source saw the classes in the shares in which they came, and nothing but the
#: images as they are.
_SETS = {
    "phantom": Set("phantom"),
    "nuclei": Set("nuclei"),
    "chest": Set("chest"),
    "imbalanced": Set("chest", "balanced=false augment=[]"),
}
_HARSH = "method.optimizer=adam method.lr=1e-2"
_SKEWED = "stream=prevalence stream.label=0 stream.fraction=0.85"


class Cell(NamedTuple):
    """One stream, and the methods that run on it, each with and without guard."""

    set: str
    title: str
    stream: str
    methods: tuple[str, ...]
    hyperparameters: str = ""


_CELLS = (
    Cell("phantom", "phantom, iid, default lr (Adam 1e-3)", "stream=iid", ("tent", "dsbr")),
    Cell("phantom", "phantom, iid, Adam 1e-2", "stream=iid", ("tent", "dsbr"), _HARSH),
    Cell("phantom", "phantom, 85 % of one class, Adam 1e-2", _SKEWED, ("dsbr",), _HARSH),
    Cell(
        "nuclei",
        "nuclei fluor_360, iid, default lr (Adam 1e-3)",
        "data.target=fluor_360",
        ("tent", "dsbr"),
    ),
    Cell(
        "nuclei",
        "nuclei fluor_520x696, 85 %, Adam 1e-2",
        f"data.target=fluor_520x696 {_SKEWED}",
        ("dsbr",),
        _HARSH,
    ),
    Cell(
        "nuclei",
        "the same, 4 passes",
        f"data.target=fluor_520x696 {_SKEWED} stream.passes=4",
        ("dsbr",),
        _HARSH,
    ),
    Cell(
        "chest",
        "pneumoniamnist, contrast 3, 10 passes",
        "shift=contrast stream.passes=10",
        ("tent", "dsbr"),
        _HARSH,
    ),
    Cell(
        "chest",
        "pneumoniamnist, contrast 5, 10 passes",
        "shift=contrast shift.severity=5 stream.passes=10",
        ("tent", "dsbr"),
        _HARSH,
    ),
    Cell(
        "imbalanced",
        "source trained on classes as they come, contrast 5, 10 passes",
        "shift=contrast shift.severity=5 stream.passes=10",
        ("tent", "dsbr"),
        _HARSH,
    ),
)


@dataclass
class FiguresConfig:
    """Options of the figures."""

    sets: list[str] = option(
        list(_SETS),
        "data sets: phantom, nuclei, chest, imbalanced (chest, without balanced training)",
    )
    root: str = option("../shared/data", "folder of nuclei_patches.npz and pneumoniamnist.npz")
    output: str = option(
        "runs/figures", "folder of the results; source models found there are used again"
    )
    seeds: list[int] = option([0, 1, 2], "seeds of training and stream")

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in _SETS:
                raise InputError(f"unknown set {name!r}: {closest(name, _SETS)}")
            data_words(_SETS[name].data, self.root)


def figures(config: FiguresConfig) -> None:
    """Train what is missing, run all cells, print the table in Markdown."""
    output = Path(config.output)
    quiet = ["wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    cells = [cell for cell in _CELLS if cell.set in config.sets]
    print("| stream | run | balanced accuracy | last quarter | largest class in it | resets |")
    print("|---|---|---|---|---|---|", flush=True)
    with tqdm(
        total=len(config.seeds) * sum(2 + 2 * len(cell.methods) for cell in cells),
        unit="run",
        disable=None,
    ) as progress:
        for cell in cells:
            data = data_words(_SETS[cell.set].data, config.root)
            runs = [("source", "method=source guard=off"), ("control", "method=norm guard=off")]
            for method in cell.methods:
                runs += [
                    (f"{method}, {g}", f"method={method} {cell.hyperparameters} guard={g}")
                    for g in ("off", "on")
                ]
            for name, words_of_run in runs:
                columns: list[tuple[float, ...]] = []
                for seed in config.seeds:
                    source = source_model(
                        output, cell.set, seed, [*data, *_SETS[cell.set].training.split()]
                    )
                    last = output / f"{cell.set}-last"
                    words = [*quiet, *data, f"seed={seed}", f"source={source}", f"output={last}"]
                    words += ["overwrite=true"]
                    words += [*cell.stream.split(), *words_of_run.split()]
                    _, metrics = adapt(Assembly.of(configure(words)))
                    share = _largest_share(last / "predictions.csv")
                    columns.append(
                        (
                            metrics["balanced_accuracy"],
                            metrics["last_quarter"],
                            share,
                            metrics["resets"],
                        )
                    )
                    progress.update()
                *scores, resets = zip(*columns, strict=True)
                shown = [f"{sum(c) / len(c):.1f} ({min(c):.1f}–{max(c):.1f})" for c in scores]
                print(
                    f"| {cell.title} | {name} | {' | '.join(shown)} | "
                    f"{', '.join(map(str, resets))} |",
                    flush=True,
                )


def _largest_share(path: Path) -> float:
    """Percent of the last quarter's predictions that name its most frequent class."""
    names = [row["prediction"] for row in read_rows(path)]
    last = names[len(names) * 3 // 4 :]
    return 100 * Counter(last).most_common(1)[0][1] / len(last)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: figures(entry.configured(FiguresConfig, {}, argv)), FiguresConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
