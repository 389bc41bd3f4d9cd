"""A run that is taken up in the middle, in each mode, goes on as if it had never been stopped."""

from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer

from holdfast.callbacks import CollapseGuard
from tests.callbacks.test_odd_streams import run

# Modes are forced by options, whatever the evidence says of a source that was hardly trained.
#: None leads.
EVEN = ("guard.tuned.sharpness=0",)
#: The source leads.
BLOCKS = (*EVEN, "guard.order=correlated", "method.normalization=batch")
#: Batch statistics lead, on images that the source knows.
MIXED = (*EVEN, "guard.order=mixed", "data.target=scanner_a")
#: The same at a rate that harms at once.
HARM = (*MIXED, "method.lr=.3", "guard.limits.gain=.01")


class Save(Callback):
    """Leaves a checkpoint after the first batch from some on that ends in a mode."""

    def __init__(self, path: Path, mode: str, start: int) -> None:
        self.path, self.mode, self.start = path, mode, start
        self.saved = -1

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        guard = next(one for one in trainer.callbacks if isinstance(one, CollapseGuard))  # type: ignore[attr-defined]
        if self.saved < 0 and guard.batch > self.start and guard.memory.mode == self.mode:
            self.saved = guard.batch
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("adapting", (*MIXED, "method.lr=1e-3")),
        ("hedging", EVEN),
        ("holding", BLOCKS),
        ("resting", HARM),
        ("frozen", (*HARM, "guard.ladder=[slow,freeze]")),
    ],
)
def test_a_run_that_is_taken_up_in_any_mode_goes_on_exactly(
    source: Path, tmp_path: Path, mode: str, words: tuple[str, ...]
) -> None:
    save = Save(tmp_path / "mid.ckpt", mode, 3)
    words = ("stream.passes=3", *words)
    straight, whole, expected = run(source, *words, count=30, also=save)
    assert 3 < save.saved < 24, "the mode was never reached"
    resumed, guard, outputs = run(
        source, *words, count=30, ckpt_path=tmp_path / "mid.ckpt", weights_only=False
    )
    assert guard.batch == whole.batch == 30
    rest = expected[save.saved :]
    assert len(outputs) == len(rest) >= 6
    keys = ("verdict", "mode", "choice", "served_by", "looked", "leads", "statistics", "stands_for")
    for found, same in zip(outputs, rest, strict=True):
        assert {key: found[key] for key in keys} == {key: same[key] for key in keys}
        assert found.get("shares") == same.get("shares")
        assert [event["event"] for event in found["events"]] == [
            event["event"] for event in same["events"]
        ]
        assert torch.equal(found["logits"], same["logits"])
    assert guard.memory == whole.memory
    assert (guard.alarmed, guard.resets) == (whole.alarmed, whole.resets)
    assert guard.experts.trusted == whole.experts.trusted
    weights = straight.method.adapted_state()
    for name, value in resumed.method.adapted_state().items():
        assert torch.equal(value, weights[name])
