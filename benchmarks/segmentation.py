"""The files of masks that ``configs/benchmark/segmentation.yaml`` and ``guard_segmentation.yaml``
take: nuclei under several microscopes and stains, and retinal vessels under two cameras.

python -m holdfast.benchmarks.segmentation data=DIR [output=runs/segmentation]

``DIR`` holds nuclei_segmentation.npz and vessel_segmentation_{hrf,chase}.npz.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.benchmarks.script import script
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

Array = npt.NDArray[Any]
#: Sides of all images: of vessels the middle of each is taken.
_SIDE = 256
#: Images of a domain at most, drawn by a fixed seed, so that all cells take minutes.
_MOST = 32
#: The domain that sources learn from, and what is not background, by the name of the file.
_SOURCES = {"nuclei": ("fluor_256", "nucleus"), "vessels": ("hrf", "vessel")}


@dataclass
class SegmentationConfig:
    """Options of the files."""

    data: str | None = option(None, "folder of the three .npz files; required")
    output: str = option("runs/segmentation", "folder of the files that are made")


def segmentation(config: SegmentationConfig) -> str:
    """Write a file of images, masks, domains, ids, groups and splits for each, seven tenths of the
    source's to train on; returns what was written.
    """
    if config.data is None:
        raise InputError("data is missing: name the folder of the .npz files, data=DIR")
    folder, output = Path(config.data).expanduser(), Path(config.output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    told = []
    for name, parts in {"nuclei": _nuclei(folder), "vessels": _vessels(folder)}.items():
        source, thing = _SOURCES[name]
        parts["split"] = _splits(parts["domain"] == source)
        kept = _few(parts["domain"], parts["split"])
        names = np.array(["background", thing])
        few: dict[str, Any] = {key: values[kept] for key, values in parts.items()}
        np.savez_compressed(output / f"{name}.npz", class_names=names, **few)
        told.append(f"{output / name}.npz: {len(kept)} images")
    return "\n".join(told)


def _nuclei(folder: Path) -> dict[str, Array]:
    found = _read(folder / "nuclei_segmentation.npz")
    return {
        **{"images": found["images"], "masks": found["masks"].astype(np.int8)},
        **{"domain": found["domain_names"][found["domain"]]},
        **{"id": found["names"], "group": found["names"]},
    }


def _vessels(folder: Path) -> dict[str, Array]:
    parts = {key: _read(folder / f"vessel_segmentation_{key}.npz") for key in ("hrf", "chase")}
    images, masks, seen, ids = (
        np.concatenate([part[key] for part in parts.values()])
        for key in ("images", "masks", "fov", "names")
    )
    domain = np.repeat(list(parts), [len(part["images"]) for part in parts.values()])
    # Outside of the field of view nobody has looked for vessels.
    masks = np.where(seen == 0, -1, masks).astype(np.int8)
    first = (images.shape[1] - _SIDE) // 2
    middle = slice(first, first + _SIDE)
    return {
        **{"images": images[:, middle, middle], "masks": masks[:, middle, middle]},
        **{"domain": domain, "id": ids},
        # Of CHASE both eyes of a child are there; each image of HRF is of another patient.
        "group": np.where(domain == "chase", np.char.rstrip(ids, "LR"), ids),
    }


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise InputError(f"{path} is missing: give the folder of the shared images, data=DIR")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _splits(ours: npt.NDArray[np.bool_]) -> Array:
    """train, val and test for each image; all of other domains is test."""
    split = np.full(len(ours), "test", dtype="<U5")
    rows = np.random.default_rng(0).permutation(np.flatnonzero(ours))
    first, second = int(0.7 * len(rows)), int(0.85 * len(rows))
    split[rows[:first]], split[rows[first:second]] = "train", "val"
    return split


def _few(domain: Array, split: Array) -> npt.NDArray[np.int64]:
    """Rows that are kept: of the test images of each domain so many at most."""
    rng, kept = np.random.default_rng(0), [np.flatnonzero(split != "test")]
    for name in np.unique(domain):
        rows = np.flatnonzero((domain == name) & (split == "test"))
        kept.append(rng.permutation(rows)[:_MOST])
    return np.sort(np.concatenate(kept))


main = script(SegmentationConfig, segmentation)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
