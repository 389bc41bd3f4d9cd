"""Pages of runs in a browser: they fit phone and desk, and the console has nothing to say."""

from pathlib import Path

import pytest

from holdfast.programs import adapt
from holdfast.programs.demo import DemoConfig, demo
from tests.browser import CHROMIUM, looked_at
from tests.conftest import QUICK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
#: Pixels of a phone, a tablet and a desk.
WIDTHS = (390, 820, 1440)


def check(page: str, folder: Path) -> None:
    """Refuse a page that says something on the console, or stands out of its window."""
    for width in WIDTHS:
        found = looked_at(page, width, folder)
        assert found["console"] == []
        assert found["wide"] == []
        assert found["needed"] <= found["width"] <= width
        assert found["unnamed"] == 0


def test_a_report_fits(source: Path, tmp_path: Path) -> None:
    words = ["method=tent", "data.target_images=200", "report=true", f"output={tmp_path / 'out'}"]
    assert adapt.main([*QUICK, f"source={source}", *words]) == 0
    check((tmp_path / "out" / "report.html").read_text(), tmp_path)


def test_the_demo_fits(tmp_path: Path) -> None:
    demo(DemoConfig(output=str(tmp_path / "demo"), epochs=1, passes=1, images=320))
    check((tmp_path / "demo" / "report.html").read_text(), tmp_path)


def test_what_stands_out_is_seen(tmp_path: Path) -> None:
    page = "<p>short</p><div style='width:600px'>wide</div><script>console.error('no')</script>"
    found = looked_at(page, 390, tmp_path)
    assert found["needed"] > found["width"]
    assert found["wide"] == ["DIV."]
    assert len(found["console"]) == 1
