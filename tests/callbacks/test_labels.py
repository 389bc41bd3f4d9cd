"""Labels that come late, in part, or with mistakes: what they say of candidates."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from holdfast.callbacks import labels
from holdfast.callbacks.labels import LabelBook, LabelVerdict
from holdfast.tta.errors import InputError

NAMES = ("benign", "malignant")
SIZE = 16


def says(labels: Tensor, right: float, draw: torch.Generator) -> Tensor:
    """Logits of a model that is right in a share of its images."""
    flip = torch.rand(len(labels), generator=draw) >= right
    return torch.eye(2)[torch.where(flip, 1 - labels, labels)]


class Clinic:
    """A stream of batches with two candidates, and a pathology that answers later.

    The adapted model, which serves at first, is right in 70 % of the images, the source in 95 %.
    """

    def __init__(self, path: Path, share: float = 1.0) -> None:
        self.path, self.share, self.draw = path, share, torch.Generator().manual_seed(0)
        self.late: list[str] = []
        path.write_text("id,label\n")

    def batches(self, book: LabelBook, count: int, start: int = 0) -> Iterator[int]:
        for number in range(start, start + count):
            labels = torch.randint(2, (SIZE,), generator=self.draw)
            adapted, source = says(labels, 0.7, self.draw), says(labels, 0.95, self.draw)
            ids = [f"scan {number}-{place}" for place in range(SIZE)]
            book.remember(ids, {"served": adapted, "adapted": adapted, "source": source})
            told = torch.rand(SIZE, generator=self.draw) < self.share
            rows = zip(ids, labels.tolist(), told.tolist(), strict=True)
            self.late.append("".join(f"{name},{NAMES[c]}\n" for name, c, known in rows if known))
            yield number

    def answer(self, number: int) -> None:
        """The labels of a batch arrive."""
        with self.path.open("a") as file:
            file.write(self.late[number])


def book_of(path: Path, level: float = 0.05) -> LabelBook:
    return LabelBook(path, NAMES, level)


def test_labels_twenty_batches_late_tell_which_is_better(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "labels.csv")
    book = book_of(clinic.path)
    told: dict[int, LabelVerdict] = {}
    for number in clinic.batches(book, 40):
        if number >= 20:
            clinic.answer(number - 20)
        assert book.read()[:2] == (SIZE if number >= 20 else 0, ())
        told[number] = book.verdict()
    assert told[19] == (None, (), 0, 0.05)
    first = min(number for number, verdict in told.items() if verdict.better)
    assert first - 20 <= 10  # some 150 labels
    assert told[39] == ("source", (), 20 * SIZE, 0.05)


def test_half_of_the_labels_never_come(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "labels.csv", share=0.5)
    book = book_of(clinic.path)
    for number in clinic.batches(book, 40):
        clinic.answer(number)
        book.read()
    assert book.verdict().better == "source"
    assert book.verdict().labels == clinic.path.read_text().count("\n") - 1 < 25 * SIZE


def test_what_is_served_is_shown_to_be_better(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "labels.csv")
    book = book_of(clinic.path)
    draw, labels = torch.Generator().manual_seed(1), torch.arange(300) % 2
    good, bad = says(labels, 0.95, draw), says(labels, 0.7, draw)
    ids = [str(number) for number in range(300)]
    clinic.path.write_text("id,label\n" + "".join(f"{i},{NAMES[int(i) % 2]}\n" for i in ids))
    book.remember(ids, {"served": good, "control": bad, "source": good})
    book.read()
    assert book.verdict() == (None, ("control",), 300, 0.05)


def test_a_label_that_is_there_before_its_image_and_one_that_is_written_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\nelsewhere,benign\na,malignant\n")
    book = book_of(path)
    assert book.read().labels == 0
    book.remember(["a"], {"served": torch.tensor([[0.0, 1.0]]), "source": torch.eye(2)[:1]})
    assert book.read().labels == 1
    assert book.state_dict()["tests"]["source"]["waiting"] == [[], [-1.0]]  # malignant counted
    book.remember(["a"], {"served": torch.eye(2)[:1], "source": torch.eye(2)[:1]})
    path.write_text("id,label\na,benign\n")
    assert book.read().labels == 0  # nothing counts twice


def test_half_a_line_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\nb,mali")
    book = book_of(path)
    book.remember(["a", "b"], {"served": torch.eye(2), "source": torch.eye(2)})
    assert book.read()[:2] == (1, ())
    with path.open("a") as file:
        file.write("gnant\n")
    assert book.read()[:2] == (1, ())


def test_a_pair_needs_both(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\nb,benign\nc,benign\n")
    book = book_of(path)
    rows = torch.tensor([[1.0, 0.0], [math.nan, 0.0]])
    book.remember(["a", "b"], {"served": torch.eye(2), "source": rows})
    book.remember(["c"], {"served": torch.eye(2)[:1], "corrected": torch.eye(2)[1:]})
    assert book.read().labels == 2
    tests = book.state_dict()["tests"]
    assert {name: test["counts"] for name, test in tests.items()} == {
        "source": [1, 0],
        "corrected": [1, 0],
    }


def test_when_what_is_served_changes_the_tests_begin_anew(tmp_path: Path) -> None:
    """Of images that left before, the candidate that serves now stands for what is served."""
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\n")
    book = book_of(path)
    yes, no = torch.eye(2)[:1], torch.eye(2)[1:]
    for name in "abc":
        book.remember([name], {"served": no, "adapted": no, "source": yes, "batch": no})
    book.read()
    book.restart("source")
    assert book.verdict().labels == 0
    path.write_text("id,label\na,benign\nb,benign\n")
    assert book.read().labels == 1
    tests = book.state_dict()["tests"]
    assert tests["source"]["waiting"][0] == [0.0]
    assert tests["adapted"]["waiting"][0] == [-1.0]
    book.restart(None)
    path.write_text("id,label\na,benign\nb,benign\nc,benign\n")
    assert book.read().labels == 0


def test_mistakes_are_refused_at_the_start_and_told_once_later(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benine\n")
    with pytest.raises(InputError, match="benine"):
        book_of(path)
    path.write_text("id,label\n")
    book = book_of(path)
    book.remember(["a", "b"], {"served": torch.eye(2), "source": torch.eye(2)})
    path.write_text("id,label\na,benine\nb,malignant\n")
    counted, warnings, *_ = book.read()
    assert counted == 1
    assert len(warnings) == 1
    assert "benine" in warnings[0]
    path.write_text("id,label\na,benine\nb,malignant\nc,benign\n")
    assert book.read()[:2] == (0, ())
    path.write_text("name\n")
    counted, warnings, *_ = book.read()
    assert counted == 0
    assert "no column id" in warnings[0]
    path.unlink()
    assert book.read()[:2] == (0, ())


def test_the_oldest_images_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MEMORY", 2)
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n")
    book = book_of(path)
    for name in "abc":
        book.remember([name], {"served": torch.eye(2)[:1], "source": torch.eye(2)[:1]})
    path.write_text("id,label\na,benign\nb,benign\nc,benign\n")
    assert book.read().labels == 2


def test_a_run_that_goes_on_counts_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "labels.csv")
    whole, first = book_of(clinic.path), book_of(clinic.path)
    for number in clinic.batches(whole, 6):
        clinic.answer(number)
        whole.read()
        if number == 3:
            whole.restart("source")
    again = Clinic(tmp_path / "labels.csv")
    for number in again.batches(first, 4):
        again.answer(number)
        first.read()
    first.restart("source")
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = book_of(clinic.path)
    second.load_state_dict(torch.load(file, weights_only=True))
    for number in again.batches(second, 2, start=4):
        again.answer(number)
        second.read()
    one, other = whole.state_dict(), second.state_dict()
    for name in ("numbers", "said"):
        assert torch.equal(one.pop(name), other.pop(name))
    assert one == other
    assert second.verdict() == whole.verdict()


def test_labels_count_in_the_order_of_the_images_however_often_the_file_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\nscan 2,benign\nscan 1,malignant\n")  # known before the images come
    straight, stopped = book_of(path), book_of(path)
    said = {"served": torch.eye(2), "source": torch.eye(2)}
    for book in (straight, stopped):
        book.read()
        book.remember(["scan 1", "scan 2"], said)
    again = book_of(path)
    again.load_state_dict(stopped.state_dict())
    assert again.read().ids == straight.read().ids == ("scan 1", "scan 2")
    assert again.state_dict()["counted"] == straight.state_dict()["counted"]


@pytest.mark.parametrize("name", ["scan 1 ", " scan 1", "scan 1\u00a0"])
def test_a_label_finds_its_image_whatever_blanks_are_around_the_id(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n")
    book, logits = book_of(path), torch.eye(2)[:1]
    book.remember([name], {"served": logits, "source": logits})
    path.write_text(f"id,label\n{name},malignant\n")
    assert book.read().labels == 1
    assert book.strange([name]) == 0
    assert book.strange(["scan 2"]) == 1
