"""Labels that come while the stream runs, twenty batches late: the guard changes to what they show
to be better, and neither labels that are missing nor the end of them does harm.
"""

import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.experts import Experts, Found
from holdfast.callbacks.labelled import LabelledChoice
from holdfast.callbacks.labels import LabelBook
from holdfast.callbacks.settings import Tuned
from holdfast.tta.methods import Prediction
from tests.callbacks.guard.easy import CLASSES, PALE, Batch, guarded, quadrants, right

LATE, LEVEL, SIZE = 20, 0.05, 32
#: Trust in the source's statistics that no evidence outweighs; distrust of all but the batch's.
MISLED, AWAY = {"source": 50.0}, {"source": -9.0, "corrected": -9.0}
#: Settings under which no fall of the adapted model raises an alarm.
BLIND = GuardConfig(limits={"R": 1e9, "gain": 1e9, "vanished": 1e9})


class Late(Callback):
    """Appends each batch's labels to a file twenty batches later.

    Args:
        path: of the file, which is begun.
        stream: whose labels come.
        named: of a batch's number and an image's, whether there is a label.
    """

    def __init__(
        self,
        path: Path,
        stream: Sequence[Batch],
        named: Callable[[int, int], bool] = lambda batch, image: True,
    ) -> None:
        self.path, self.stream, self.named = path, stream, named
        path.write_text("id,label\n")

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        told = index - LATE
        if told < 0:
            return
        with self.path.open("a") as file:
            rows = zip(self.stream[told]["id"], self.stream[told]["label"].tolist(), strict=True)
            for image, (name, label) in enumerate(rows):
                if self.named(told, image):
                    file.write(f"{name},{CLASSES[label]}\n")


class Harm(Callback):
    """Pulls all adapted weights to nothing from the fifth batch on, while the model learns."""

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if index >= 4 and not module.paused:
            with torch.no_grad():
                for value in module.method.adapted.values():
                    value.mul_(0.5)


def labelled(
    stream: Sequence[Batch],
    path: Path,
    hint: dict[str, float],
    *callbacks: Callback,
    named: Callable[[int, int], bool] = lambda batch, image: True,
    **more: Any,
) -> tuple[CollapseGuard, list[dict[str, Any]]]:
    """A guarded run on a stream whose labels come late, and its outputs."""
    late = Late(path, stream, named)
    book = LabelBook(path, CLASSES, LEVEL)
    _, guard, outputs = guarded(
        stream, *callbacks, late, labels=book, hint=hint, batch_size=SIZE, **more
    )
    assert guard is not None
    return guard, outputs


def told(outputs: Sequence[dict[str, Any]], reason: str) -> list[tuple[int, str]]:
    """Batch and sentence of each event of labels."""
    return [
        (index, event["message"])
        for index, output in enumerate(outputs)
        for event in output["events"]
        if (event["event"], event["reason"]) == ("labels", reason)
    ]


def test_the_adapted_model_serves_where_labels_show_that_it_is_better(tmp_path: Path) -> None:
    stream = quadrants(36, SIZE, scanner=PALE)
    guard, outputs = labelled(stream, tmp_path / "labels.csv", MISLED)
    ((change, sentence),) = told(outputs, "better")
    assert LATE < change < LATE + 10
    before, after = outputs[: change + 1], outputs[change + 1 :]
    assert {(o["served_by"], o["mode"], o["verdict"]) for o in before} == {
        ("source", "holding", "WATCH")
    }
    assert {(o["served_by"], o["mode"], o["verdict"]) for o in after} == {
        ("adapted", "adapting", "OK")
    }
    labels = SIZE * (change - LATE + 1)  # all that had come
    assert sentence.startswith(f"{labels} labels show that adapted is better than what was served")
    assert f"(level {LEVEL:g})" in sentence
    assert guard.experts.pinned == "adapted"
    assert right(before, stream) < 60
    assert right(after, stream[change + 1 :]) > 97
    kinds = [event["event"] for event in after[0]["events"]]
    assert kinds == ["mode", "verdict", "labels"], "the mode follows at the next batch"


def test_an_un_updated_candidate_serves_and_updates_wait_where_labels_show_that_it_is_better(
    tmp_path: Path,
) -> None:
    """What labels say of the adapted model speaks against the statistics that it serves for."""
    stream = quadrants(40, SIZE)
    guard, outputs = labelled(stream, tmp_path / "labels.csv", AWAY, Harm(), config=BLIND)
    assert told(outputs, "better") == []
    change, sentence = told(outputs, "weighed")[-1]
    assert LATE < change < 36
    harmed, after = outputs[change - 12 : change - 2], outputs[change + 1 :]
    assert right(harmed, stream[change - 12 : change - 2]) < 50
    assert right(after, stream[change + 1 :]) > 97
    assert {output["mode"] for output in harmed} == {"adapting"}
    assert {(output["mode"], output["verdict"]) for output in after} == {("holding", "WATCH")}
    assert {output["served_by"] for output in after} == {"source"}
    count = re.match(r"With (\d+) labels the trust goes .* to source\.", sentence)
    assert count is not None
    assert 0 < int(count[1]) <= SIZE * (change - LATE + 1)
    assert "adapted" in guard.experts.barred, "labels of later images show how bad it is"


def test_labels_that_show_no_difference_change_nothing_that_is_served(tmp_path: Path) -> None:
    stream = quadrants(34, SIZE, scanner=PALE)
    guard, outputs = labelled(stream, tmp_path / "labels.csv", {})
    _, _, plain = guarded(stream, batch_size=SIZE)
    assert guard.experts.pinned is None
    assert told(outputs, "better") == []
    for output in outputs:
        assert output["mode"] == "adapting"
    assert right(outputs, stream) >= right(plain, stream) - 0.5


def two(batch: int, image: int) -> bool:
    """Two labels a batch."""
    return image < 2


def test_a_few_labels_move_the_trust_before_they_prove_anything(tmp_path: Path) -> None:
    stream = quadrants(36, SIZE, scanner=PALE)
    little = {"source": 6.0}  # so that what it loses by evidence is made up for, and no more
    _, plain = labelled(stream, tmp_path / "none.csv", little, named=none)
    guard, outputs = labelled(stream, tmp_path / "labels.csv", little, named=two)
    assert {output["served_by"] for output in plain[LATE:]} == {"source"}
    (change, sentence), *_ = told(outputs, "weighed")
    assert LATE <= change < LATE + 12
    count = 2 * (change - LATE + 1)
    assert sentence.startswith(f"With {count} labels the trust goes from source to ")
    assert told(outputs, "better") == []
    assert guard.experts.pinned is None
    last = outputs[-6:]
    assert {output["served_by"] for output in last} == {"adapted"}
    assert right(last, stream[-6:]) > 97


def few(batch: int, image: int) -> bool:
    """One label in four."""
    return image % 4 == 0


def early(batch: int, image: int) -> bool:
    """Those of the first ten batches."""
    return batch < 10


def none(batch: int, image: int) -> bool:
    """No label at all."""
    return False


@pytest.mark.parametrize("named", [few, early])
def test_missing_labels_and_a_second_half_without_any_do_no_harm(
    tmp_path: Path, named: Callable[[int, int], bool]
) -> None:
    stream = quadrants(48, SIZE, scanner=PALE)
    guard, outputs = labelled(stream, tmp_path / "labels.csv", MISLED, named=named)
    ((change, _),) = told(outputs, "better")
    after = outputs[change + 1 :]
    assert len(after) >= 8
    assert {output["served_by"] for output in after} == {"adapted"}
    assert right(after, stream[change + 1 :]) > 97
    assert guard.alarms == 0
    assert told(outputs, "warning") == []


def test_a_file_without_labels_leaves_everything_as_it_is_without_a_file(tmp_path: Path) -> None:
    stream = quadrants(24, SIZE, scanner=PALE)
    _, outputs = labelled(stream, tmp_path / "labels.csv", MISLED, named=none)
    _, _, plain = guarded(stream, batch_size=SIZE, hint=MISLED)
    for found, same in zip(outputs, plain, strict=True):
        assert torch.equal(found["logits"], same["logits"])
        for key in ("verdict", "mode", "served_by", "events"):
            assert found[key] == same[key]


class Again(Callback):
    """After so many batches, lets another guard take over from the first one's state."""

    def __init__(self, fresh: Callable[[], CollapseGuard], after: int) -> None:
        self.fresh, self.after = fresh, after
        self.taken_up: CollapseGuard | None = None

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        place = next(i for i, one in enumerate(callbacks) if isinstance(one, CollapseGuard))
        if index == self.after:
            self.taken_up = self.fresh()
            kept = BytesIO()
            torch.save(callbacks[place].state_dict(), kept)
            kept.seek(0)
            self.taken_up.load_state_dict(torch.load(kept, weights_only=True))
            callbacks[place] = self.taken_up
            self.taken_up.on_stream_start(trainer, module)


@pytest.mark.parametrize("after", [18, 22, 30], ids=["before labels", "with some", "changed"])
def test_a_guard_that_is_taken_up_goes_on_exactly(tmp_path: Path, after: int) -> None:
    stream = quadrants(36, SIZE, scanner=PALE)
    guard, expected = labelled(stream, tmp_path / "straight.csv", MISLED)
    path = tmp_path / "halves.csv"

    def fresh() -> CollapseGuard:
        source = guard.experts.source
        new = CollapseGuard(CLASSES, None, source, None, LabelBook(path, CLASSES, LEVEL))
        new.experts.hint = MISLED
        return new

    again = Again(fresh, after)
    _, outputs = labelled(stream, path, MISLED, again)
    assert again.taken_up is not None
    for found, same in zip(outputs, expected, strict=True):
        assert torch.equal(found["logits"], same["logits"])
        for key in ("verdict", "mode", "served_by", "looked", "events"):
            assert found[key] == same[key]
    assert again.taken_up.batch == guard.batch == len(stream)
    assert again.taken_up.experts.pinned == guard.experts.pinned == "adapted"
    assert again.taken_up.labelled is not None
    assert guard.labelled is not None
    book, same_book = (one.labelled.state_dict()["book"] for one in (again.taken_up, guard))
    assert book["tests"] == same_book["tests"]
    assert (book["counted"], book["matched"]) == (same_book["counted"], same_book["matched"])


#: What candidates are held to say of an image of two classes.
SAYS = {"right": [5.0, 0.0], "wrong": [0.0, 5.0]}


def choice(path: Path, *names: str) -> LabelledChoice:
    """Of candidates that nothing else speaks for or against."""
    path.write_text("id,label\n")
    found = Experts(2, Tuned(), Reference(torch.zeros(2, 1), torch.ones(2, 1)))
    found.weigh(64, {name: Found(1.0, 0.5) for name in names})  # type: ignore[misc]
    found.working = "batch"
    return LabelledChoice(LabelBook(path, ("a", "b"), LEVEL), found)


def hear(
    chosen: LabelledChoice, path: Path, label: str, *, learning: bool = False, **says: str
) -> list[tuple[str, str]]:
    """One more label, and what each said of its image."""
    name = str(len(path.read_text()))
    with path.open("a") as file:
        file.write(f"{name},{label}\n")
    said = {who: torch.tensor([SAYS[what]]) for who, what in says.items()}
    if label == "b":
        said = {who: logits.flip(1) for who, logits in said.items()}
    adapted = said.pop("adapted", torch.tensor([SAYS["right"]]))
    given = {who: Prediction(logits, torch.zeros(1, 1)) for who, logits in said.items()}
    return chosen.take([name], adapted, adapted, given, learning=learning)  # type: ignore[arg-type]


def test_a_label_adds_its_weight_to_who_is_right(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    chosen = choice(path, "source", "batch")
    for _ in range(3):
        hear(chosen, path, "a", source="right", batch="wrong")
    assert chosen.experts.told == {"source": 3.0, "batch": 0.0}
    for _ in range(3):
        hear(chosen, path, "b", source="wrong", batch="right")
    assert chosen.experts.told == {"source": 3.0, "batch": 3.0}


def test_one_label_of_a_rare_class_outweighs_no_hundred_of_another(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    chosen = choice(path, "source", "batch")
    for number in range(100):
        hear(chosen, path, "a", source="right" if number % 5 else "wrong", batch="right")
    assert chosen.experts.told == pytest.approx({"source": 80.0, "batch": 100.0})
    hear(chosen, path, "b", source="right", batch="wrong")
    told_ = chosen.experts.told  # as well known as by four labels, two of each class
    assert told_ == pytest.approx({"source": 0.8 * 200 / 101 + 200 / 101, "batch": 200 / 101})


def test_who_said_nothing_is_as_good_as_the_others(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    chosen = choice(path, "source", "batch", "corrected")
    hear(chosen, path, "a", source="right", batch="wrong")
    assert chosen.experts.told == {"source": 1.0, "batch": 0.0, "corrected": 0.5}


def test_the_adapted_model_answers_for_the_statistics_that_it_serves_for(tmp_path: Path) -> None:
    for learning in (True, False):
        path = tmp_path / f"{learning}.csv"
        chosen = choice(path, "source", "batch")
        for _ in range(8):
            says = {"source": "right", "batch": "right", "adapted": "wrong"}
            events = hear(chosen, path, "a", learning=learning, **says)
        assert chosen.experts.told["batch"] == (0.0 if learning else 8.0)
        assert chosen.experts.trusted.get("source", 0) == (1.0 if learning else 0.5)
    assert events == []


def test_labels_count_for_no_more_than_the_memory_of_a_class(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    chosen = choice(path, "source", "batch")
    for _ in range(300):
        hear(chosen, path, "a", source="right", batch="wrong")
    assert chosen.experts.told["source"] == pytest.approx(Tuned().memory + 1)


def test_a_mark_leads_back_twice(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    chosen = choice(path, "source", "batch")
    hear(chosen, path, "a", source="right", batch="wrong")
    back, before = chosen.marked(), chosen.state_dict()
    for _ in range(2):
        hear(chosen, path, "b", source="right", batch="wrong")
        back()
        after = chosen.state_dict()
        assert (after["right"], after["counted"]) == (before["right"], before["counted"])
