"""The folder of a run: never two runs' results in one, never two writers, never outside runs/, and
full disks in a sentence.
"""

import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.adapting.outputs import PROGRAM as ADAPT
from holdfast.callbacks.acceptance import PROGRAM as ACCEPT
from holdfast.tta.errors import InputError, WriteError
from holdfast.tta.folder import Program, carry_out, check_folder, claimed, safe_name, writing

PROGRAM = Program(
    "python prog.py", "runs/prog", results=("result.csv",), others=("config.yaml", "sub/*.x")
)


@dataclass
class Config:
    output: str | None = None
    name: str | None = None
    overwrite: bool = False
    seed: int = 3


def test_a_folder_that_holds_results_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "result.csv").write_text("old")
    config = Config(output=str(tmp_path))
    for enter in (lambda: check_folder(PROGRAM, config), claimed(PROGRAM, config, "x").__enter__):
        with pytest.raises(InputError, match=r"holds the results .*\(result.csv\).*overwrite=true"):
            enter()
    assert [path.name for path in tmp_path.iterdir()] == ["result.csv"]


def test_overwriting_removes_own_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("result.csv", "config.yaml", "sub/a.x", "sub/a.y", "notes.txt"):
        (tmp_path / name).write_text("old")
    with claimed(PROGRAM, Config(output=str(tmp_path), overwrite=True), "x"):
        left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
        assert left == {".lock", "config.yaml", "sub/a.y", "notes.txt"}
        saved = (tmp_path / "config.yaml").read_text()
    assert saved.startswith(f"# python prog.py {tmp_path}/config.yaml\n")
    assert "output: null" in saved
    assert "overwrite: false" in saved
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_programs_folder_is_refused_and_left_as_it_is(
    tmp_path: Path, overwrite: bool
) -> None:
    of_source = f"# holdfast train {tmp_path}/config.yaml\nseed: 3\n"
    (tmp_path / "config.yaml").write_text(of_source)
    (tmp_path / "result.csv").write_text("theirs")
    config = Config(output=str(tmp_path), overwrite=overwrite)
    for enter in (lambda: check_folder(PROGRAM, config), claimed(PROGRAM, config, "x").__enter__):
        with pytest.raises(InputError, match=r"another program \(holdfast train .*choose another"):
            enter()
    assert (tmp_path / "config.yaml").read_text() == of_source
    assert (tmp_path / "result.csv").read_text() == "theirs"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "result.csv"}


@pytest.mark.parametrize(("left", "now"), [("adapt accept", "adapt"), ("adapt", "adapt accept")])
def test_accept_is_another_program_than_adapt(tmp_path: Path, left: str, now: str) -> None:
    (tmp_path / "config.yaml").write_text(f"# holdfast {left} {tmp_path}/config.yaml\nseed: 3\n")
    for name, refused in ((now, True), (left, False)):
        program = {"adapt": ADAPT, "adapt accept": ACCEPT}[name]
        config = Config(output=str(tmp_path), overwrite=True)
        expected = pytest.raises(InputError, match="another program") if refused else nullcontext()
        with expected:
            check_folder(program, config)


def test_a_run_without_a_name_gets_a_fresh_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="holdfast")
    for expected in ("tent", "tent-2", "tent-3"):
        with claimed(PROGRAM, Config(), "tent") as folder:
            assert folder == Path("runs/prog") / expected
            (folder / "result.csv").write_text("new")
    assert "so this run goes to tent-3" in caplog.text
    for ending in ("", "-2"):  # a long name has room for its number
        with claimed(PROGRAM, Config(), "x" * 300) as folder:
            assert folder.name == "x" * 200 + ending
            (folder / "result.csv").write_text("new")
    with (
        claimed(PROGRAM, Config(overwrite=True), "tent") as first,
        claimed(PROGRAM, Config(overwrite=True), "tent") as second,
    ):
        # The first one is in use, and nobody asked for the others to be replaced.
        assert (first.name, second.name) == ("tent", "tent-4")
    with pytest.raises(InputError, match="holds the results"):
        check_folder(PROGRAM, Config(name="tent-2"))


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "", " ", "a\\b", "a\0b", "a\nb", "x" * 201]
)
def test_names_lead_nowhere_else(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for config in (Config(name=name), Config(name=name, output="out")):
        with pytest.raises(InputError, match="no name of a folder"), claimed(PROGRAM, config, "x"):
            pass
    assert not list(tmp_path.iterdir())


def test_default_names_are_made_safe() -> None:
    assert safe_name("tent-on-../../etc-iid") == "tent-on-..-..-etc-iid"
    assert safe_name("../x") == "-x"
    assert safe_name("köln+b c\n") == "köln+b-c-"
    assert len(os.fsencode(safe_name("ä" * 300))) <= 200


def test_the_second_process_is_refused_and_a_dead_one_blocks_nobody(tmp_path: Path) -> None:
    config = Config(output=str(tmp_path))
    told, tell = os.pipe()
    holder = os.fork()
    if not holder:
        with claimed(PROGRAM, config, "x"):
            os.write(tell, b"held")
            time.sleep(60)
        os._exit(0)
    try:
        assert os.read(told, 4) == b"held"
        with (
            pytest.raises(InputError, match=f"in use by process {holder} on .*output=DIR"),
            claimed(PROGRAM, config, "x"),
        ):
            pass
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert (tmp_path / ".lock").is_file()  # left behind
    with claimed(PROGRAM, config, "x"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="file/below cannot be written"),
        claimed(PROGRAM, Config(output=str(tmp_path / "file" / "below")), "x"),
    ):
        pass


def test_half_a_file_is_removed_and_what_can_be_written_is(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    full, whole = tmp_path / "picture.png", tmp_path / "report.html"
    steps = [(full, lambda: fail(full)), (whole, lambda: whole.write_text("page"))]
    with pytest.raises(WriteError) as error:
        carry_out(steps, kept=["metrics.json"])
    assert str(error.value) == (
        f"{full} cannot be written, the disk is full; missing are picture.png, and whole "
        "metrics.json, "
        "report.html: make room, or choose another disk, output=DIR"
    )
    assert not full.exists()
    with pytest.raises(ZeroDivisionError), writing(full):
        _ = 1 / 0
    gone = tmp_path / "gone" / "x"
    with pytest.raises(WriteError, match="gone was removed while the run wrote"), writing(gone):
        gone.write_text("")
