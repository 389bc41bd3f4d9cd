"""adapt.py over streams: what it saves is replayed exactly, a window shows each image once,
refusals are one sentence.
"""

from pathlib import Path

import pytest

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.programs import adapt
from tests.conftest import QUICK
from tests.test_programs import Capture, refusal, rows, run_adapt

TWO = "data.target=[scanner_b,scanner_c]"


def test_a_saved_stream_is_replayed_to_the_same_predictions(source: Path, tmp_path: Path) -> None:
    words = [TWO, "method=tent", "shift=[brightness,noise]", "shift.severity=1"]
    mixed = ["stream=mixed", "stream.shifts=[blur,contrast]", "stream.batch_size=100"]
    metrics = run_adapt(source, tmp_path / "first", *words, *mixed)
    assert set(metrics["domains"]) == {
        f"scanner_{s} brightness1+noise1+{kind}3" for s in "bc" for kind in ("blur", "contrast")
    }
    table = tmp_path / "first" / "stream.csv"
    items = rows(table)
    assert [item["position"] for item in items] == [str(i) for i in range(500)]
    assert {(item["shift"], item["severity"], item["seed"]) for item in items} == {
        (f"brightness+noise+{kind}", "1+1+3", "0") for kind in ("blur", "contrast")
    }
    replay = ["stream=replay", f"stream.path={table}", "stream.batch_size=100"]
    run_adapt(source, tmp_path / "second", TWO, "method=tent", *replay)
    # The chain begins with the stream that was asked for.
    first, second = (
        [line.rpartition(",")[0] for line in (tmp_path / run / "predictions.csv").open()]
        for run in ("first", "second")
    )
    assert first == second
    assert (tmp_path / "second" / "stream.csv").read_text() == table.read_text()


@pytest.mark.parametrize("guard", ["on", "off"])
def test_behind_a_window_every_image_leaves_once(source: Path, tmp_path: Path, guard: str) -> None:
    words = [
        "data.target_images=60",
        "stream=window",
        "method=tent",
        "method.normalization=batch",
        f"guard={guard}",
    ]
    run_adapt(source, tmp_path, *words)
    predictions = rows(tmp_path / "predictions.csv")
    assert [row["id"] for row in predictions] == [
        row["id"] for row in rows(tmp_path / "stream.csv")
    ]
    assert len(rows(tmp_path / "trace.csv")) == 60
    if guard == "on":
        assert {row["served_by"] for row in predictions[1:15]} <= {
            "control",
            "source",
            "mixture",
        }  # until the window is full


def test_bad_streams_and_shifts_get_one_sentence(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    ours = f"source={source}"
    for words, message in (
        (("stream=continual",), "needs several domains in the target"),
        (("stream=gradual",), "ramps the severity of a shift"),
        (("stream=prevalence", "stream.prevalence=[.5,.5]"), "2 shares for 4 classes"),
        (("stream=replay", "stream.path=absent.csv"), "cannot be read"),
        (("stream=time",), "no column 'time'"),
        (("stream=block",), "did you mean blocks"),
        (("shift=blur", "shift.severity=9"), "outside 1..5"),
        (("shift=[blur,nose]",), "did you mean noise"),
        (("shift=[mr]",), "mr is a family of shifts"),
        (("shift=blurr",), "did you mean blur"),
        (("shift=compose",), "needs shifts"),
    ):
        assert message in refusal(adapt, capsys, ours, *words, f"output={tmp_path / 'out'}"), words


def test_the_runs_name_tells_its_shifts(source: Path) -> None:
    words = [f"source={source}", *QUICK, "shift=[blur,noise]", "shift.severity=2"]
    assert Assembly.of(configure(words)).name.endswith("-iid-blur2+noise2-seed0")
