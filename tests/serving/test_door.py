"""Who comes in, and what happens where there is no room: the application without a network."""

import asyncio
import base64
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from holdfast.serving import room
from holdfast.serving.app import create_app
from holdfast.serving.config import configured
from holdfast.serving.door import Door
from holdfast.serving.service import Service
from tests.conftest import file_limit
from tests.serving.client import png

IMAGE = png(np.zeros((32, 32, 3), np.uint8))
TOKEN = "0123456789abcdef"


@pytest.fixture
def service(source: Path, tmp_path: Path) -> Iterator[Service]:
    """One that was not started: nothing is served."""
    words = ["serve.batch_size=4", "serve.timeout=.3", "serve.queue=64", "method=tent"]
    config, checkpoint = configured([f"source={source}", "device=cpu", *words])
    made = Service(config, checkpoint, tmp_path)
    yield made
    made.reader.close()


def asked(
    service: Service,
    ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
    token: str | None = None,
) -> httpx.Response:
    """The answer of the application behind its door."""
    paths = frozenset(("/predict",))
    door = Door(create_app(service), token, 0.1, 0.3, service.figures, paths)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(door)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await ask(client)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer {TOKEN}", "Host": "hospital.example"}, 200),
        ({"Authorization": "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()}, 200),
        ({"Authorization": "Basic !!"}, 401),
        ({"Authorization": "Bearer " + "\u00e9" * 16}, 401),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://elsewhere.example"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "null"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://127.0.0.1"}, 200),
    ],
)
def test_who_comes_in(service: Service, headers: dict[str, str], status: int) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = asked(service, lambda client: client.get("/metrics", headers=sent), TOKEN)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answer.headers["cache-control"] == "no-store"
    assert TOKEN not in answer.text
    assert asked(service, lambda client: client.get("/health"), TOKEN).status_code == 503


def test_a_service_whose_disk_takes_nothing_is_not_ready(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_HOLDS", 0.0)
    service.start()

    def ready() -> tuple[int, str]:
        answer = asked(service, lambda client: client.get("/ready"), TOKEN)
        return answer.status_code, answer.json()["status"]

    assert ready() == (200, "ready")
    with file_limit(1000):
        assert ready() == (
            503,
            "the results cannot be written, the file would exceed the size limit that is set here: "
            "make room, or choose another disk, output=DIR",
        )
    assert ready() == (200, "ready")
    service.stop()
    assert ready() == (503, "stopping")
    assert not list(tmp_path.glob(".room*"))


def test_a_disk_that_is_full_or_gone_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        assert room.Room(folder, 2**15).missing == ""
        assert "the disk is full: make room" in room.Room(folder, 2**17).missing
        assert not list(folder.iterdir())
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert room.Room(tmp_path / "none", 1).missing.startswith("the folder of the results was rem")


def test_a_share_that_holds_what_is_open_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def held(path: Path, missing_ok: bool = False) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise PermissionError(errno.EACCES, "it is open")
        os.unlink(path)

    monkeypatch.setattr(Path, "unlink", held)
    assert room.Room(tmp_path, 2**15).missing == ""
    assert not list(tmp_path.iterdir())


def test_a_body_that_grows_too_large_or_never_ends_is_refused(service: Service) -> None:
    async def endless(pause: float) -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(pause)

    large = asked(service, lambda client: client.post("/predict", content=endless(0)))
    assert large.status_code == 413
    slow = asked(service, lambda client: client.post("/predict", content=endless(0.1)))
    assert slow.status_code == 408
    assert service.lane.waiting == 0
    service.lane.enter(64)  # whoever was refused holds no place


def test_a_full_queue_is_told_before_anything_is_read(service: Service) -> None:
    service.lane.enter(64)
    answer = asked(service, lambda client: client.post("/predict", content=b"not even an image"))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_what_is_answered_too_late_is_served_to_nobody(service: Service) -> None:
    answer = asked(service, lambda client: client.post("/predict", content=IMAGE))
    assert answer.status_code == 503
    assert "no answer within 0.3 s" in answer.json()["detail"]
    service.start()
    service.stop()
    assert service.engine.images == 0
