"""The status page of a service that serves, in a browser: curves are drawn, nothing stands out of a
phone, and the console has nothing to say.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, looked_at
from tests.serving.client import Server, pictures, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
#: Pixels of a phone, a tablet and a desk.
WIDTHS = (390, 820, 1440)
#: Milliseconds that the browser waits; the page renews itself after 5000.
_WAIT = 2000
#: Pixels of strong colour that a strip and curves have at least, and a page without them has not.
_DRAWN = 2000


@pytest.fixture(scope="module")
def server(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A guarded service that has answered some batches, of a window."""
    folder = tmp_path_factory.mktemp("status") / "ward-7-beside-the-second-scanner"
    words = [f"source={source}", f"output={folder}", "method=tent", "serve.window=16"]
    with serving(*words) as started:
        for picture in pictures(source, 30):
            assert started.predict([picture]).status == 200
        yield started


def opened(server: Server, folder: Path, *options: str) -> tuple[str, list[str]]:
    """The page as a browser has it from its address, and lines of the console."""
    assert CHROMIUM is not None
    plain = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    plain += [f"--user-data-dir={folder / 'own'}", f"--virtual-time-budget={_WAIT}", *options]
    command = [CHROMIUM, *plain, f"http://127.0.0.1:{server.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def coloured(picture: Path) -> int:
    """Pixels that are neither white, black nor grey."""
    pixels = np.asarray(Image.open(picture).convert("RGB"), int)
    return int((np.ptp(pixels, axis=2) > 60).sum())


def test_curves_are_drawn_and_the_console_is_silent(server: Server, tmp_path: Path) -> None:
    content, console = opened(server, tmp_path, "--dump-dom")
    assert console == []
    assert content.count("<svg") == 2
    assert re.search(r"<div[^>]*>\s*30\b|>30<", content)  # images served
    assert "<script" not in content
    picture = tmp_path / "page.png"
    opened(server, tmp_path, f"--screenshot={picture}", "--window-size=1440,2000")
    assert coloured(picture) > _DRAWN


def test_a_service_that_has_answered_nothing_has_a_page(source: Path, tmp_path: Path) -> None:
    with serving(f"source={source}", f"output={tmp_path / 'new'}", "guard=off") as started:
        content, console = opened(started, tmp_path, "--dump-dom")
        assert console == []
        assert "<svg" not in content
        picture = tmp_path / "page.png"
        opened(started, tmp_path, f"--screenshot={picture}", "--window-size=1440,2000")
        assert coloured(picture) < _DRAWN


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits(server: Server, tmp_path: Path, width: int) -> None:
    content = server.ask("GET", "/").body.decode()
    found = looked_at(content, width, tmp_path)
    assert found["console"] == []
    assert found["wide"] == []
    assert found["needed"] <= found["width"] <= width
    assert found["unnamed"] == 0
