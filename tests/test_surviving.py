"""A tracker that dies does not take the run with it."""

import errno
import io
import logging

import pytest

from holdfast.tta.surviving import Surviving


class Run:
    """A run whose service is gone after two calls."""

    def __init__(self) -> None:
        self.id, self.calls, self.summary = "a", 0, Summary(self)

    def log(self, values: dict[str, float]) -> int:
        self.calls += 1
        if self.calls > 2:
            raise ConnectionResetError("Connection lost")
        return self.calls


class Summary:
    def __init__(self, run: Run) -> None:
        self.run = run

    def update(self, values: dict[str, float]) -> None:
        self.run.log(values)


def test_one_warning_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    inner = Run()
    run = Surviving(inner)
    assert run.id == "a"
    assert run.log({"R": 1.0}) == 1
    run.summary.update({"R": 1.0})
    for _ in range(3):
        assert run.log({"R": 1.0}) is None
        run.summary.update({"R": 1.0})
    assert run.lost
    assert inner.calls == 3  # what is lost is not asked again
    assert caplog.text.count("W&B takes no more (Connection lost): the run goes on") == 1


def test_other_errors_are_nobodys_to_swallow() -> None:
    with pytest.raises(TypeError):
        Surviving(Run()).log()


def test_a_log_that_cannot_be_written_is_a_sign_and_no_noise(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    log = logging.getLogger("a tracker's own")
    log.addHandler(logging.StreamHandler(Full()))
    log.propagate = False
    run = Surviving(Run())
    run.heed(log)
    log.warning("one")
    log.warning("two")
    assert run.lost
    assert run.log({"R": 1.0}) is None
    assert caplog.text.count("W&B takes no more (No space left on device)") == 1
    assert "Logging error" not in capsys.readouterr().err
