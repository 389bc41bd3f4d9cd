"""Source, control, Tent, DSBR and SicTTA, alone and guarded, on real masks: nuclei and retinal
vessels, over seeds.

python -m holdfast.benchmarks.segmentation data=DIR [output=runs/segmentation] [seeds=[0,1,2]]

``DIR`` holds nuclei_segmentation.npz and vessel_segmentation_{hrf,chase}.npz. What is there already
is not done again; ``seeds=[]`` makes the files of images alone, which
``configs/benchmark/guard_segmentation.yaml`` takes, and sources that it finds.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.adapting.run import adapt
from holdfast.benchmarks.sources import train_model
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.segmentation data=DIR [key=value ...]\n\n"
    "Adapt to nuclei under other microscopes, and to vessels under another camera."
)
#: Sides of the patches that sources are trained on, the epochs, and channels of the finest level:
#: a network that learns in two minutes of one core.
_PATCH, _WIDTH = 96, 8
_EPOCHS = {"nuclei": 3, "vessels": 20}
#: Sides of all images: of vessels the middle of each is taken.
_SIDE = 256
#: Images of a domain at most, drawn by a fixed seed, so that all cells take minutes.
_MOST = 32
_TARGETS = {"nuclei": ["fluor_256", "fluor_360", "he_white"], "vessels": ["hrf", "chase"]}
_SOURCES = {"nuclei": "fluor_256", "vessels": "hrf"}
#: The runs, as adapt.py is asked for each.
RUNS = {
    "source": "method=source guard=off",
    "control": "method=norm guard=off",
    "tent": "method=tent guard=off",
    "dsbr": "method=dsbr guard=off",
    "sictta": "method=sictta guard=off",
    "tent at 1e-2": "method=tent method.optimizer=adam method.lr=1e-2 guard=off",
    "dsbr at 1e-2": "method=dsbr method.optimizer=adam method.lr=1e-2 guard=off",
    "tent guarded": "method=tent method.optimizer=adam method.lr=1e-2 guard=on",
    "dsbr guarded": "method=dsbr method.optimizer=adam method.lr=1e-2 guard=on",
}


@dataclass
class SegmentationConfig:
    """Options of the comparison."""

    data: str | None = option(None, "folder of the three .npz files; required")
    output: str = option("runs/segmentation", "folder of the results")
    seeds: list[int] = option([0, 1, 2], "seeds of training and stream")
    sets: list[str] = option(["nuclei", "vessels"], "which of nuclei and vessels")
    batches: list[int] = option([8], "images a batch: each is a stream of its own")
    runs: list[str] = option(list(RUNS), "which runs, by name")


def prepared(folder: Path, output: Path, name: str) -> Path:
    """One file of images, masks, domains and splits, seven tenths to train on, made once.

    Args:
        folder: of the shared files.
        output: where the file goes.
        name: nuclei or vessels.
    """
    path = output / f"{name}.npz"
    if path.is_file():
        return path
    if name == "nuclei":
        arrays = _read(folder / "nuclei_segmentation.npz")
        domain = arrays["domain_names"][arrays["domain"]]
        masks, images = arrays["masks"].astype(np.int8), arrays["images"]
        ids, group = arrays["names"], arrays["names"]
    else:
        parts = {key: _read(folder / f"vessel_segmentation_{key}.npz") for key in ("hrf", "chase")}
        domain = np.concatenate([np.full(len(of["images"]), key) for key, of in parts.items()])
        images = np.concatenate([of["images"] for of in parts.values()])
        # Outside of the field of view nobody has looked for vessels.
        seen = np.concatenate([of["fov"] for of in parts.values()])
        masks = np.concatenate([of["masks"] for of in parts.values()]).astype(np.int8)
        masks[seen == 0] = -1
        ids = np.concatenate([of["names"] for of in parts.values()])
        first = (images.shape[1] - _SIDE) // 2
        middle = slice(first, first + _SIDE)
        images, masks = images[:, middle, middle], masks[:, middle, middle]
        # Of CHASE both eyes of a child are there; each image of HRF is of another patient.
        group = np.where(domain == "chase", np.char.rstrip(ids, "LR"), ids)
    output.mkdir(parents=True, exist_ok=True)
    split = _splits(domain, domain == _SOURCES[name])
    kept = _few(domain, split)
    np.savez_compressed(
        path,
        images=images[kept],
        masks=masks[kept],
        domain=domain[kept],
        split=split[kept],
        id=ids[kept],
        group=group[kept],
        class_names=np.array(["background", "nucleus" if name == "nuclei" else "vessel"]),
    )
    return path


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise InputError(f"{path} is missing: give the folder of the shared images, data=DIR")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _splits(domain: npt.NDArray[Any], ours: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """train, val and test for each image; all of other domains is test."""
    split = np.full(len(domain), "test", dtype="<U5")
    rows = np.random.default_rng(0).permutation(np.flatnonzero(ours))
    first, second = int(0.7 * len(rows)), int(0.85 * len(rows))
    split[rows[:first]], split[rows[first:second]] = "train", "val"
    return split


def _few(domain: npt.NDArray[Any], split: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Rows that are kept: of the test images of each domain so many at most."""
    rng, kept = np.random.default_rng(0), [np.flatnonzero(split != "test")]
    for name in np.unique(domain):
        rows = np.flatnonzero((domain == name) & (split == "test"))
        kept.append(rng.permutation(rows)[:_MOST])
    return np.sort(np.concatenate(kept))


@dataclass
class MaskRun:
    """A run's figures."""

    set: str
    target: str
    batch: int
    run: str
    seed: int
    metrics: dict[str, Any] = field(default_factory=dict)


def compared(config: SegmentationConfig) -> list[MaskRun]:
    """Train what is missing, adapt, and collect the figures."""
    if config.data is None:
        raise InputError("data is missing: name the folder of the .npz files, data=DIR")
    output = Path(config.output)
    files = {name: prepared(Path(config.data), output, name) for name in config.sets}
    cells = []
    for seed in config.seeds:
        for name, file in files.items():
            source = output / f"{name}{seed}"
            if not (source / "source.ckpt").is_file():
                train_model(_training(file, name, seed, source))
            for target in _TARGETS[name]:
                for batch in config.batches:
                    for run in config.runs:
                        cells.append(_cell(config, MaskRun(name, target, batch, run, seed), source))
    return cells


def _training(file: Path, name: str, seed: int, source: Path) -> list[str]:
    return [
        *("data=npz", f"data.path={file}", f"data.source={_SOURCES[name]}"),
        *("model=basicunet", f"model.width={_WIDTH}", f"patch=[{_PATCH},{_PATCH}]"),
        # Whole images are seen at once, as a fully convolutional network may.
        *("batch_size=16", f"model.window=[{_SIDE},{_SIDE}]", "wandb.mode=disabled"),
        "trainer.enable_progress_bar=false",
        *(f"epochs={_EPOCHS[name]}", f"seed={seed}", f"output={source}"),
        # Of HRF seven images are left to validate on.
        *("calibrate=quick", "calibrate.batch_size=4"),
    ]


def _cell(config: SegmentationConfig, cell: MaskRun, source: Path) -> MaskRun:
    folder = Path(config.output) / f"{cell.set}-{cell.target}-b{cell.batch}-seed{cell.seed}"
    folder = folder / cell.run.replace(" ", "-")
    done = folder / "metrics.json"
    if not done.is_file():
        words = [
            *(f"source={source}", f"data.target={cell.target}", *RUNS[cell.run].split()),
            *(f"stream.batch_size={cell.batch}", f"seed={cell.seed}", f"output={folder}"),
            *("overwrite=true", "wandb.mode=disabled", "predictions.masks=false"),
            "trainer.enable_progress_bar=false",
        ]
        adapt(Assembly.of(configure(words)))
    cell.metrics = json.loads(done.read_text())
    return cell


def table(cells: Sequence[MaskRun]) -> str:
    """Dice by target and run, mean over seeds with the lowest and highest, as Markdown."""
    runs = list(dict.fromkeys(cell.run for cell in cells))
    places = list(dict.fromkeys((cell.set, cell.target, cell.batch) for cell in cells))
    lines = [f"| set, target, batch | images | {' | '.join(runs)} |"]
    lines.append(f"|---|--:|{'--:|' * len(runs)}")
    for place in places:
        mine = [cell for cell in cells if (cell.set, cell.target, cell.batch) == place]
        shown = []
        for run in runs:
            dice = [cell.metrics["dice"] for cell in mine if cell.run == run]
            shown.append(f"{np.mean(dice):.1f} ({min(dice):.1f}–{max(dice):.1f})")
        name, target, batch = place
        images = mine[0].metrics["images"]
        lines.append(f"| {name}, {target}, {batch} | {images} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = entry.configured(SegmentationConfig, {}, argv)
        text = table(compared(config))
        (Path(config.output) / "table.md").write_text(text + "\n", encoding="utf-8")
        print(text)

    return entry.run(run, SegmentationConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
