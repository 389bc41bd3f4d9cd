"""A service in a process of its own, and requests to it."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.conftest import ROOT

#: Seconds that a service may take to start on a busy machine, and to answer.
_START, _ANSWER = 120, 60


class Answered(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running service."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port
        self.said: list[str] = []

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """One request, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answered(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def predict(self, images: Sequence[bytes], **fields: Any) -> Answered:
        """Send images as a form."""
        body, kind = form(images, **fields)
        return self.ask("POST", "/predict", body, {"Content-Type": kind})

    def kill(self) -> None:
        """As a power cut would end it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As a supervisor ends it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_ANSWER)


@contextmanager
def serving(*words: str, token: str | None = None) -> Iterator[Server]:
    """A service with these options, until the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("HOLDFAST_TOKEN", None)
    if token is not None:
        environment["HOLDFAST_TOKEN"] = token
    process = subprocess.Popen(
        [sys.executable, "serve.py", "serve.port=0", "device=cpu", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(_START, process.kill)
    watchdog.start()
    try:
        server = _started(process)
        watchdog.cancel()
        yield server
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()


def _started(process: "subprocess.Popen[str]") -> Server:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("serving at "):
            server = Server(process, int(line.rsplit(":", 1)[1]))
            server.said = said
            # Somebody must read on, or a full pipe holds the service up.
            threading.Thread(target=said.extend, args=(process.stdout,), daemon=True).start()
            return server
    raise AssertionError("".join(said))


def png(pixels: npt.NDArray[Any]) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def form(images: Sequence[bytes], **fields: Any) -> tuple[bytes, str]:
    """A multipart form, and its content type; a list makes a field of each."""
    mark = "x-holdfast-boundary"
    parts = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            parts.append(head.encode() + str(one).encode() + b"\r\n")
    for number, image in enumerate(images):
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="images"; '
            f'filename="{number}.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        parts.append(head.encode() + image + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def pictures(source: Path, count: int) -> list[bytes]:
    """Images of another domain than the source was trained on, as PNG files."""
    from holdfast.adapting.assembly import Assembly
    from holdfast.adapting.config import configure

    images = Assembly.of(configure([f"source={source}", f"data.target_images={count}"])).images
    scaled = images.batch(list(range(count)))["image"].numpy()
    return [png((one * 255).round().astype(np.uint8).transpose(1, 2, 0)) for one in scaled]
