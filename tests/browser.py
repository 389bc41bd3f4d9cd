"""A page in headless Chromium: what it says on the console, and what does not fit."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

#: The browser's command; None where there is none.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

# The page lies in a frame of the width asked for, since a window can't be as narrow as a phone.
_HARNESS = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<pre id="told"></pre><script>
document.getElementById("page").addEventListener("load", (event) => {{
  const inside = event.target.contentDocument, root = inside.scrollingElement;
  const wide = [...inside.querySelectorAll("body *")].filter((one) =>
    one.getBoundingClientRect().right > root.clientWidth + 1 && !one.closest(".wide, pre, svg"));
  document.getElementById("told").textContent = JSON.stringify({{
    width: root.clientWidth, needed: root.scrollWidth,
    wide: wide.slice(0, 5).map((one) => one.tagName + "." + one.className),
    unnamed: [...inside.querySelectorAll("svg, img")].filter((one) =>
      !(one.getAttribute("aria-label") || one.getAttribute("alt") || one.closest("[aria-hidden]")
        || one.querySelector("title") || one.closest("figure"))).length,
  }});
}});
</script>"""


def looked_at(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What a browser makes of a page.

    Args:
        page: HTML.
        width: of the window, in pixels.
        folder: for files.

    Returns:
        ``width`` and what is ``needed``, elements that stand out (``wide``), how many pictures are
        ``unnamed``, and lines of the ``console``.
    """
    assert CHROMIUM is not None
    file = folder / f"harness-{width}.html"
    file.write_text(_HARNESS.format(width=width, page=html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=5000"]
    command = [CHROMIUM, *options, "--window-size=1600,1000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stdout[-500:]
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**found, "console": console}
