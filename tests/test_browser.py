"""Pages of runs in a browser: on a phone, at a desk, in the dark and on paper they fit, their parts
stand in order and can be read, and the console and axe-core have nothing serious to say.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast.programs import adapt
from holdfast.programs.demo import DemoConfig
from holdfast.programs.shown import demo
from holdfast.serving.status import status_page
from tests.browser import AXE, CHROMIUM, PAPER, looked_at, printed
from tests.conftest import QUICK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
with_axe = pytest.mark.skipif(AXE is None, reason="axe-core is not installed: make axe")
#: Pixels of a phone, a tablet and a desk.
WIDTHS = (390, 820, 1440)
#: Pixels of a picture that can be read, and that still fits a screen: width, then height.
LEAST, MOST = (140, 100), (1200, 1100)
#: What a page that is printed must not have: pages that show next to nothing.
DRAWN = 20
REPORT = [
    *("What happened", "Guard", "Accuracy over the stream", "What was predicted", "Features"),
    *("Confusion", "Calibration", "Domains and subgroups", "Largest changes of mind", "Settings"),
]


def check(page: str, folder: Path, sections: list[str]) -> None:
    """Refuse a page that says something on the console, stands out of its window, or has its parts
    elsewhere than they belong.
    """
    for width in WIDTHS:
        found = looked_at(page, width, folder)
        fits(found, sections)
        assert found["needed"] <= found["width"] <= width
        assert found["unnamed"] == 0
    light, dark = found, looked_at(page, WIDTHS[-1], folder, dark=True)
    fits(dark, sections)
    assert dark["background"] != light["background"]
    paper = looked_at(page, PAPER, folder, printed=True)
    fits(paper, sections)
    assert paper["needed"] <= paper["width"]  # or a figure would be clipped at the margin
    assert min(printed(page, folder)) > DRAWN


def fits(found: dict[str, Any], sections: list[str]) -> None:
    """Refuse parts that are missing, out of order, on top of each other, or too small to read."""
    assert found["console"] == []
    assert found["wide"] == []
    shown = [one for one in found["regions"] if one["kind"] == "section"]
    assert [one["name"] for one in shown] == sections
    for above, below in pairwise(shown):
        assert above["top"] + above["height"] <= below["top"], above["name"]
    assert found["regions"][0]["kind"] == "h1"
    for one in found["regions"]:
        if one["kind"] == "figure":
            size = one["width"], one["height"]
            assert all(map(int.__le__, LEAST, map(int, size))), one
            assert all(map(int.__ge__, MOST, map(int, size))), one


def barred(page: str, folder: Path) -> list[Any]:
    """What axe-core finds in a page, light and dark, on a phone and at a desk."""
    return [
        one
        for width in (WIDTHS[0], WIDTHS[-1])
        for dark in (False, True)
        for one in looked_at(page, width, folder, dark=dark, axe=True)["barred"]
    ]


@pytest.fixture(scope="module")
def report(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run's page, with subgroups."""
    out = tmp_path_factory.mktemp("run") / "out"
    words = ["method=tent", "data.target=[scanner_a,scanner_c]", "data.target_images=400"]
    words += ["data.subgroups=[domain]", "report=true", f"output={out}", f"source={source}"]
    assert adapt.main([*QUICK, *words]) == 0
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's page."""
    folder = tmp_path_factory.mktemp("demo")
    demo(**vars(DemoConfig(output=str(folder), epochs=1, passes=1, images=320)))
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def status() -> str:
    """A service's page, after an alarm."""
    rows = [
        {
            **{"batch": at, "R": 1 - at / 60, "drift": at / 60, "entropy": 0.5},
            **{"verdict": "OK" if at < 40 else "ALARM", "choice": "batch"},
            **{"mode": "adapting" if at < 40 else "holding"},
            **{"served_by": "adapted" if at < 40 else "control"},
        }
        for at in range(60)
    ]
    alarm = {"batch": 40, "event": "correction", "message": "the source's weights are back"}
    facts = {"images": "3,840", "batches": "60", "who answers": "control"}
    return status_page("clinic", facts, ["Short batches."], rows, [alarm], {"R": 0.8})


def test_a_report_fits(report: str, tmp_path: Path) -> None:
    check(report, tmp_path, REPORT)


def test_the_demo_fits(demonstrated: str, tmp_path: Path) -> None:
    for width in WIDTHS:
        found = looked_at(demonstrated, width, tmp_path)
        assert found["console"] == []
        assert found["wide"] == []
        assert found["needed"] <= found["width"] <= width
        assert found["unnamed"] == 0


def test_the_status_page_fits(status: str, tmp_path: Path) -> None:
    check(status, tmp_path, ["The last batches", "Events", "How to ask"])


@with_axe
@pytest.mark.parametrize("name", ["report", "demonstrated", "status"])
def test_nobody_is_barred(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert barred(request.getfixturevalue(name), tmp_path) == []


@with_axe
def test_who_is_barred_is_seen(tmp_path: Path) -> None:
    page = "<html><head></head><body><p style='color:#bbb;background:#fff'>pale</p></body></html>"
    found = barred(page, tmp_path)
    assert ["serious", "color-contrast"] in [one[:2] for one in found]


def test_a_page_that_is_blank_is_seen(tmp_path: Path) -> None:
    drawn = printed("<p>one</p><p style='break-before:page'></p>&nbsp;", tmp_path)
    assert len(drawn) == 2
    assert min(drawn) <= DRAWN


def test_what_stands_out_is_seen(tmp_path: Path) -> None:
    page = "<p>short</p><div style='width:600px'>wide</div><script>console.error('no')</script>"
    found = looked_at(page, 390, tmp_path)
    assert found["needed"] > found["width"]
    assert found["wide"] == ["DIV."]
    assert len(found["console"]) == 1
