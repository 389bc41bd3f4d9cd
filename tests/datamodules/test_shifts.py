"""Shifts: deterministic by seed and image id, within the range, and the stronger the higher the severity."""

import pytest
import torch

from datamodules import ImageSet, create_shift
from datamodules.phantom import PhantomConfig, load_phantom
from datamodules.shifts import CORRUPTIONS, NoShiftConfig, ShiftConfig
from tta.errors import InputError


def images(count: int) -> ImageSet:
    return load_phantom(PhantomConfig(target_images=count), "target")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shifts_are_deterministic_in_range_and_grow_with_severity(kind: str) -> None:
    clean = images(4)[0]["image"]
    changes = []
    for severity in range(1, 6):
        shift = create_shift(kind, ShiftConfig(severity=severity))
        assert shift is not None
        shifted = shift(clean, "0")
        assert torch.equal(shifted, shift(clean, "0"))
        assert shifted.shape == clean.shape
        assert shifted.dtype == torch.float32
        assert 0 <= shifted.min() <= shifted.max() <= 1
        changes.append((shifted - clean).abs().mean().item())
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


def test_noise_depends_on_image_and_seed() -> None:
    clean = torch.full((1, 8, 8), 0.5)
    shift, other = create_shift("noise", ShiftConfig()), create_shift("noise", ShiftConfig(seed=1))
    assert shift is not None
    assert other is not None
    assert not torch.equal(shift(clean, "0"), shift(clean, "1"))
    assert not torch.equal(shift(clean, "0"), other(clean, "0"))
    assert create_shift("none", NoShiftConfig()) is None


def test_bad_shifts() -> None:
    for severity in (0, 6, 9):
        with pytest.raises(InputError, match=f"shift.severity={severity} is outside 1..5"):
            ShiftConfig(severity=severity)
