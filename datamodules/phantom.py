"""Embedded data: cells drawn by a seeded program and seen through several scanners. No files, no
download.

Each cell is an absorption map; a scanner stains it (Beer-Lambert), lights it unevenly, blurs it,
adds noise, and quantises it to 8 bits. Classes differ by outline and texture, so that blur and
noise hide what tells them apart.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.settings import DataConfig, check_task
from holdfast.datamodules.targets import FindingTarget, LabelTarget, MaskTarget, kind_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

CLASSES = ("round", "elongated", "granular", "lobulated")
SIZE = 32
#: Single cells that are drawn at once: floating point needs some 55 kB for each meanwhile.
_AT_ONCE = 32768

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scanner:
    """How an absorption map becomes an image.

    Args:
        stain: absorption of red, green and blue light.
        gain: brightness of the lamp; 1 leaves an empty field at .9.
        blur: standard deviation of the point spread, in pixels.
        noise: standard deviation of the sensor's noise, as a share of full scale.
        bias: amplitude of the uneven lighting.
    """

    stain: tuple[float, float, float]
    gain: float = 1.0
    blur: float = 0.6
    noise: float = 0.02
    bias: float = 0.05


SCANNERS: dict[str, Scanner] = {
    "scanner_a": Scanner(stain=(0.55, 0.95, 0.35), noise=0.05, bias=0.14),
    "scanner_b": Scanner(stain=(0.42, 0.84, 0.52), gain=0.85, blur=1.5, noise=0.04, bias=0.22),
    "scanner_c": Scanner(stain=(0.75, 0.70, 0.30), gain=1.05, blur=0.5, noise=0.09, bias=0.10),
    "scanner_d": Scanner(stain=(0.50, 0.60, 0.50), gain=0.6, blur=0.9, noise=0.03, bias=0.25),
}


#: Images of each split where nothing is said, by the target: of single cells, and of fields of
#: several.
_COUNTS = {
    LabelTarget.key: {"train": 4000, "val": 800, "test": 1600, "target": 6400},
    MaskTarget.key: {"train": 480, "val": 120, "test": 240, "target": 960},
    FindingTarget.key: {"train": 3200, "val": 800, "test": 1600, "target": 3200},
}
_COUNTED = "null: {label} of single cells, {mask} of fields with masks, {findings} of findings"


def _counts(split: str) -> str:
    return _COUNTED.format(**{key: counts[split] for key, counts in _COUNTS.items()})


@dataclass
class PhantomConfig(DataConfig):
    """Procedural cells of four classes under four scanners: embedded, seeded, no files; or fields
    of several cells, with masks or findings.
    """

    task: str = option(
        "single",
        "single: a cell of one of four classes; segmentation: fields with masks of cytoplasm and "
        "nucleus; multilabel: fields in which elongated, granular and lobulated cells are found",
    )
    source: str = option("scanner_a", "scanner that the source model is trained on")
    target: str | list[str] = option("scanner_b", "scanner, or scanners, of the target stream")
    train_images: int | None = option(None, f"training images; {_counts('train')}")
    val_images: int | None = option(None, f"validation images; {_counts('val')}")
    test_images: int | None = option(None, f"test images of the source; {_counts('test')}")
    target_images: int | None = option(
        None, f"images of the target, shared among its scanners; {_counts('target')}"
    )
    source_prevalence: list[float] | None = option(
        None, "share of each class of single cells in the source; null: equal shares"
    )
    target_prevalence: list[float] | None = option(
        None, "share of each class of single cells in the target; null: equal shares"
    )
    source_density: float = option(0.5, "share of a field's places that have a cell, in the source")
    target_density: float = option(0.5, "share of a field's places that have a cell, in the target")
    seed: int = option(0, "seed of the images")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_task(self.task, asking=_COUNTS)
        for split in _COUNTS[LabelTarget.key]:
            if self.count(split) < 1:
                raise InputError(f"data.{split}_images must be at least 1")
        for name in ("source_density", "target_density"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"data.{name}={getattr(self, name)} must be above 0, at most 1")
        for name in ("source_prevalence", "target_prevalence"):
            self._check_prevalence(name, getattr(self, name))

    def _check_prevalence(self, name: str, shares: list[float] | None) -> None:
        if shares is None:
            return
        if kind_of(self.task) is not LabelTarget:
            raise InputError(
                f"data.{name} is of single cells: fields have {name.split('_')[0]}_density"
            )
        if len(shares) != len(CLASSES) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(
                f"data.{name} must be {len(CLASSES)} shares that sum to 1, one for each of "
                f"{CLASSES}"
            )

    def count(self, split: str) -> int:
        """Images of a split."""
        asked: int | None = getattr(self, f"{split}_images")
        return _COUNTS[kind_of(self.task).key][split] if asked is None else asked

    def domains(self, split: str) -> list[str]:
        """Scanners of a split.

        Raises:
            InputError: an unknown scanner, or none.
        """
        if split != "target":
            names = [self.source]
        else:
            names = [self.target] if isinstance(self.target, str) else list(self.target)
        if not names:
            raise InputError(f"data.target is empty: name one of {', '.join(SCANNERS)}")
        for name in names:
            if name not in SCANNERS:
                raise InputError(f"the phantom has no domain {name!r}: {closest(name, SCANNERS)}")
        return names

    def generator(self, split: str, domain: str) -> np.random.Generator:
        """Where all randomness of a scanner's images of a split comes from."""
        place = list(_COUNTS[LabelTarget.key]).index(split)
        return np.random.default_rng([self.seed, place, list(SCANNERS).index(domain)])


def load_phantom(config: PhantomConfig, split: Split) -> ImageSet:
    """Draw the images of a split; the same config gives the same images.

    Raises:
        InputError: an unknown scanner.
    """
    domains = config.domains(split)
    prevalence = config.target_prevalence if split == "target" else config.source_prevalence
    bounds = np.linspace(0, config.count(split), len(domains) + 1).astype(int)
    images, labels, names = [], [], []
    for domain, (start, stop) in zip(domains, pairwise(bounds), strict=True):
        rng = config.generator(split, domain)
        drawn = rng.permutation(_labels(int(stop - start), prevalence))
        for some in np.split(drawn, range(_AT_ONCE, len(drawn), _AT_ONCE)):
            images.append(acquire(draw_cells(some, rng), SCANNERS[domain], rng))
        labels.append(drawn)
        names += [domain] * len(drawn)
    ids = [f"{split}-{domain}-{index}" for index, domain in enumerate(names)]
    return ImageSet(
        images=np.concatenate(images),
        target=LabelTarget(np.concatenate(labels), CLASSES),
        ids=np.array(ids),
        domains=np.array(names),
        groups=np.array(ids),
        task=config.task,
    )


def draw_cells(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Absorption maps of cells.

    Args:
        labels: (N,) indices into ``CLASSES``.
        rng: where all randomness comes from.

    Returns:
        (N, SIZE, SIZE) absorbances >= 0.
    """
    cells = cell_shapes(labels, rng)
    plasma = plasma_of(rng, len(labels), SIZE)
    return np.maximum(cells.stained(uniform(rng, len(labels), 0.7, 1.3)) + plasma, 0)


class Cells(NamedTuple):
    """Cells in the middle of tiles (N, SIZE, SIZE).

    Attributes:
        body: 1 within the cell, 0 outside, soft at its edge.
        texture: what granules add to it, as a share.
        depth: distance from the middle, in radii of the outline: below 1 within the cell.
    """

    body: Array
    texture: Array
    depth: Array

    def stained(self, strength: Array) -> Array:
        """What each pixel absorbs, by how strongly each cell (N, 1, 1) is stained."""
        # In this order: a product in another rounds an 8-bit pixel otherwise now and then.
        return np.asarray(strength * self.body * (1 + self.texture))


def cell_shapes(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Cells:
    """Cells of these kinds (N,), indices into ``CLASSES``."""
    count = len(labels)

    def drawn(low: float, high: float) -> Array:
        return uniform(rng, count, low, high)

    kind = labels[:, None, None]
    axis = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    y = axis[None, :, None] - drawn(-3, 3)
    x = axis[None, None, :] - drawn(-3, 3)
    angle = drawn(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    aspect = np.where(kind == 1, drawn(1.28, 1.95), drawn(1.0, 1.27))
    radius = np.hypot(u / np.sqrt(aspect), v * np.sqrt(aspect))
    lobes = np.where(kind == 3, drawn(0.085, 0.21), drawn(0.0, 0.055))
    petals = rng.integers(4, 7, (count, 1, 1)).astype(np.float32)
    outline = drawn(6.5, 9.5) * (
        1 + lobes * np.cos(petals * np.arctan2(v, u) + drawn(0, 2 * np.pi))
    )
    body = 1 / (1 + np.exp((radius - outline) / 0.6))
    granules = _smooth_noise(rng, count, 0.8)
    texture = np.where(kind == 2, drawn(0.18, 0.45), drawn(0.0, 0.1)) * granules
    return Cells(body, texture, radius / outline)


def plasma_of(rng: np.random.Generator, count: int, side: int) -> Array:
    """What absorbs between cells, (count, side, side)."""
    return np.asarray(0.12 * (1 + 0.5 * _smooth_noise(rng, count, 3.0, side)), np.float32)


def acquire(absorbance: Array, scanner: Scanner, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """See absorption maps (N, H, W) through a scanner, as (N, H, W, 3) 8-bit images."""
    count = len(absorbance)
    stain = np.array(scanner.stain, np.float32)[:, None, None]
    light = 0.9 * scanner.gain * np.exp(-stain * absorbance[:, None])
    field = 1 + scanner.bias * _smooth_noise(rng, count, 10.0, absorbance.shape[-1])
    image = _blurred(light * field[:, None], scanner.blur)
    image += np.float32(scanner.noise) * rng.standard_normal(image.shape, np.float32)
    levels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _labels(count: int, prevalence: list[float] | None) -> npt.NDArray[np.int64]:
    """Labels in exactly the wanted shares, up to rounding."""
    shares = np.full(len(CLASSES), 1 / len(CLASSES)) if prevalence is None else np.array(prevalence)
    edges = np.round(np.cumsum(shares) * count).astype(int)
    return np.repeat(np.arange(len(CLASSES)), np.diff(edges, prepend=0))


def uniform(rng: np.random.Generator, count: int, low: float, high: float) -> Array:
    """A number for each of so many images, (count, 1, 1)."""
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, count: int, sigma: float, side: int = SIZE) -> Array:
    """Gaussian noise (count, side, side) smoothed to ``sigma`` pixels, each image with mean 0 and
    variance 1.
    """
    noise = _blurred(rng.standard_normal((count, side, side), np.float32), sigma)
    noise -= noise.mean((1, 2), keepdims=True)
    return noise / noise.std((1, 2), keepdims=True)


def _blurred(images: Array, sigma: float) -> Array:
    """Images (..., H, W) convolved with a Gaussian, by its transfer function; edges wrap around."""
    rows, columns = (_blur_matrix(length, sigma) for length in images.shape[-2:])
    return np.asarray(rows @ images @ columns, np.float32)


def _blur_matrix(length: int, sigma: float) -> Array:
    """The symmetric circulant matrix (length, length) that blurs a line of pixels."""
    transfer = np.exp(-2 * (np.pi * sigma * np.fft.rfftfreq(length)) ** 2)
    kernel = np.fft.irfft(transfer, length)
    steps = np.arange(length)
    return kernel[(steps[:, None] - steps) % length].astype(np.float32)
