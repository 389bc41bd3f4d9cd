"""What the guard costs on a calm stream: operations that are dispatched, and values that are read
back to the host. They stand for the time of a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.callbacks import CollapseGuard
from holdfast.callbacks.guard.experts import Belief
from holdfast.datamodules import StreamLoader, create_stream
from holdfast.tta.checkpoint import SourceCheckpoint
from tests.conftest import QUICK

BATCHES, SIZE = 100, 32


class Counted(TorchDispatchMode):
    """Counts operations, and values read back one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.read = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.read += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def calm(
    source: Path, *words: str, leads: str = "batch"
) -> tuple[Counted, int, CollapseGuard | None]:
    """Counts of a calm stream, and how often the guard read back, where some statistics lead."""
    config = configure(
        [
            *(f"source={source}", *QUICK, "method=tent", "method.lr=1e-6"),
            *("data.target=scanner_a", f"stream.batch_size={SIZE}", "stream.passes=8", *words),
        ]
    )
    checkpoint = SourceCheckpoint.load(source)
    images = Assembly.of(config, checkpoint).images
    stream = create_stream(config.stream.options, images, 0).part(slice(SIZE * BATCHES))
    torch.manual_seed(0)
    module, guard = Assembly.of(config, checkpoint).guarded()
    counted, listed, read = Counted(), [0], [0]
    original = Tensor.tolist

    def tolist(value: Tensor) -> Any:
        listed[0] += 1
        return original(value)

    def watched(judge: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            before = counted.read + listed[0]
            judge(*args)
            read[0] += counted.read + listed[0] - before

        return run

    if guard is not None:
        assert isinstance(guard, CollapseGuard)
        guard.experts.belief = Belief({leads: 50.0})
        guard.on_train_batch_end = watched(guard.on_train_batch_end)  # type: ignore[method-assign]
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard] if guard else [],
    )
    with pytest.MonkeyPatch.context() as patch, counted:
        patch.setattr(Tensor, "tolist", tolist)
        trainer.fit(module, StreamLoader(images, stream, SIZE))
    return counted, read[0], guard


# Bounds of what is reached, so that it gets no worse. They are numbers of operations, not shares of
# an unguarded batch, for that has half of those that it had before its optimiser was one kernel:
# 200. The source serves with 233, batch statistics with 311, corrected ones with 542; the goal is
# 1.25 times an unguarded batch, 250.


@pytest.mark.parametrize(
    ("leads", "most"),
    [("source", 240), ("batch", 320), ("corrected", 555)],
)
def test_a_calm_stream_reads_back_once_a_batch_and_has_so_many_operations(
    source: Path, leads: str, most: int
) -> None:
    guarded, read, guard = calm(source, leads=leads)
    assert guard is not None
    assert (guard.batch, guard.alarms) == (BATCHES, 0)
    assert read <= BATCHES
    assert guarded.operations <= most * BATCHES


def test_an_unguarded_batch_has_so_many_operations(source: Path) -> None:
    unguarded, _, _ = calm(source, "guard=off")
    assert unguarded.operations <= 210 * BATCHES
