"""Ten thousand requests that nobody in good faith sends: none ends the service, changes the model,
or takes memory for good.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.serving.client import Server, form, pictures, serving

pytestmark = pytest.mark.slow

#: Requests of bytes, beside those of schemathesis.
_REQUESTS = 10_000
#: MiB by which memory may grow from the first tenth of them on.
_GROWTH = 32


def memory(server: Server) -> float:
    """MiB that the service has in memory."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def changed(draw: random.Random, content: bytes) -> bytes:
    """Bytes with some of them changed, dropped, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(data) or 1)
        kind = draw.randrange(5)
        if kind == 0 and data:
            data[place % len(data)] = draw.randrange(256)
        elif kind == 1:
            del data[place : place + draw.randint(1, 64)]
        elif kind == 2:
            data[place:place] = data[place : place + 32]
        elif kind == 3:
            data[place:place] = draw.randbytes(draw.randint(1, 16))
        else:
            data = data[:place]
    return bytes(data)


def requests(draw: random.Random, image: bytes) -> Iterator[tuple[bytes, bool]]:
    """Requests as they go over the wire, malformed in the image, the form, or HTTP itself; and
    whether they are whole, so that an answer must come.
    """
    body, kind = form([image, image], ids=["a", "b"], metadata='{"group": "p"}')
    labels = b'{"labels": [{"id": "a", "label": "round"}]}'
    while True:
        path, content, header = draw.choice(
            [
                ("/predict", image, "application/octet-stream"),
                ("/predict", body, kind),
                ("/labels", labels, "application/json"),
                (f"/predict?id={draw.randrange(9)}&metadata=%7B%7D", image, "image/png"),
            ]
        )
        wrong = changed(draw, content)
        length = len(wrong) + draw.choice([0, 0, 0, 0, 0, -1, 7, 10**15])
        method = draw.choice(["POST"] * 8 + ["GET", "PUT", "TRACE", "\x00"])
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: {header}\r\nContent-Length: {length}\r\n\r\n"
        ).encode()
        whole = head + wrong
        if draw.random() < 0.3:
            yield changed(draw, whole), False
        else:
            yield whole, length <= len(wrong)


def sent(server: Server, request: bytes, whole: bool) -> bytes:
    """The first line of the answer; nothing where none comes soon to what is not whole."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    with connection, suppress(OSError):
        connection.sendall(request)
        connection.settimeout(30 if whole else 0.01)
        return connection.recv(65536).partition(b"\r\n")[0]
    return b""


def test_malformed_requests_change_nothing(source: Path, tmp_path: Path) -> None:
    draw, image = random.Random(0), pictures(source, 1)[0]
    words = (f"source={source}", f"output={tmp_path / 'out'}", "serve.timeout=5", "method=tent")
    with serving(*words) as server:
        stream = requests(draw, image)
        answers: dict[bytes, int] = {}
        early = 0.0
        for number in range(_REQUESTS):
            answer = sent(server, *next(stream)).partition(b" ")[2][:3]
            answers[answer] = answers.get(answer, 0) + 1
            if number == _REQUESTS // 10:
                early = memory(server)
        grown = memory(server) - early
        told = server.ask("GET", "/status").json
        assert not [status for status in answers if status.startswith(b"5")], answers
        assert answers[b"422"] > _REQUESTS / 5
        assert grown < _GROWTH
        # What was changed and is an image all the same was served, and nothing else.
        right = answers.get(b"200", 0)
        assert right <= told["images"] <= 2 * right
        assert server.ask("POST", "/predict", image).status == 200
        assert server.stop() == 0


def test_requests_that_the_description_allows_and_forbids(source: Path, tmp_path: Path) -> None:
    with serving(f"source={source}", f"output={tmp_path}", "serve.labels=true") as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"http://127.0.0.1:{server.port}/openapi.json",
            "--max-examples=300",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            "--seed=0",
            "--workers=2",
        ]
        environment = {**os.environ, "NO_COLOR": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=1200
        )
        assert done.returncode == 0, done.stdout[-6000:]
        # It knows how pictures begin, so some of its bytes are images, and are served: no others.
        images = server.ask("GET", "/status").json["images"]
        assert images == (tmp_path / "predictions.csv").read_text().count("\n") - 1
        assert server.ask("GET", "/health").status == 200
