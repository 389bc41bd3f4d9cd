"""Alerts: they arrive with their evidence; a failing, slow or secret one neither stops nor delays a
stream, nor is shown.
"""

import json
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
from omegaconf import OmegaConf

from holdfast.adapting.config import configure
from holdfast.callbacks.alerts import AlertConfig, Alerts, alarm_of, post
from holdfast.callbacks.replay import TraceReplayConfig
from holdfast.programs import adapt
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.usage import explain
from tests.callbacks.guard.test_guard import Harm, batches
from tests.callbacks.guard.test_guard import run as guarded
from tests.wandb_file import read_wandb

READ = (
    "import sys, pathlib; pathlib.Path(sys.argv[1]).open('ab').write(sys.stdin.buffer.read() + "
    "b'\\n')"
)


class _Trainer:
    is_global_zero = True
    loggers: tuple[Any, ...] = ()


def send(alerts: Alerts, verdict: str = "ALARM") -> float:
    """Hands the callback an alarm; returns the seconds it took."""
    event = {
        "batch": 3,
        "event": "correction",
        "reason": "separation",
        "message": "Restored.",
        "correction": "reset",
    }
    started = monotonic()
    alerts.on_train_batch_end(_Trainer(), None, {"verdict": verdict, "events": [event]}, None, 3)  # type: ignore[arg-type]
    return monotonic() - started


def finish(alerts: Alerts) -> None:
    alerts.on_train_end(_Trainer(), None)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """An address on this machine, and the (headers, body) of what is posted to it; /busy answers
    503, /away redirects.
    """
    seen: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response({"/busy": 503, "/away": 302}.get(self.path, 204))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args: Any) -> None: ...

    http = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{http.server_port}", seen
    http.shutdown()
    http.server_close()


def test_a_guarded_stream_calls_the_command_with_each_alarm(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    alerts = Alerts(
        AlertConfig(command=[sys.executable, "-Sc", READ, str(file)], timeout=20), "ward 3"
    )
    _, guard, outputs = guarded(batches(30), Harm(12), lr=1e-5)
    for index, output in enumerate(outputs):
        alerts.on_train_batch_end(_Trainer(), None, output, None, index)  # type: ignore[arg-type]
        finish(alerts)
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["batch"] for event in told if event["state"] == "ALARM"] == guard.alarmed
    assert {event["run"] for event in told} == {"ward 3"}
    first = told[0]
    assert first["correction"] == "slow"
    assert first["evidence"]["R"] < 1
    assert "half-way back to the source's" in first["message"]
    assert sum(event["state"] == "FROZEN" for event in told) == int(guard.memory.mode == "frozen")


def test_an_answer_that_drips_in_takes_no_longer_than_the_limit() -> None:
    def drip() -> None:
        client, _ = listener.accept()
        with client, suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(20):
                sleep(0.2)
                client.sendall(b"X: y\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=drip, daemon=True).start()
        started = monotonic()
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.5, b"{}")
        assert monotonic() - started < 2


def test_nothing_is_told_of_calm_batches() -> None:
    assert alarm_of("OK", []) is None
    assert alarm_of("WATCH", [{"event": "verdict", "state": "WATCH"}, {"event": "choice"}]) is None


def test_an_address_gets_json_and_credentials_from_the_environment(
    server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = server
    monkeypatch.setenv("HOOK", f"http://nurse:p%40ss@{address}/in?token=secret")
    config = AlertConfig(url="env:HOOK")
    alerts = Alerts(config, "run")
    send(alerts)
    finish(alerts)
    [(headers, body)] = seen
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic bnVyc2U6cEBzcw=="
    assert json.loads(body)["correction"] == "reset"
    assert "secret" not in OmegaConf.to_yaml(OmegaConf.structured(config))


def test_what_fails_is_a_warning_without_the_secret(
    server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, seen = server
    for path, reason in (("busy", "status 503"), ("away", "status 302")):
        monkeypatch.setenv("HOOK", f"http://{address}/{path}")
        alerts = Alerts(
            AlertConfig(
                url="env:HOOK", command=[sys.executable, "-Sc", "raise SystemExit(7)  # secret"]
            ),
            "run",
        )
        with caplog.at_level(logging.WARNING):
            send(alerts)
            finish(alerts)
        assert f"guard.alert.url failed ({reason})" in caplog.text
    assert len(seen) == 2  # the redirect was not followed
    assert "guard.alert.command failed (exit status 7)" in caplog.text
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/secret")  # nobody listens
    alerts = Alerts(AlertConfig(url="env:HOOK"), "run")
    send(alerts)
    finish(alerts)
    assert "guard.alert.url failed ([Errno 111] Connection refused)" in caplog.text
    assert "secret" not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_a_hanging_command_neither_delays_nor_piles_up(caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts(AlertConfig(command="sleep 60", timeout=0.5), "run")
    assert sum(send(alerts) for _ in range(10)) < 0.4
    assert "dropped" in caplog.text
    started = monotonic()
    finish(alerts)
    assert monotonic() - started < 2
    assert "guard.alert.command failed (TimeoutExpired)" in caplog.text


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet fetched by its parent does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("waits", ["", "; sleep 60"])
def test_what_a_command_starts_ends_with_it(
    tmp_path: Path, waits: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child{waits}"
    alerts = Alerts(AlertConfig(command=["sh", "-c", script], timeout=0.5), "run")
    started = monotonic()
    send(alerts)
    finish(alerts)
    assert monotonic() - started < 3
    child = int((tmp_path / "child").read_text())
    while alive(child) and monotonic() - started < 10:  # it dies in its own time
        sleep(0.05)
    assert not alive(child)
    assert ("TimeoutExpired" in caplog.text) == bool(waits)


def test_a_child_in_the_background_may_finish_in_time(tmp_path: Path) -> None:
    script = f"(sleep 0.3; echo sent > {tmp_path}/sent) &"
    alerts = Alerts(AlertConfig(command=["sh", "-c", script], timeout=10), "run")
    started = monotonic()
    send(alerts)
    finish(alerts)
    assert (tmp_path / "sent").read_text() == "sent\n"
    assert monotonic() - started < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "outside (0, 60]"),
        ({"url": "ftp://host/x"}, "must be an http or https address"),
        ({"url": "http://user:secret@host/"}, "env:NAME"),
        ({"url": "https://host/?token=secret"}, "env:NAME"),
        ({"url": "http://[::1"}, "must be an http or https address"),
        ({"command": "echo 'open"}, "must be a command line"),
        ({"command": [1, 2]}, "must be a command line"),
        ({"command": 5}, "must be a command line"),
    ],
)
def test_bad_settings_are_refused_without_the_secret(options: dict[str, Any], message: str) -> None:
    with pytest.raises(
        InputError, match=message.replace("(", r"\(").replace("[", r"\[")
    ) as refused:
        AlertConfig(**options)
    assert "secret" not in str(refused.value)


def test_what_is_not_there_is_refused_before_the_stream_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="no program that can be run"):
        Alerts(AlertConfig(command="no-such-program-here"), "run")
    monkeypatch.delenv("ABSENT_HOOK", raising=False)
    with pytest.raises(InputError, match="no variable ABSENT_HOOK"):
        Alerts(AlertConfig(url="env:ABSENT_HOOK"), "run")
    monkeypatch.setenv("ABSENT_HOOK", "secret")
    with pytest.raises(InputError, match="must be an http") as refused:
        Alerts(AlertConfig(url="env:ABSENT_HOOK"), "run")
    assert "=secret" not in str(refused.value)


def test_options_of_alerts_merge_and_are_described(source: Path) -> None:
    words = [
        f"source={source}",
        "guard.alert.timeout=3",
        "guard.alert.command=[echo, hi]",
        "guard.alert.url=env:HOOK",
    ]
    alert = configure(words).guard.options.alert
    assert alert == AlertConfig(command=["echo", "hi"], url="env:HOOK", timeout=3)
    with pytest.raises(InputError, match="timeout=99"):
        configure([f"source={source}", "guard.alert.timeout=99"])
    with pytest.raises(InputError, match=r"unknown option .*timeot"):
        configure([f"source={source}", "guard.alert.timeot=9"])
    assert "guard.alert.url=null" in explain(adapt.AdaptConfig, adapt.GROUPS, "", "guard")
    assert (
        entry.configured(TraceReplayConfig, {}, ["guard.alert.timeout=3"]).guard.alert.timeout == 3
    )


def test_wandb_is_told_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.tta.tracking import WandbConfig, create_loggers
    from holdfast.tta.tracking import finish as close

    monkeypatch.delenv("WANDB_MODE", raising=False)
    loggers = create_loggers(WandbConfig(), tmp_path, name="run", job_type="adapt", settings={})
    trainer = _Trainer()
    trainer.loggers = tuple(loggers)
    event = {
        "batch": 3,
        "event": "correction",
        "reason": "separation",
        "message": "Restored.",
        "correction": "reset",
    }
    outputs = {"verdict": "ALARM", "events": [event]}
    Alerts(AlertConfig(), "run").on_train_batch_end(trainer, None, outputs, None, 3)  # type: ignore[arg-type]
    close(loggers)
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert read_wandb(file)["alerts"] == [("ALARM: run", "Batch 3. Restored.")]
