"""A page in headless Chromium: what it says on the console, what does not fit, where its parts
stand, and what axe-core finds that people with impairments could not use.
"""

import html
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.conftest import ROOT

#: The browser's command; None where there is none.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
_AXE = Path(os.environ.get("HOLDFAST_AXE", str(ROOT / ".venv" / "axe")))
#: The script of axe-core (``make axe``); None where it is not installed.
AXE = next(_AXE.rglob("axe.min.js"), None)
#: Pixels of a printed page's text: A4 without the margins that pages ask for.
PAPER = 703
#: What forbids scripts in a page, and axe-core is one.
_POLICY = re.compile(r"<meta http-equiv='Content-Security-Policy'[^>]*>")

# What is asked of a page in a frame. ``scrolls`` is where something wide is no fault.
_ASK = """
async function ask(frame, scrolls) {
  const inside = frame.document, root = inside.scrollingElement;
  const all = (what) => [...inside.querySelectorAll(what)];
  all("details").forEach((one) => { one.open = true; });
  const box = (one) => one.getBoundingClientRect();
  const wide = all("body *").filter((one) => {
    const {right, width} = box(one);
    return width > 1 && right > root.clientWidth + 1 && !one.closest(scrolls);
  });
  const regions = all("h1, .answer, .tiles, nav, section, figure, .wide").map((one) => {
    const heading = one.querySelector("h2, figcaption b");
    const {left, top, width, height} = box(one);
    return {kind: one.className || one.tagName.toLowerCase(), left, top, width, height,
      name: (heading || one).textContent.slice(0, 60)};
  });
  let barred = [];
  if (frame.axe) {
    const done = await frame.axe.run(inside, {resultTypes: ["violations"], preload: false});
    barred = done.violations.map((one) => [one.impact, one.id, one.nodes.length,
      one.nodes[0].html.slice(0, 160), one.nodes[0].failureSummary]);
  }
  return {
    width: root.clientWidth, needed: root.scrollWidth, regions, barred,
    background: frame.getComputedStyle(inside.body).backgroundColor,
    wide: wide.slice(0, 5).map((one) => one.tagName + "." + one.className),
    unnamed: all("svg, img").filter((one) =>
      !(one.getAttribute("aria-label") || one.getAttribute("alt") || one.closest("[aria-hidden]")
        || one.querySelector("title") || one.closest("figure"))).length,
  };
}
function tell(found) { document.getElementById("told").textContent = JSON.stringify(found); }
"""
# A page lies in a frame of the width asked for, since a window can't be as narrow as a phone.
_HARNESS = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:900px" {page}></iframe>
<pre id="told"></pre><script>{ask}</script><script>{then}</script>"""
_ONE = """document.getElementById("page").addEventListener("load", async (event) => {{
  tell(await ask(event.target.contentWindow, "{scrolls}"));
}});"""
# One page after the other; axe-core, where it is asked for, is added to each.
_MANY = """(async () => {{
  const page = document.getElementById("page"), axe = {axe}, found = {{}};
  for (const place of {places}) {{
    await new Promise((done) => {{ page.onload = done; page.src = place; }});
    page.contentDocument.getElementById({scheme}).click();
    if (axe) {{
      const script = page.contentDocument.createElement("script");
      script.textContent = axe;
      page.contentDocument.head.append(script);
    }}
    found[place] = await ask(page.contentWindow, "{scrolls}");
  }}
  tell(found);
}})();"""


def looked_at(
    page: str,
    width: int,
    folder: Path,
    *,
    dark: bool = False,
    printed: bool = False,
    axe: bool = False,
) -> dict[str, Any]:
    """What a browser makes of a page.

    Args:
        page: HTML.
        width: of the window, in pixels.
        folder: for files.
        dark: whether the reader prefers dark pages.
        printed: look at it as on paper, where nothing scrolls.
        axe: ask axe-core too.

    Returns:
        ``width`` and what is ``needed``, elements that stand out (``wide``), how many pictures are
        ``unnamed``, lines of the ``console``, the ``regions`` with their boxes in the page's order,
        its ``background``, and what axe-core calls ``barred``: impact, rule, places, and the first.
    """
    if printed:
        page = page.replace("@media print", "@media all")
    if axe:
        assert AXE is not None
        page = _POLICY.sub("", page).replace(
            "</head>", f"<script>{AXE.read_text()}</script></head>"
        )
    scrolls = "svg" if printed else ".wide, pre, svg"
    then = _ONE.format(scrolls=scrolls)
    found, console = _told(f'srcdoc="{html.escape(page)}"', then, width, folder, dark)
    return {**found, "console": console}


def site_looked_at(
    pages: Sequence[Path], width: int, folder: Path, *, dark: bool = False, axe: bool = False
) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """What a browser makes of the pages of a site, each as in ``looked_at``; and the console.

    Args:
        pages: files.
        width: of the window, in pixels.
        folder: for files.
        dark: whether the reader prefers dark pages.
        axe: ask axe-core too.
    """
    script = AXE.read_text() if axe and AXE is not None else ""
    written = json.dumps(script).replace("</", "<\\/")
    places = {page.as_uri(): page for page in pages}
    scrolls = "pre, svg, .md-typeset__scrollwrap, .md-sidebar, .md-search, .md-tabs"
    scheme = json.dumps(f"__palette_{int(dark)}")  # a frame doesn't know what its reader prefers
    then = _MANY.format(axe=written, places=json.dumps([*places]), scheme=scheme, scrolls=scrolls)
    found, console = _told("", then, width, folder, dark)
    return {places[place]: one for place, one in found.items()}, console


def searched(site: Path, words: str, folder: Path) -> list[str]:
    """What a reader without a network finds on a site, opened as files: places below its folder,
    the best first.

    Args:
        site: its folder.
        words: that are searched for.
        folder: for files.
    """
    options = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=30000"]
    address = f"{(site / 'index.html').as_uri()}?{urlencode({'q': words})}"
    done = _browser([*options, "--allow-file-access-from-files", "--dump-dom"], address, folder)
    links = re.findall(r'href="([^"]*)" class="md-search-result__link', done.stdout)
    return [html.unescape(link).removeprefix(f"{site.as_uri()}/") for link in links]


def _told(
    page: str, then: str, width: int, folder: Path, dark: bool
) -> tuple[dict[str, Any], list[str]]:
    """What a harness tells, and what is said on the console."""
    file = folder / "harness.html"
    text = _HARNESS.format(width=width, page=page, ask=_ASK, then=then)
    file.write_text(text, encoding="utf-8")
    preferred = "0" if dark else "1"
    options = ["--enable-logging=stderr", "--virtual-time-budget=600000", "--dump-dom"]
    options += [f"--blink-settings=preferredColorScheme={preferred}", "--window-size=1600,1000"]
    options += ["--allow-file-access-from-files"]  # what a frame of a file holds may be asked
    done = _browser(options, file.as_uri(), folder)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stdout[-500:]
    assert told[1], "the page told nothing"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(told[1])), console


def printed(page: str, folder: Path) -> list[int]:
    """How much is drawn on each page of a page's PDF: operators that show text or paint."""
    file, out = folder / "printed.html", folder / "printed.pdf"
    file.write_text(page, encoding="utf-8")
    _browser([f"--print-to-pdf={out}", "--no-pdf-header-footer"], file.as_uri(), folder)
    raw = out.read_bytes()
    objects = {
        int(number): body
        for number, body in re.findall(rb"(?:^|\n)(\d+) 0 obj(.*?)endobj", raw, re.DOTALL)
    }
    pages = [body for body in objects.values() if re.search(rb"/Type\s*/Page\b", body)]
    return [_drawn(objects, page) for page in pages]


def _drawn(objects: dict[int, bytes], page: bytes) -> int:
    content = re.search(rb"/Contents\s+(\d+) 0 R", page)
    assert content is not None
    stream = re.search(rb"stream\r?\n(.*)endstream", objects[int(content[1])], re.DOTALL)
    assert stream is not None
    return len(re.findall(rb"\b(?:Tj|TJ|f|S|Do)\b", zlib.decompressobj().decompress(stream[1])))


def _browser(options: list[str], address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    always = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--incognito",  # a site remembers which colours were chosen
        f"--user-data-dir={folder / 'browser'}",
    ]
    command = [CHROMIUM, *always, *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
