"""The site in a browser: on a phone and at a desk, light and dark, each page fits, says nothing on
the console, and bars nobody; it is searched without a network.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser import AXE, CHROMIUM, searched, site_looked_at
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.skipif(find_spec("mkdocs") is None, reason="MkDocs is not installed: make docs"),
]
with_axe = pytest.mark.skipif(AXE is None, reason="axe-core is not installed: make axe")
#: What axe-core calls worse than moderate.
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The pages, built as ``make docs`` does."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    more = {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, check=True)
    # 404.html is a server's: its style lies at an address that a file has not.
    return sorted(page for page in folder.rglob("*.html") if page.name != "404.html")


@with_axe
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)])
def test_every_page_of_the_site_fits_and_bars_nobody(
    width: int, dark: bool, site: list[Path], tmp_path: Path
) -> None:
    found, console = site_looked_at(site, width, tmp_path, dark=dark, axe=True)
    assert console == []
    assert sorted(found) == site
    assert len(site) > 40
    for page, one in found.items():
        assert [finding for finding in one["barred"] if finding[0] in GRAVE] == [], page.name
        assert one["needed"] <= one["width"] <= width, page.name
        assert one["wide"] == [], page.name
    light = {one["background"] for one in found.values()} == {"rgb(255, 255, 255)"}
    assert light != dark


@with_axe
def test_what_a_page_of_the_site_lacks_is_seen(site: list[Path], tmp_path: Path) -> None:
    page = site[0].with_name("wrong.html")
    wrong = "<p style='color:#ccc'>pale</p><img src='assets/absent.png' style='width:3000px'>"
    page.write_text(site[0].read_text().replace("</article>", f"{wrong}</article>"))
    found, _ = site_looked_at([page], 390, tmp_path, axe=True)
    assert {"color-contrast", "image-alt"} <= {finding[1] for finding in found[page]["barred"]}
    page.unlink()


def test_the_site_is_searched_without_a_network(site: list[Path], tmp_path: Path) -> None:
    root = min((page.parent for page in site), key=lambda folder: len(folder.parts))
    for words, place in (
        ("martingale", "reference/options/adapt.html"),
        ("stream.window", "reference/options/adapt.html"),
        ("CollapseGuard", "reference/api.html"),
    ):
        found = searched(root, words, tmp_path)
        assert any(link.startswith(place) for link in found), (words, found)
        assert all((root / link.split("?")[0]).is_file() for link in found)
    assert searched(root, "zzqqx", tmp_path) == []
