"""The phantom's fields of several cells: to be segmented, or to be searched for rare kinds of cell.

A field is a square of places, each with a cell or empty, seen through the phantom's scanners.
Fields come from patients, who differ in how crowded their fields are.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.phantom import (
    CLASSES,
    SCANNERS,
    SIZE,
    Array,
    PhantomConfig,
    acquire,
    cell_shapes,
    plasma_of,
    uniform,
)
from holdfast.datamodules.targets import FindingTarget, MaskTarget, Target, kind_of

#: Classes of a field's pixels. Nuclei cover some two hundredths of it: a rare class.
PARTS = ("background", "cytoplasm", "nucleus")
#: Findings of a field: kinds of cell that not every one has, the last of them rare.
FINDINGS = ("elongated", "granular", "lobulated")
#: Share of the cells of each of ``CLASSES`` where findings are looked for, so that some .35, .25
#: and .08 of the fields have the finding.
_KINDS = (0.72, 0.15, 0.1, 0.03)

#: Places along a side of a field.
_PLACES = 2
#: Side of a field, in pixels.
SIDE = _PLACES * SIZE
#: Fields that a patient has.
_FIELDS = 8
#: By how much the share of places that are taken differs among patients, either way.
_CROWDED = 0.3
#: Radius of a nucleus as a share of its cell's, smallest and largest, and what it absorbs beside.
_NUCLEUS, _DARK = (0.3, 0.5), (0.6, 1.0)
#: Depth up to which a pixel is the cell's: where the outline has half of its stain.
_EDGE = 1.0


class _Fields(NamedTuple):
    """Fields of a scanner's patients, before they are seen through it.

    Attributes:
        absorbance: (N, SIDE, SIDE).
        parts: (N, SIDE, SIDE) indices into ``PARTS``.
        kinds: (N, places) indices into ``CLASSES``, -1 where no cell is.
        patients: (N,) number of the patient.
    """

    absorbance: Array
    parts: npt.NDArray[np.uint8]
    kinds: npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64]


def load_fields(config: PhantomConfig, split: Split) -> ImageSet:
    """Draw the fields of a split; the same config gives the same ones."""
    searched = kind_of(config.task) is FindingTarget
    domains = config.domains(split)
    bounds = np.linspace(0, config.count(split), len(domains) + 1).astype(int)
    density = config.target_density if split == "target" else config.source_density
    shares = np.array(_KINDS if searched else [1 / len(CLASSES)] * len(CLASSES))
    drawn, images, names = [], [], []
    for domain, (start, stop) in zip(domains, pairwise(bounds), strict=True):
        rng = config.generator(split, domain)
        fields = _draw(int(stop - start), density, shares, rng)
        images.append(acquire(fields.absorbance, SCANNERS[domain], rng))
        drawn.append(fields)
        names += [domain] * len(fields.kinds)
    kinds = np.concatenate([fields.kinds for fields in drawn])
    patients = np.concatenate([fields.patients for fields in drawn])
    target: Target = MaskTarget(np.concatenate([fields.parts for fields in drawn]), PARTS)
    if searched:
        found = np.stack([(kinds == CLASSES.index(name)).any(1) for name in FINDINGS], axis=1)
        target = FindingTarget(found.astype(np.float32), FINDINGS)
    return ImageSet(
        images=np.concatenate(images),
        target=target,
        ids=np.array([f"{split}-{name}-{row}" for row, name in enumerate(names)]),
        domains=np.array(names),
        groups=np.array(
            [f"{split}-{name}-p{one}" for name, one in zip(names, patients, strict=True)]
        ),
        task=config.task,
    )


def _draw(count: int, density: float, shares: Array, rng: np.random.Generator) -> _Fields:
    patients = np.arange(count) // _FIELDS
    crowded = density + rng.uniform(-_CROWDED, _CROWDED, patients.max(initial=0) + 1)
    taken = rng.random((count, _PLACES**2)) < crowded[patients, None].clip(0, 1)
    kinds = rng.choice(len(CLASSES), (count, _PLACES**2), p=shares)
    cells = cell_shapes(kinds.reshape(-1), rng)
    total = len(cells.depth)
    there = taken.reshape(-1, 1, 1)
    nucleus = cells.depth < uniform(rng, total, *_NUCLEUS)
    strength = uniform(rng, total, 0.7, 1.3) * there
    stained = cells.stained(strength) + strength * nucleus * uniform(rng, total, *_DARK)
    parts = (there & (cells.depth < _EDGE)).astype(np.uint8) + (there & nucleus)
    absorbance = _tiled(stained.astype(np.float32)) + plasma_of(rng, count, SIDE)
    return _Fields(
        np.maximum(absorbance, 0),
        _tiled(parts.astype(np.uint8)),
        np.where(taken, kinds, UNLABELLED),
        patients,
    )


def _tiled(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Tiles (N * places, SIZE, SIZE) as fields (N, SIDE, SIDE)."""
    grid = tiles.reshape(-1, _PLACES, _PLACES, SIZE, SIZE)
    return np.ascontiguousarray(grid.transpose(0, 1, 3, 2, 4).reshape(-1, SIDE, SIDE))
