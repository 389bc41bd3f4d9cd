"""Acceptance before go-live: advice that a small sample bears out, and the command's files and exit
status.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.programs import adapt, train
from holdfast.tta.acceptance import (
    EXIT,
    MARGIN,
    Way,
    accepted,
    advised,
    check_sample,
    compared,
    more_labels,
)
from holdfast.tta.csvfile import read_rows
from holdfast.tta.errors import InputError
from holdfast.tta.intervals import paired
from tests.conftest import QUICK
from tests.test_own_data import clinic

Capture = pytest.CaptureFixture[str]
CLASSES = ("benign", "malignant")


def answers(right: Any, labels: Tensor) -> Tensor:
    """Probabilities of a model that is right where it says so."""
    return torch.eye(2)[torch.where(torch.as_tensor(right), labels, 1 - labels)]


def way(gain: float, low: float, high: float) -> Way:
    return Way(80 + gain, None, gain, [low, high])


SOURCE = Way(80.0, None, 0.0, None)


@pytest.mark.parametrize(
    ("guarded", "advice"),
    [
        (way(5, -0.9, 11), "adapt"),
        (way(5, -1.1, 11), "not settled"),
        (way(-0.1, -0.9, 1.1), "not settled"),  # safe, but no gain
        (way(-0.1, -0.9, 0.9), "do not adapt"),
        (way(-5, -9, -1), "do not adapt"),
        (way(-5, -12, 2), "not settled"),
    ],
)
def test_advice_by_the_interval(guarded: Way, advice: str) -> None:
    assert advised(guarded, "source", SOURCE, [0.0, 0.0])[0] == advice


def test_fixed_statistics_that_are_better_are_named() -> None:
    guarded = way(5, 1, 9)
    assert advised(guarded, "batch", way(12, 4, 20), [0.5, 12.0])[:2] == ("do not adapt", "batch")
    assert advised(guarded, "batch", way(6, 1, 11), [-4.0, 6.0])[:2] == ("adapt", "guarded")
    assert advised(guarded, "batch", way(5.5, 4, 7), [0.1, 0.9])[:2] == ("adapt", "guarded")
    unsettled = way(2, -3, 7)
    assert advised(unsettled, "batch", way(5, 1, 9), [-4.0, 6.0])[1] == "batch"
    assert advised(unsettled, "batch", way(5, -1, 9), [-4.0, 6.0])[1] == "source"


def test_labels_that_are_still_needed_shrink_the_interval_enough() -> None:
    """If the gain stays what it is, with so many the advice is settled, and with 30 % fewer not."""
    for gain, half, labels in ((4.0, 10.0, 50), (-3.0, 10.0, 80), (0.2, 5.0, 300)):
        more = more_labels(way(gain, gain - half, gain + half), labels)
        for share, settled in ((1.0, True), (0.7, False)):
            width = half * ((labels / (labels + share * more * 1.06)) ** 0.5)
            found = advised(way(gain, gain - width, gain + width), "source", SOURCE, [0.0, 0.0])
            assert (found[0] != "not settled") == settled, (gain, share)


def test_a_few_images_that_differ_settle_nothing() -> None:
    labels = torch.arange(16) % 2
    source, better = torch.ones(16, dtype=torch.bool), torch.ones(16, dtype=torch.bool)
    source[:2] = False
    pair = [answers(right, labels).argmax(1) for right in (better, source)]
    low, high = paired(*pair, labels, np.arange(16), 2, 2000)
    assert low < -MARGIN < 100 * 2 / 16 < high
    same = paired(pair[0], pair[0], labels, np.arange(16), 2, 2000)
    assert same[0] < -10
    assert same[1] > 10  # of 8 images a class, 1 in 10 of the others may well differ
    # As with one image of each patient, so with ten.
    ten = [values.repeat_interleave(10) for values in (*pair, labels)]
    assert paired(*ten, np.repeat(np.arange(16), 10), 2, 2000) == [low, high]


def test_images_of_a_patient_count_as_one() -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(2, size=40)).repeat_interleave(5)
    right = torch.from_numpy(rng.random(40) < 0.7).repeat_interleave(5)
    said = {"source": answers(right, labels), "guarded": answers(~right, labels)}
    alone = compared(said, labels, np.arange(200), 2)["guarded"]
    patients = compared(said, labels, np.repeat(np.arange(40), 5), 2)["guarded"]
    assert alone.gain == patients.gain < 0
    assert alone.gain_interval is not None
    assert patients.gain_interval is not None
    assert np.ptp(patients.gain_interval) > 1.5 * np.ptp(alone.gain_interval)


def test_a_clear_gain_is_told_and_harm_is_not_accepted() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for trial in range(40):
        labels = torch.from_numpy(rng.integers(2, size=100))
        draw = torch.from_numpy(rng.random(100))
        better, worse = draw < 0.9, draw < 0.6
        rows = np.arange(100)
        if trial < 5:
            said = {"source": answers(worse, labels), "guarded": answers(better, labels)}
            assert accepted(said, labels, rows, rows, CLASSES).deploy == "guarded"
        other = torch.from_numpy(rng.random(100)) < 0.85
        said = {"source": answers(draw < 0.9, labels), "guarded": answers(other, labels)}
        wrong += accepted(said, labels, rows, rows, CLASSES).advice == "adapt"
    assert wrong <= 2


def test_samples_that_say_nothing_are_refused() -> None:
    labels = torch.full((40,), -1)
    labels[:15] = torch.arange(15) % 2
    with pytest.raises(InputError, match="the stream has 15: label 100 to 500"):
        check_sample(labels, np.arange(40))
    with pytest.raises(InputError, match="the stream has 8: label"):  # each came twice
        check_sample(torch.arange(16) % 2, np.repeat(np.arange(8), 2))
    with pytest.raises(InputError, match="one class"):
        check_sample(torch.zeros(40, dtype=torch.long), np.arange(40))


def test_notes_on_large_samples_and_classes_without_labels() -> None:
    labels = torch.arange(600) % 2
    said = answers(torch.ones(600, dtype=torch.bool), labels)
    said = torch.cat([said, torch.zeros(600, 1)], 1)
    rows = np.arange(600)
    found = accepted({"source": said, "guarded": said}, labels, rows, rows, (*CLASSES, "mixed"))
    assert "mixed" in found.notes[0]
    assert "500 is enough" in found.notes[1]
    assert found.labels == found.groups == 600


def words(source: Path, folder: Path, *more: str) -> list[str]:
    return ["accept", f"source={source}", f"output={folder}", *QUICK, *more]


def labels_file(path: Path, source: Path, count: int) -> Path:
    """A file with labels of some images of the target."""
    config = configure([f"source={source}"])
    images = Assembly.of(config).images
    picked = np.random.default_rng(0).permutation(len(images))[:count]
    rows = [f"{images.ids[row]},{images.class_names[images.labels[row]]}" for row in picked]
    path.write_text("\n".join(["id,label", *rows]))
    return path


def test_the_command_says_by_64_labels_which_to_deploy(
    source: Path, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    folder, file = tmp_path / "accept", labels_file(tmp_path / "labels.csv", source, 64)
    status = adapt.main(words(source, folder, f"labels={file}"))
    found = json.loads((folder / "acceptance.json").read_text())
    assert status == EXIT[found["advice"]]
    assert (found["labels"], found["groups"]) == (64, 64)
    assert list(found["ways"]) == ["source", "batch", "corrected", "unguarded", "guarded"]
    assert (found["more"] is None) == (found["advice"] != "not settled")
    out = capsys.readouterr().out
    assert found["advice"] in out
    assert "guarded: the method adapts" in caplog.text
    assert "guarded: the method adapts" not in out  # without progress, the result alone
    shown = (folder / "acceptance.html").read_text()
    assert "gain over the source" in shown
    assert "<svg" in shown
    # What is called guarded is what adapt.py serves.
    run = tmp_path / "run"
    adapt.main([f"source={source}", f"output={run}", *QUICK])
    said = {row["id"]: row["prediction"] for row in read_rows(run / "predictions.csv")}
    labels = list(read_rows(file))
    right = [
        np.mean([said[row["id"]] == name for row in labels if row["label"] == name])
        for name in {row["label"] for row in labels}
    ]
    assert found["ways"]["guarded"]["accuracy"] == pytest.approx(100 * np.mean(right))


def test_what_a_site_knows_of_its_classes_holds_for_fixed_statistics_as_well(
    source: Path, tmp_path: Path
) -> None:
    file = labels_file(tmp_path / "labels.csv", source, 64)
    found = []
    for number, more in enumerate(([], ["guard.prevalence.granular=[.97,1]"])):
        folder = tmp_path / str(number)
        adapt.main(words(source, folder, f"labels={file}", *more))
        told = json.loads((folder / "acceptance.json").read_text())["ways"]
        found.append({name: told[name]["accuracy"] for name in ("source", "batch", "corrected")})
    plain, knowing = found
    assert (plain["source"], plain["batch"]) == (knowing["source"], knowing["batch"])
    assert plain["corrected"] != knowing["corrected"]


def test_patients_are_scored_as_one_and_a_site_may_use_its_own_words(tmp_path: Path) -> None:
    table, trained = Path(clinic(tmp_path, 160)), tmp_path / "source"
    quick = ["epochs=1", "batch_size=8", "calibrate=off", f"output={trained}"]
    assert train.main(["data=table", f"data.path={table}", *QUICK, *quick]) == 0
    there = [row for row in read_rows(table) if row["split"] == "test"]
    seen = [f"{row['path']},{'sick' if row['label'] == 'ill' else 'well'}" for row in there]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["id,label", *seen]))
    table.write_text(table.read_text().replace(",ill,", ",sick,"))
    more = ["method=tent", "stream.batch_size=8", "data.aggregate=group", f"labels={file}"]
    status = adapt.main(
        words(trained, tmp_path / "out", *more, "data.classes={sick: ill, well: well}")
    )
    found = json.loads((tmp_path / "out" / "acceptance.json").read_text())
    assert status == EXIT[found["advice"]]
    assert (found["unit"], found["labels"]) == ("group", len({row["group"] for row in there}))


def test_what_cannot_be_accepted_is_refused_before_anything_runs(
    source: Path, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    few = labels_file(tmp_path / "few.csv", source, 15)
    other = tmp_path / "other.csv"
    other.write_text("id,label\nnobody,round\n")
    for given, told in (
        ([f"labels={few}"], "the stream has 15: label 100 to 500 images of the stream"),
        ([f"labels={other}"], "none of the 1 ids"),
        ([f"labels={tmp_path / 'none.csv'}"], "cannot be read"),
        (["guard=off"], "guard=on"),
        (["method=source"], "method=dsbr"),
    ):
        assert adapt.main(words(source, tmp_path / "out", *given)) == 2
        assert told in capsys.readouterr().err
        assert "adapts to the stream" not in caplog.text
        assert not (tmp_path / "out").exists()
    assert adapt.main(["accept", "--help"]) == 0
    assert "labels=FILE.csv" in capsys.readouterr().out
