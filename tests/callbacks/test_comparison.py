"""Adapted model beside control: what small batches tell of them."""

import pytest
import torch
import torch.nn.functional as F
from callbacks.comparison import Comparison
from callbacks.verdict import Statistics

from callbacks import GuardConfig
from tta.errors import InputError
from tta.methods import Prediction

DEFAULTS = GuardConfig()


def compared(images: int, batches: int, classes: int = 3) -> list[Statistics]:
    """The statistics of a model that has collapsed wholly beside a control that tells all classes
    apart.
    """
    generator = torch.Generator().manual_seed(0)
    comparison = Comparison(
        [str(index) for index in range(classes)], DEFAULTS.decay, DEFAULTS.min_count
    )
    centres, found = torch.randn(classes, 8, generator=generator), []
    for _ in range(batches):
        said = (
            F.one_hot(torch.randint(classes, (images,), generator=generator), classes).float() * 10
        )
        control = Prediction(said, torch.randn(images, 8, generator=generator) + said @ centres)
        adapted = Prediction(
            F.one_hot(torch.zeros(images).long(), classes).float(),
            torch.randn(images, 8, generator=generator),
        )
        found.append(comparison.measure(adapted, control, None, 1))
    return found


@pytest.mark.parametrize("images", [1, 4, 16, 64])
def test_a_collapse_shows_whatever_the_batch(images: int) -> None:
    found = compared(images, 256 // images)
    known = [statistics.ratio for statistics in found if statistics.ratio is not None]
    assert len(known) > len(found) / 3
    assert max(known) < 0.5


def test_a_pause_needs_time() -> None:
    with pytest.raises(
        InputError, match=r"guard.rest=0 leaves guard.ladder's pause without effect"
    ):
        GuardConfig(ladder=["slow", "pause"], rest=0)
