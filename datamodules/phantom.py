"""Embedded data: cells drawn by a seeded program and seen through several scanners. No files, no
download.

Each cell is an absorption map; a scanner stains it (Beer-Lambert), lights it unevenly, blurs it,
adds noise, and quantises it to 8 bits. Classes differ by outline and texture, so that blur and
noise hide what tells them apart.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.options import DataConfig
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

CLASSES = ("round", "elongated", "granular", "lobulated")
SIZE = 32

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


@dataclass
class PhantomConfig(DataConfig):
    """Procedural cells of four classes under four scanners: embedded, seeded, no files."""

    source: str = option("scanner_a", "scanner that the source model is trained on")
    target: str | list[str] = option("scanner_b", "scanner, or scanners, of the target stream")
    train_images: int = option(4000, "training images")
    val_images: int = option(800, "validation images")
    test_images: int = option(1600, "test images of the source")
    target_images: int = option(6400, "images of the target, shared among its scanners")
    source_prevalence: list[float] | None = option(
        None, "share of each class in the source; null: equal shares"
    )
    target_prevalence: list[float] | None = option(
        None, "share of each class in the target; null: equal shares"
    )
    seed: int = option(0, "seed of the images")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_images", "val_images", "test_images", "target_images"):
            if getattr(self, name) < 1:
                raise InputError(f"data.{name} must be at least 1")
        for name in ("source_prevalence", "target_prevalence"):
            shares = getattr(self, name)
            if shares is None:
                continue
            if len(shares) != len(CLASSES) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                raise InputError(
                    f"data.{name} must be {len(CLASSES)} shares that sum to 1, one for each of "
                    f"{CLASSES}"
                )


def load_phantom(config: PhantomConfig, split: Split) -> ImageSet:
    """Draw the images of a split; the same config gives the same images.

    Raises:
        InputError: an unknown scanner.
    """
    is_target = split == "target"
    domains = [config.target] if isinstance(config.target, str) else list(config.target)
    if not is_target:
        domains = [config.source]
    if not domains:
        raise InputError(f"data.target is empty: name one of {', '.join(SCANNERS)}")
    for domain in domains:
        if domain not in SCANNERS:
            raise InputError(f"the phantom has no domain {domain!r}: {closest(domain, SCANNERS)}")
    total: int = getattr(config, f"{split}_images")
    prevalence = config.target_prevalence if is_target else config.source_prevalence
    bounds = np.linspace(0, total, len(domains) + 1).astype(int)
    splits = ("train", "val", "test", "target")
    images, labels, names = [], [], []
    for domain, (start, stop) in zip(domains, pairwise(bounds), strict=True):
        rng = np.random.default_rng(
            [config.seed, splits.index(split), list(SCANNERS).index(domain)]
        )
        drawn = rng.permutation(_labels(int(stop - start), prevalence))
        images.append(acquire(draw_cells(drawn, rng), SCANNERS[domain], rng))
        labels.append(drawn)
        names += [domain] * len(drawn)
    ids = [f"{split}-{domain}-{index}" for index, domain in enumerate(names)]
    return ImageSet(
        images=np.concatenate(images),
        labels=np.concatenate(labels),
        ids=np.array(ids),
        domains=np.array(names),
        groups=np.array(ids),
        class_names=CLASSES,
    )


def draw_cells(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Absorption maps of cells.

    Args:
        labels: (N,) indices into ``CLASSES``.
        rng: where all randomness comes from.

    Returns:
        (N, SIZE, SIZE) absorbances >= 0.
    """
    count = len(labels)

    def uniform(low: float, high: float) -> Array:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    kind = labels[:, None, None]
    axis = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    y = axis[None, :, None] - uniform(-3, 3)
    x = axis[None, None, :] - uniform(-3, 3)
    angle = uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    aspect = np.where(kind == 1, uniform(1.28, 1.95), uniform(1.0, 1.27))
    radius = np.hypot(u / np.sqrt(aspect), v * np.sqrt(aspect))
    lobes = np.where(kind == 3, uniform(0.085, 0.21), uniform(0.0, 0.055))
    petals = rng.integers(4, 7, (count, 1, 1)).astype(np.float32)
    outline = uniform(6.5, 9.5) * (
        1 + lobes * np.cos(petals * np.arctan2(v, u) + uniform(0, 2 * np.pi))
    )
    body = 1 / (1 + np.exp((radius - outline) / 0.6))
    granules = _smooth_noise(rng, count, 0.8)
    texture = np.where(kind == 2, uniform(0.18, 0.45), uniform(0.0, 0.1)) * granules
    plasma = 0.12 * (1 + 0.5 * _smooth_noise(rng, count, 3.0))
    return np.maximum(uniform(0.7, 1.3) * body * (1 + texture) + plasma, 0)


def acquire(absorbance: Array, scanner: Scanner, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """See absorption maps (N, H, W) through a scanner, as (N, H, W, 3) 8-bit images."""
    count = len(absorbance)
    stain = np.array(scanner.stain, np.float32)[:, None, None]
    light = 0.9 * scanner.gain * np.exp(-stain * absorbance[:, None])
    field = 1 + scanner.bias * _smooth_noise(rng, count, 10.0)
    image = _blurred(light * field[:, None], scanner.blur)
    image += np.float32(scanner.noise) * rng.standard_normal(image.shape, np.float32)
    levels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _labels(count: int, prevalence: list[float] | None) -> npt.NDArray[np.int64]:
    """Labels in exactly the wanted shares, up to rounding."""
    shares = np.full(len(CLASSES), 1 / len(CLASSES)) if prevalence is None else np.array(prevalence)
    edges = np.round(np.cumsum(shares) * count).astype(int)
    return np.repeat(np.arange(len(CLASSES)), np.diff(edges, prepend=0))


def _smooth_noise(rng: np.random.Generator, count: int, sigma: float) -> Array:
    """Gaussian noise (count, SIZE, SIZE) smoothed to ``sigma`` pixels, each image with mean 0 and
    variance 1.
    """
    noise = _blurred(rng.standard_normal((count, SIZE, SIZE), np.float32), sigma)
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
