"""Odd streams under the guard: repeated images, one image at a time, classes without images, two
classes of four.
"""

import math
from typing import Any

import pytest
import torch
from lightning import Callback

from tests.callbacks.guard.easy import PALE, guarded, quadrants, right

SKEWED, TWO = (85, 5, 5, 5), (1, 1, 0, 0)
#: Even less contrast: the source's own statistics fail, and so may corrected ones.
PALER = (0.25, 0.5)


def sound(outputs: list[dict[str, Any]]) -> bool:
    finite = all(output["logits"].isfinite().all() for output in outputs)
    return finite and all(o["mode"] == "adapting" or o["verdict"] != "OK" for o in outputs)


@pytest.mark.parametrize("shares", [(1, 1, 1, 1), SKEWED, TWO])
@pytest.mark.parametrize("bias", [-5.0, 1.0], ids=["never predicted", "now and then"])
def test_a_class_that_the_checkpoint_has_no_images_of_does_not_cost(
    bias: float, shares: tuple[float, ...]
) -> None:
    stream = quadrants(24, scanner=PALE, shares=shares)
    _, _, four = guarded(stream)
    _, guard, five = guarded(stream, classes=5, bias=bias)
    assert guard is not None
    assert sound(five)
    assert right(five, stream) >= right(four, stream) - 2


@pytest.mark.parametrize("scanner", [PALE, PALER], ids=["pale", "paler"])
def test_two_of_four_classes_are_served_about_as_well_as_by_the_best_statistics(
    scanner: tuple[float, float],
) -> None:
    stream = quadrants(24, scanner=scanner, shares=TWO)
    fixed = [
        right(guarded(stream, guard=False, lr=1e-12, normalization=name)[2], stream)
        for name in ("source", "batch")
    ]
    _, _, outputs = guarded(stream)
    assert sound(outputs)
    assert right(outputs, stream) >= max(fixed) - 5


@pytest.mark.parametrize("size", [1, 2, 4])
def test_small_batches(size: int) -> None:
    stream = quadrants(100, size=size, scanner=PALE)
    _, guard, outputs = guarded(stream, batch_size=size)
    assert guard is not None
    assert guard.batch == 100
    assert sound(outputs)
    assert right(outputs, stream) > 90


def test_batches_of_one_image_over_and_over() -> None:
    stream = quadrants(24, scanner=PALE)
    for batch in stream[6:18:3]:
        for key in ("image", "label"):
            batch[key] = batch[key][:1].expand_as(batch[key]).clone()
    _, guard, outputs = guarded(stream)
    assert guard is not None
    assert guard.alarms == 0
    assert sound(outputs)
    assert right(outputs, stream) > 95


def test_a_few_images_over_and_over() -> None:
    stream = quadrants(24, scanner=PALE)
    for batch in stream[6:]:
        batch["image"] = batch["image"][:4].repeat(16, 1, 1, 1)
        batch["label"] = batch["label"][:4].repeat(16)
    _, guard, outputs = guarded(stream)
    assert guard is not None
    assert guard.alarms == 0
    assert sound(outputs)
    assert right(outputs, stream) > 95


class _Breaks(Callback):
    """Puts something into what a step left, before the guard looks."""

    def __init__(self, **entries: Any) -> None:
        self.entries = entries

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        outputs.update(self.entries)


class _Writes(Callback):
    """Writes into the prediction itself."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        outputs["logits"].fill_(math.nan)


@pytest.mark.parametrize(
    "breaks", [_Breaks(logits=torch.full((32, 4), math.nan)), _Writes()], ids=["put in", "written"]
)
def test_logits_that_somebody_changed_are_looked_at_anew(breaks: Callback) -> None:
    _, guard, outputs = guarded(quadrants(2, 32), breaks, batch_size=32)
    assert guard is not None
    assert [output["verdict"] for output in outputs] == ["ALARM", "ALARM"]


@pytest.mark.parametrize("counts", [5, [2.0], torch.ones(32)])
def test_counts_of_somebody_elses_are_no_counts_of_ours(counts: Any) -> None:
    stream = quadrants(3, 32)
    _, _, outputs = guarded(stream, _Breaks(counts=counts), batch_size=32)
    _, _, plain = guarded(stream, batch_size=32)
    for found, same in zip(outputs, plain, strict=True):
        assert found["verdict"] == same["verdict"]
        assert torch.equal(found["logits"], same["logits"])
