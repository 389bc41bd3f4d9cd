"""What a site says of its classes: corrected statistics heed it from the first batch on, and as far
as labels tell it.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.experts import Experts
from holdfast.callbacks.labelled import LabelledChoice
from holdfast.callbacks.labels import LabelBook
from holdfast.callbacks.settings import Tuned
from holdfast.tta.errors import InputError
from tests.callbacks.guard.easy import CLASSES, Batch, guarded, quadrants, right

#: One class for good, on a scanner of hardly any contrast: it may be any class.
WEST, FAINT = (0, 0, 0, 1), (0.3, 0.5)
KNOWN = GuardConfig(prevalence={"west": [0.9, 1.0]})
BY_LABELS = GuardConfig(prevalence="labels")


def written(path: Path, stream: Sequence[Batch], every: int) -> LabelBook:
    """Labels of every so many-th image."""
    with path.open("w") as file:
        file.write("id,label\n")
        for batch in stream:
            rows = [*zip(batch["id"], batch["label"].tolist(), strict=True)][::every]
            file.writelines(f"{name},{CLASSES[label]}\n" for name, label in rows)
    return LabelBook(path, CLASSES, 0.05)


@pytest.fixture(scope="module")
def stream() -> list[Batch]:
    return quadrants(16, shares=WEST, scanner=FAINT)


@pytest.fixture(scope="module")
def untold(stream: list[Batch]) -> float:
    return right(guarded(stream)[2], stream)


def test_who_knows_of_one_class_is_right_about_it(stream: list[Batch], untold: float) -> None:
    module, guard, outputs = guarded(stream, config=KNOWN)
    assert untold < 60 < 90 < right(outputs, stream)
    assert guard is not None
    assert module.twins is not None
    assert guard.experts.bounds is not None
    assert module.twins.correction is not None
    assert torch.equal(module.twins.correction.bounds.cpu(), guard.experts.bounds)


def test_a_few_labels_tell_the_same(stream: list[Batch], untold: float, tmp_path: Path) -> None:
    book = written(tmp_path / "labels.csv", stream, every=32)
    _, guard, outputs = guarded(stream, config=BY_LABELS, labels=book)
    assert untold < 60 < 80 < right(outputs[4:], stream[4:])
    assert guard is not None
    assert guard.labelled is not None
    bounds = guard.labelled.bounds
    assert bounds is not None
    assert guard.experts.bounds is not None
    low, high = 0.05 ** (1 / 32), 1 - 0.05 ** (1 / 32)  # of 32 labels all are of one class
    assert bounds[:, 3].tolist() == pytest.approx([low, 1])
    assert bounds[:, 1].tolist() == pytest.approx([0, high])
    assert torch.equal(bounds, guard.experts.bounds)


class Again(Callback):
    """Takes guard and statistics up anew before a batch, as from a checkpoint."""

    def __init__(self, before: int) -> None:
        self.before = before

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if index != self.before:
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        (guard,) = (one for one in callbacks if isinstance(one, CollapseGuard))
        file = BytesIO()
        torch.save([guard.state_dict(), module.twins.correction.state_dict()], file)
        file.seek(0)
        state, statistics = torch.load(file, weights_only=True)
        module.twins.correction.bounds = None
        module.twins.correction.load_state_dict(statistics)
        guard.load_state_dict(state)
        guard.start(module)


@pytest.mark.parametrize("config", [KNOWN, BY_LABELS])
def test_a_run_that_is_taken_up_knows_the_same(
    stream: list[Batch], config: GuardConfig, tmp_path: Path
) -> None:
    runs = []
    for callbacks in ([], [Again(5)]):
        book = None
        if config is BY_LABELS:
            book = written(tmp_path / "labels.csv", stream, every=32)
        runs.append(guarded(stream[:10], *callbacks, config=config, labels=book)[2])
    for plain, again in zip(*runs, strict=True):
        assert torch.equal(plain["logits"], again["logits"])


def test_who_goes_back_knows_what_was_known_then(stream: list[Batch], tmp_path: Path) -> None:
    book = written(tmp_path / "labels.csv", stream, every=32)
    module, guard, _ = guarded(stream[:4], config=BY_LABELS, labels=book)
    assert guard is not None
    assert module.twins is not None
    assert module.twins.correction is not None
    back, before = guard.marked(), module.twins.correction.bounds.clone()
    batch = stream[4]
    guard.act(module, module.training_step(batch, 4), batch)
    assert not torch.equal(module.twins.correction.bounds, before)
    back()
    assert torch.equal(module.twins.correction.bounds, before)
    assert guard.experts.bounds is not None
    assert torch.equal(guard.experts.bounds, before.cpu())


def test_many_labels_tell_the_shares_that_they_have(tmp_path: Path) -> None:
    """Beyond what is remembered of each class, where trust is weighed."""
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n")
    choice = LabelledChoice(LabelBook(path, CLASSES, 0.05), Experts(4, Tuned()))
    choice._weighed([(int(index % 10 == 0), {}) for index in range(3000)], learning=False)
    assert choice.bounds is not None
    (low, other_low, *_), (high, other_high, *_) = choice.bounds.tolist()
    assert 0.88 < low < 0.9 < high < 0.92
    assert 0.08 < other_low < 0.1 < other_high < 0.12


def test_who_goes_back_to_before_any_label_knows_nothing(
    stream: list[Batch], tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    book = written(path, stream[:0], every=32)
    module, guard, _ = guarded(stream[:2], config=BY_LABELS, labels=book)
    assert guard is not None
    assert module.twins is not None
    assert module.twins.correction is not None
    back = guard.marked()
    written(path, stream, every=32)
    guard.act(module, module.training_step(stream[2], 2), stream[2])
    assert module.twins.correction.bounds is not None
    back()
    assert module.twins.correction.bounds is None
    assert guard.experts.bounds is None


def test_a_module_that_heeds_nothing_of_it_is_guarded_as_before(stream: list[Batch]) -> None:
    _, guard, _ = guarded(stream[:1], config=KNOWN)
    assert guard is not None

    class Plain:
        """Another module, whose word for something else is the same."""

        expect = 7

        def pause(self, paused: bool) -> None: ...

    assert guard.experts.heeded
    guard.start(Plain())
    assert not guard.experts.heeded


def test_labels_that_nobody_gives_tell_nothing() -> None:
    with pytest.raises(InputError, match=r"guard\.prevalence=labels needs labels=FILE\.csv"):
        CollapseGuard(CLASSES, BY_LABELS)
