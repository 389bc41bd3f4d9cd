"""Other networks under guard: one without statistics to choose, and a deep one."""

from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from tests.callbacks.guard.easy import PALE, guarded, quadrants, right

NETWORKS = [
    ("compact", "group"),
    pytest.param("resnet18", "batch", marks=pytest.mark.slow),
]


class Harm(Callback):
    """From a batch on, pulls all adapted weights to nothing, so that all images look alike."""

    def __init__(self, start: int) -> None:
        self.start = start

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if index >= self.start and not module.paused:
            with torch.no_grad():
                for value in module.method.adapted.values():
                    value.mul_(0.5)


@pytest.mark.parametrize(("kind", "norm"), NETWORKS)
def test_a_calm_stream_is_served_by_the_adapted_model_and_never_alarmed(
    kind: str, norm: str
) -> None:
    stream = quadrants(16, scanner=PALE)
    _, guard, outputs = guarded(stream, kind=kind, norm=norm)
    assert guard is not None
    assert (guard.alarms, guard.batch) == (0, 16)
    assert {output["served_by"] for output in outputs[8:]} == {"adapted"}
    assert {output["mode"] for output in outputs[8:]} == {"adapting"}
    known = {"source"} if norm == "group" else {"source", "batch", "corrected"}
    assert guard.experts.found.keys() == known
    assert right(outputs, stream) > 97


@pytest.mark.parametrize(("kind", "norm"), NETWORKS)
def test_a_collapse_is_caught_and_not_served(kind: str, norm: str) -> None:
    stream = quadrants(40, scanner=PALE)
    _, guard, outputs = guarded(stream, Harm(12), kind=kind, norm=norm)
    assert guard is not None
    assert 12 <= guard.alarmed[0] <= 18
    assert right(outputs, stream) > 95
    _, _, alone = guarded(stream, Harm(12), kind=kind, norm=norm, guard=False)
    assert right(alone[20:], stream[20:]) < 60, "where the harm leads to, if nobody stops it"


class Twins(Callback):
    """Asks un-updated twins about each batch, as a guard does."""

    def __init__(self) -> None:
        self.control: list[Tensor] = []
        self.candidate: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.control.append(module.control(batch).logits)
        self.candidate.append(module.candidates(batch, ["batch"])["batch"].logits)


def test_twins_are_asked_in_the_precision_of_the_steps() -> None:
    """Else rounding alone would set the adapted model apart from its control."""
    twins = Twins()
    stream = quadrants(2, size=8, scanner=PALE)
    _, _, outputs = guarded(
        stream, twins, precision="bf16-mixed", lr=1e-30, batch_size=8, guard=False
    )
    for output, control, candidate in zip(outputs, twins.control, twins.candidate, strict=True):
        assert output["logits"].dtype == control.dtype == torch.bfloat16
        assert torch.equal(output["logits"], control)
        assert torch.equal(output["logits"], candidate)
