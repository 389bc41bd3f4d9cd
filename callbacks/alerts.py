"""Tell a person when the guard raises an alarm: by W&B, by a command, by a web hook; never at the
stream's expense.
"""

import base64
import json
import logging
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit

from lightning import LightningModule, Trainer

from holdfast.callbacks.settings import AlertConfig as AlertConfig
from holdfast.tta.errors import InputError
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs
from holdfast.tta.tracking import alert

_LOG = logging.getLogger(__name__)
#: Alerts that may be on their way at once; where more pile up, nobody is listening.
_MOST = 8
#: Seconds between looks at what a command left in the background.
_PAUSE = 0.05


class Alerts(StreamCallback):
    """Sends what the guard found to whoever asked, as soon as it is ALARM or FROZEN; place it after
    the guard.

    Commands and addresses are served by short-lived threads with a time limit, so the stream does
    not wait; what fails is logged as a warning, without words of the command or address, which may
    be secret.

    Args:
        config: who is told.
        run: name of the run, which the event carries.

    Raises:
        InputError: the command is not there, or the environment does not have the address that is
            left to it.
    """

    def __init__(self, config: AlertConfig, run: str) -> None:
        self.config, self.run = config, run
        self._channels: dict[str, Callable[[bytes], None]] = {}
        if config.words:
            if shutil.which(config.words[0]) is None:
                raise InputError(
                    f"guard.alert.command: {config.words[0]} is no program that can be run"
                )
            self._channels["command"] = partial(call, config.words, config.timeout)
        address = config.address()
        if address is not None:
            self._channels["url"] = partial(post, address, config.timeout)
        self._threads: list[Thread] = []

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Send the batch's alarm, if there is one."""
        event = alarm_of(outputs.get("verdict", ""), outputs.get("events", ()))
        if event is None or not trainer.is_global_zero:
            return
        if self.config.wandb:
            try:
                alert(
                    trainer.loggers,
                    f"{event['state']}: {self.run}",
                    f"Batch {event['batch']}. {event['message']}",
                )
            except Exception as error:  # whatever W&B raises, the stream goes on
                _LOG.warning("the W&B alert failed (%s)", type(error).__name__)
        payload = json.dumps({"run": self.run, **event}).encode()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for name, send in self._channels.items():
            if len(self._threads) >= _MOST:
                _LOG.warning("an alert was dropped: the %d before it are still on their way", _MOST)
                return
            thread = Thread(target=attempt, args=(name, send, payload), daemon=True)
            thread.start()
            self._threads.append(thread)

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let alerts of the last batches arrive, within the time limit."""
        self._wait()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The same."""
        self._wait()

    def _wait(self) -> None:
        deadline = monotonic() + self.config.timeout + 1
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))


def alarm_of(verdict: str, events: Any) -> dict[str, Any] | None:
    """The one event that tells of a batch's alarm, with evidence and correction; None where there
    is none to tell.

    Args:
        verdict: state of the batch.
        events: of the batch.
    """
    told = [
        event
        for event in events
        if event["event"] == "correction" or event.get("state") in ("ALARM", "FROZEN")
    ]
    if not told:
        return None
    merged = {key: value for event in told for key, value in event.items()}
    return {
        **merged,
        "event": "alarm",
        "state": verdict,
        "message": " ".join(event["message"] for event in told),
    }


def attempt(name: str, send: Callable[[bytes], None], payload: bytes) -> None:
    """Send; what fails is a line in the log."""
    try:
        send(payload)
    except Exception as error:  # an alert must not stop the stream, whatever is wrong with it
        if isinstance(error, HTTPError):
            reason = f"status {error.code}"
        elif isinstance(error, URLError):
            reason = str(error.reason)
        elif isinstance(error, subprocess.CalledProcessError):
            reason = f"exit status {error.returncode}"
        else:
            reason = type(error).__name__
        _LOG.warning("guard.alert.%s failed (%s)", name, reason)


def call(words: list[str], timeout: float, payload: bytes) -> None:
    """Run a command, without a shell, with the event on its standard input.

    What it starts in the background has the rest of the time, and is ended with it: a run leaves no
    process behind.

    Raises:
        OSError: it cannot be run.
        subprocess.SubprocessError: it failed, or took longer than ``timeout`` seconds and was
        ended.
    """
    quiet, deadline = subprocess.DEVNULL, monotonic() + timeout
    command = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        command.communicate(payload, timeout)
        while _lives(command.pid) and monotonic() < deadline:
            sleep(_PAUSE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    if command.returncode:
        raise subprocess.CalledProcessError(command.returncode, words)


def _lives(group: int) -> bool:
    """Whether a process of the group is left; the number is nobody else's before the last one is
    gone.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def post(address: str, timeout: float, payload: bytes) -> None:
    """Post JSON to an address, with its user and password as basic authentication; redirects are
    not followed.

    Raises:
        OSError: no answer within ``timeout`` seconds, or one that is not 2xx.
    """
    parts = urlsplit(address)
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(urlunsplit(parts), payload, headers, method="POST")
    answers: SimpleQueue[Exception | None] = SimpleQueue()

    def ask() -> None:
        try:
            urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout).close()
            answers.put(None)
        except Exception as error:  # raised below
            answers.put(error)

    # A thread of its own, since a socket's time limit starts anew with every byte that drips in.
    Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=timeout)
    except Empty:
        error = TimeoutError()
    if error is not None:
        raise error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET elsewhere, with our credentials."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
