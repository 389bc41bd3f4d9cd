"""An audit holds a run's records against each other, and names the first line that does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.callbacks import audit
from holdfast.callbacks.chained import Misfit, lines_of
from holdfast.tta.csvfile import RowFile, read_rows
from tests.conftest import MASKS
from tests.test_programs import Capture, run_adapt


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose guard knows some labels."""
    out = tmp_path_factory.mktemp("audit") / "out"
    labels = out.parent / "labels.csv"
    labels.write_text("id,label\ntarget-scanner_b-3,round\ntarget-scanner_b-4,lobulated\n")
    words = ["method=tent", "data.target_images=150", "stream.batch_size=32"]
    run_adapt(source, out, *words, f"labels={labels}")
    return out


def found(capsys: Capture, folder: Path) -> tuple[int, str]:
    """Exit status, and what is said."""
    status = audit.main([str(folder)])
    told = capsys.readouterr()
    return status, told.out + told.err


def edited(name: str, line: int, old: str, new: str) -> Callable[[Path], None]:
    """Something else in a line, from 1."""

    def edit(folder: Path) -> None:
        lines = (folder / name).read_bytes().split(b"\n")
        assert old.encode() in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old.encode(), new.encode(), 1)
        (folder / name).write_bytes(b"\n".join(lines))

    return edit


def dropped(name: str, line: int) -> Callable[[Path], None]:
    """Without a line, from 1."""

    def drop(folder: Path) -> None:
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        del lines[line - 1]
        (folder / name).write_bytes(b"".join(lines))

    return drop


def told_of(key: str, value: object) -> Callable[[Path], None]:
    """Another value in audit.json."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "audit.json").read_text())
        (folder / "audit.json").write_text(json.dumps({**content, key: value}))

    return change


def test_a_run_fits_together(done: Path, capsys: Capture) -> None:
    status, said = found(capsys, done)
    assert status == 0, said
    assert said.startswith(f"{done}: 150 predictions, 5 batches and ")
    served = list(read_rows(done / "predictions.csv"))
    trace = list(read_rows(done / "trace.csv"))
    assert [row["batch"] for row in served] == [str(place // 32) for place in range(150)]
    assert {row["mode"] for row in served} == {row["mode"] for row in trace}
    assert all(len(row["weights"]) == 16 for row in served)
    # What the guard knew of labels before each batch, and which came in when.
    known = [int(row["labels"]) for row in served]
    assert known == sorted(known)
    assert known[0] == 0
    events = [json.loads(line) for line in (done / "events.jsonl").read_text().splitlines()]
    came = {name for event in events for name in event.get("labels", {})}
    assert came == {"target-scanner_b-3", "target-scanner_b-4"} & {row["id"] for row in served}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited("predictions.csv", 17, "target", "garget"), "predictions.csv, line 18, does not"),
        (dropped("predictions.csv", 40), "predictions.csv, line 40, does not follow"),
        (edited("predictions.csv", 151, "target", "garget"), "not the image that was due"),
        (edited("predictions.csv", 1, "prediction", "prognosis"), "line 2, does not follow"),
        (dropped("predictions.csv", 151), "ends without"),
        (edited("trace.csv", 3, "1,", "7,"), "trace.csv, line 4, does not follow"),
        (dropped("events.jsonl", 1), "events.jsonl, line 1, does not follow"),
        (told_of("weights", "0" * 16), "adapted.ckpt does not hold the weights"),
        (told_of("source", "0" * 64), "line 2, does not follow"),
        (told_of("files", None), "audit.json is not what a run leaves"),
        (told_of("files", {"trace.csv": 5}), "audit.json is not what a run leaves"),
        (
            told_of("files", {"other.csv": {"lines": 3, "link": ""}}),
            "other.csv has 0 lines, and had 3 at the end",
        ),
    ],
)
def test_the_first_line_that_does_not_fit_is_named(
    done: Path, tmp_path: Path, capsys: Capture, change: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done, folder)
    change(folder)
    status, said = found(capsys, folder)
    assert status == 1
    assert told in said


def test_a_verdict_that_does_not_follow_is_found_though_the_chain_is_mended(
    done: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done, folder)
    facts = json.loads((folder / "audit.json").read_text())
    for name in ("trace.csv", "predictions.csv"):
        rows = list(read_rows(folder / name))
        file = RowFile(folder / name, audit.seal_of(facts))
        file.write_header([column for column in rows[0] if column != "chain"])
        for row in rows:
            row["verdict"] = "FROZEN" if row["batch"] == "2" else row["verdict"]
            file.write([[cell for column, cell in row.items() if column != "chain"]])
        facts["files"][name]["link"] = file.link
    (folder / "audit.json").write_text(json.dumps(facts))
    status, said = found(capsys, folder)
    assert status == 1
    assert "trace.csv, line 4, says FROZEN" in said


def test_without_its_source_the_rest_is_looked_at(
    done: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done, folder)
    config = folder / "config.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("source:")]
    config.write_text("\n".join([*lines, f"source: {tmp_path / 'gone'}", ""]))
    status, said = found(capsys, folder)
    assert status == 0
    assert "neither source nor verdicts were looked at" in said


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: Capture) -> None:
    status, said = found(capsys, tmp_path)
    assert status == 2
    assert "holds neither audit.json nor stream.ckpt" in said
    assert audit.main([]) == 2


def test_cells_with_line_breaks_are_one_line(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "t.csv", "seal")
    file.write_header(["id", "note"])
    file.write([["a", 'two\nlines, "quoted"'], ["b", ""]])
    file.close()
    lines = list(lines_of(file.path, "seal"))
    assert [(line.number, line.cells) for line in lines] == [
        (2, {"id": "a", "note": 'two\nlines, "quoted"'}),
        (4, {"id": "b", "note": ""}),
    ]
    assert lines[-1].link == file.link
    file.path.write_bytes(file.path.read_bytes()[:-1])
    with pytest.raises(Misfit, match="line 4, is torn"):
        list(lines_of(file.path, "seal"))


@pytest.fixture(scope="module")
def masked(mask_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on masks, under the guard; each case comes twice."""
    out = tmp_path_factory.mktemp("audit") / "masks"
    words = ["method=tent", "stream.batch_size=8", "data.target_images=12", "stream.passes=2"]
    few = [word for word in MASKS if "target_images" not in word]
    run_adapt(mask_source, out, *few, *words)
    return out


def test_a_run_on_masks_fits_together(masked: Path, capsys: Capture) -> None:
    status, said = found(capsys, masked)
    assert status == 0, said
    assert said.startswith(f"{masked}: 24 predictions, 3 batches and ")
    rows = list(read_rows(masked / "cases.csv"))
    assert [row["batch"] for row in rows] == [str(place // 8) for place in range(24)]
    assert all(len(row["weights"]) == 16 for row in rows)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited("cases.csv", 17, "target", "garget"), "cases.csv, line 18, does not follow"),
        (dropped("cases.csv", 25), "ends without"),
        (lambda folder: next((folder / "masks").iterdir()).unlink(), "is not of the mask in"),
        (
            lambda folder: shutil.copy(*sorted((folder / "masks").iterdir())[:2]),
            "is not of the mask in",
        ),
    ],
)
def test_what_was_changed_of_masks_is_named(
    masked: Path, tmp_path: Path, capsys: Capture, change: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(masked, folder)
    change(folder)
    status, said = found(capsys, folder)
    assert status == 1
    assert told in said
