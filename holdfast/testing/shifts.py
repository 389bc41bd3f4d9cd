"""What every shift promises, as one function for anybody's tests."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.datamodules.shifts import CORRUPTIONS, Corruption

#: Images over which the effect of a severity is averaged, as chance may make one milder.
_COUNT = 8
#: By how much a level may change less than a milder one: grids of two sizes may suit an image both.
_SLACK = 0.15


def check_shift(shift: Corruption | str) -> None:
    """Check that a corruption keeps what shifts promise, on all images that it says it fits.

    Args:
        shift: the corruption, or the name that it is registered by.

    Raises:
        AssertionError: a promise is broken; the sentence says which, and what to do.

    Example:
        >>> check_shift("blur")
    """
    corruption = CORRUPTIONS[shift] if isinstance(shift, str) else shift
    name = shift if isinstance(shift, str) else getattr(shift.function, "__name__", "the shift")
    _require(len(corruption.levels) == 5, name, f"has {len(corruption.levels)} levels", "give five")
    for shape in ((1, 32, 32), (3, 32, 32), (1, 12, 24, 20), (3, 12, 24, 20)):
        if corruption.fits(shape[0], len(shape) - 1):
            _check_on(corruption, name, [_smooth(shape, seed) for seed in range(_COUNT)])


def _check_on(corruption: Corruption, name: str, clean: Sequence[Tensor]) -> None:
    where = f"for images of shape {tuple(clean[0].shape)}"
    changes = []
    for severity in range(5):
        results = [
            _shifted(corruption, severity, image.clone(), i) for i, image in enumerate(clean)
        ]
        for seed, (image, result) in enumerate(zip(clean, results, strict=True)):
            fits = type(result) is Tensor and result.shape == image.shape
            _require(
                fits and result.dtype == torch.float32 and bool(result.isfinite().all()),
                name,
                f"returns something else than finite float32 of the same shape {where}",
                "return image-like tensors; values outside 0..1 are clamped",
            )
            given = image.clone()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + 1)
                again = _shifted(corruption, severity, given, seed)
            _require(
                torch.equal(given, image), name, f"changes the image it is given {where}", "copy it"
            )
            _require(
                torch.equal(again, result),
                name,
                f"differs between two runs {where}",
                "draw from the generator that is passed, and from nothing else",
            )
        pairs = zip(results, clean, strict=True)
        changes.append(float(np.mean([float((a.clamp(0, 1) - b).abs().mean()) for a, b in pairs])))
    shown = ", ".join(f"{change:.3g}" for change in changes)
    _require(
        changes[0] < changes[-1] and all(b > (1 - _SLACK) * a for a, b in pairwise(changes)),
        name,
        f"does not grow with severity {where} (mean changes {shown})",
        "order its levels from mild to severe",
    )


def _shifted(corruption: Corruption, severity: int, image: Tensor, seed: int) -> Tensor:
    return corruption.function(image, corruption.levels[severity], np.random.default_rng(seed))


def _smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """An image within 0..1 with structures of some pixels."""
    coarse = [max(2, side // 4) for side in shape[1:]]
    noise = torch.rand(1, shape[0], *coarse, generator=torch.Generator().manual_seed(seed))
    mode = "bilinear" if len(coarse) == 2 else "trilinear"
    return nn.functional.interpolate(noise, shape[1:], mode=mode)[0]


def _require(holds: bool, name: str, wrong: str, remedy: str) -> None:
    if not holds:
        raise AssertionError(f"{name} {wrong}: {remedy}")
