"""One HTML file that holds all it shows: text, tables, and figures as inline SVG that follow a
light or a dark theme.

Every function takes plain text and escapes it, so that an image's id or a class's name never
becomes markup; what they return is HTML. The page asks for nothing from elsewhere, and its content
security policy forbids it to.
"""

import base64
import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from holdfast.tta.style import AMBER, BLUE, GREY, PALETTE, RED, STYLE

#: Colours that stand for the page's own in a figure, and become them: text, secondary text, lines,
#: background.
INK, SOFT, LINE, CARD = "#010203", "#010204", "#010205", "#010206"
_THEMED = {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", CARD: "var(--card)"}
#: Of classes and runs; each is told from the others, and from the page, under both themes.
COLORS = PALETTE
#: How models are drawn, wherever they are.
SOURCE, CONTROL, ADAPTED, SERVED = GREY, AMBER, RED, BLUE

#: Pixels of an embedded picture's longer side, at most.
_PIXELS = 192
_LONGEST = 120  # characters of a cell
_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5c6672; --page: #f4f6f8; --card: #fff; --line: #dfe3e8;
  --bad: #b3261e; --mark: #fff3d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b1; --page: #14181d; --card: #1d232b; --line: #343c47; --bad: #ff8a80; --mark: #3d3420; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 60rem; } p.lead, .soft { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: .8rem 0; } a { color: inherit; }
.answer { background: var(--card); border: 1px solid var(--line); border-left: .3rem solid var(--soft); border-radius: 8px;
  padding: .3rem .9rem; margin: 1rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; min-width: 6.5rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: var(--soft); font-size: .85rem; }
.grid { display: grid; gap: 1rem; align-items: start; margin: 0 0 1rem; }
.two { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; padding: .6rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figure svg { display: block; width: 100%; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; } svg text { font-family: system-ui, sans-serif !important; }
figure img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; margin-bottom: .4rem; }
figcaption { color: var(--soft); font-size: .88rem; padding-top: .4rem; line-height: 1.4; }
figcaption b { color: var(--ink); font-weight: 600; }
.wide { overflow-x: auto; margin: .4rem 0 1rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
.grid .wide { margin: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
tr:last-child td { border-bottom: 0; } th { font-weight: 600; font-size: .88rem; color: var(--soft); vertical-align: bottom; }
td { white-space: nowrap; } th.text, td.text { text-align: left; white-space: normal; overflow-wrap: break-word; }
.prose td { overflow-wrap: anywhere; } tr.mark td { background: var(--mark); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: .4rem 0 .8rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem;
  font-size: .82rem; line-height: 1.45; overflow-wrap: normal; } summary { cursor: pointer; } li { margin: .3rem 0; }
@media (max-width: 36rem) {
  body { padding: .8rem; } th, td { padding: .35rem .4rem; font-size: .85rem; } .tile { flex: 1 1 9rem; }
  .tile b { white-space: normal; overflow-wrap: normal; }
  .pictures { grid-template-columns: repeat(2, 1fr); } figure { padding: .4rem; }
}
@page { margin: 14mm 12mm; }
@media print {
  :root { font-size: 12px; color-scheme: only light; --ink: #000; --soft: #444; --page: #fff; --card: #fff; --line: #bbb; --bad: #b3261e; --mark: #fff3d6; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0 1px; font-size: 10pt; }
  h1, h2, h3, h2 + p, .legend { break-after: avoid; } h2 { margin-top: 1.4rem; } p, li { orphans: 3; widows: 3; }
  figure, .answer, .tile, .legend, tr { break-inside: avoid; } thead { display: table-header-group; }
  .grid { gap: .6rem; } .two { grid-template-columns: 1fr 1fr; } .three { grid-template-columns: 1fr 1fr 1fr; }
  .pictures { grid-template-columns: repeat(4, 1fr); } .grid > * { min-width: 0; }
  .wide, .scroll, pre { overflow: visible; } figure svg { max-width: 100% !important; min-width: 0 !important; }
  th, td { padding: .2rem .3rem; font-size: 8pt; } td.text { min-width: 3.6rem; } pre { white-space: pre-wrap; } details pre { columns: 3 10rem; }
  .grid th, .grid td { padding: .15rem .2rem; font-size: 7pt; } .grid td.text { min-width: 2.4rem; overflow-wrap: anywhere; }
  details::details-content { content-visibility: visible; block-size: auto; } summary { list-style: none; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_salts = count()


def page(
    title: str, lead: str, sections: Sequence[tuple[str, Sequence[str]]], head: Sequence[str] = ()
) -> str:
    """The whole file.

    Args:
        title: its heading.
        lead: the sentence below it.
        sections: headings with their parts, which are HTML; a section without parts is left out.
        head: parts above the first section.
    """
    shown = [(f"s{index}", name, parts) for index, (name, parts) in enumerate(sections) if parts]
    links = "".join(f"<a href='#{anchor}'>{_escaped(name)}</a>" for anchor, name, _ in shown)
    body = "".join(
        f"<section id='{at}'><h2>{_escaped(name)}</h2>{''.join(parts)}</section>\n"
        for at, name, parts in shown
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta "
        f"charset='utf-8'><title>{_escaped(title)}</title>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">"
        "<meta name='viewport' content='width=device-width, "
        f"initial-scale=1'><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{_escaped(title)}</h1><p "
        f"class='lead'>{_escaped(lead)}</p>{''.join(head)}\n<nav>{links}</nav>\n"
        f"{body}</main></body></html>\n"
    )


def paragraph(text: str) -> str:
    """Running text."""
    return f"<p>{_escaped(text)}</p>"


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{_escaped(text)}</h3>"


def items(lines: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{_escaped(line)}</li>" for line in lines) + "</ul>"


def box(parts: Sequence[tuple[str, str]]) -> str:
    """What to read before all else: sentences, each behind some words in bold."""
    shown = "".join(f"<p><b>{_escaped(bold)}</b> {_escaped(text)}</p>" for bold, text in parts)
    return f"<div class='answer'>{shown}</div>"


def tiles(facts: Mapping[str, str]) -> str:
    """The few numbers that matter, each large above its name."""
    shown = "".join(
        f"<div class='tile'><b>{_escaped(v)}</b><span>{_escaped(k)}</span></div>"
        for k, v in facts.items()
    )
    return f"<div class='tiles'>{shown}</div>"


def legend(names: Mapping[str, str]) -> str:
    """Colours by name, for several figures."""
    shown = "".join(
        f"<span><i style='background:{color}'></i>{_escaped(name)}</span>"
        for name, color in names.items()
    )
    return f"<div class='legend'>{shown}</div>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    texts: int = 1,
    marked: Sequence[int] = (),
) -> str:
    """A table; None is a dash, and a float has one decimal.

    Args:
        head: of the columns.
        rows: cells.
        texts: how many of the first columns hold text, not numbers.
        marked: rows to point out.
    """

    def line(tag: str, cells: Sequence[Any], mark: bool = False) -> str:
        kinds = [" class='text'" if index < texts else "" for index in range(len(cells))]
        tags = [
            tag if cell != "" else "td" for cell in cells
        ]  # a heading that says nothing is none
        parts = zip(tags, kinds, cells, strict=True)
        shown = "".join(f"<{tag}{kind}>{_cell(cell)}</{tag}>" for tag, kind, cell in parts)
        return f"<tr class='mark'>{shown}</tr>" if mark else f"<tr>{shown}</tr>"

    body = "".join(line("td", row, index in marked) for index, row in enumerate(rows))
    top = f"<thead>{line('th', head)}</thead>" if any(head) else ""
    kind = " class='prose'" if texts == len(head) else ""
    named = ", ".join(name for name in map(str, head) if name) or "facts"
    return (
        f"<div class='wide'{_scrolled(f'Table: {named}')}>"
        f"<table{kind}>{top}<tbody>{body}</tbody></table></div>"
    )


def grid(columns: str, parts: Sequence[str]) -> str:
    """Parts side by side where there is room: ``two``, ``three`` or ``pictures`` in a row."""
    return f"<div class='grid {columns}'>{''.join(parts)}</div>"


def details(summary: str, text: str) -> str:
    """Text that is folded away."""
    return (
        f"<details><summary>{_escaped(summary)}</summary>"
        f"<pre{_scrolled(summary)}>{_escaped(text)}</pre></details>"
    )


def figure(draw: Callable[[], Figure], caption: str, title: str = "", *, wide: bool = False) -> str:
    """A matplotlib figure as inline SVG, in the colours of the page.

    Args:
        draw: makes the figure; it is called with matplotlib's settings for this page, and uses
            ``INK`` and its like.
        caption: below the figure.
        title: in bold before the caption.
        wide: it scrolls on a narrow screen, rather than shrink.
    """
    settings = {
        **STYLE,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
        **{
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": SOFT,
            "xtick.color": SOFT,
            "ytick.color": SOFT,
        },
        **{"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8},
        # Text stays text. Ids differ between figures, which share one document.
        **{"svg.fonttype": "none", "svg.hashsalt": str(next(_salts))},
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # the browser has it, or shows a box
        draw().savefig(
            buffer,
            format="svg",
            dpi=150,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    strong = f"<b>{_escaped(title)}</b> " if title else ""
    svg = _inline(buffer.getvalue(), f"{title} {caption}".strip(), wide)
    svg = f"<div class='scroll'{_scrolled(title or caption)}>{svg}</div>" if wide else svg
    return f"<figure>{svg}<figcaption>{strong}{_escaped(caption)}</figcaption></figure>"


def picture(
    image: npt.NDArray[np.float32], title: str, caption: str, *, stretch: bool = True
) -> str:
    """An image, small, with text below.

    Args:
        image: (channels, H, W) or (channels, D, H, W); of a volume the middle slice is shown.
        title: in bold.
        caption: after it.
        stretch: as in ``as_picture``.
    """
    text = _escaped(f"{title} {caption}")
    strong = f"<b>{_escaped(title)}</b><br>" if title else ""
    shown = f"<img alt='{text}' src='{_embedded(image, stretch)}'>"
    return f"<figure>{shown}<figcaption>{strong}{_escaped(caption)}</figcaption></figure>"


def as_picture(image: npt.NDArray[np.float32], stretch: bool = True) -> npt.NDArray[np.uint8]:
    """(H, W) grey or (H, W, 3) coloured pixels of an image or of a volume's middle slice; what is
    not finite is black.

    Args:
        image: (channels, H, W) or (channels, D, H, W).
        stretch: from its darkest to its brightest, so that images that fill a small part of the
            source's range can be told from black; else from 0 to 1.
    """
    if image.ndim == 4:
        image = image[:, image.shape[1] // 2]
    channels = image[:3] if len(image) >= 3 else image[:1]
    known = channels[np.isfinite(channels)]
    low, high = np.percentile(known, [0.5, 99.5]) if stretch and len(known) else (0.0, 1.0)
    stretched = np.where(np.isfinite(channels), (channels - low) / max(high - low, 1e-6), 0.0).clip(
        0, 1
    )
    pixels = (stretched * 255).round().astype(np.uint8)
    return pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]


def counted(number: int, thing: str) -> str:
    """A number of things, in words that agree."""
    return (
        f"{number:,} {thing}"
        if number == 1
        else f"{number:,} {thing}{'es' if thing.endswith('ch') else 's'}"
    )


def signed(number: float) -> str:
    """A difference with one decimal and its sign; nothing is not negative."""
    return f"{round(number, 1) + 0.0:+.1f}"


def shortened(text: str, length: int = _LONGEST) -> str:
    """Text that fits, its middle left out."""
    keep = (length - 1) // 2
    return text if len(text) <= length else f"{text[:keep]}…{text[-keep:]}"


def _embedded(image: npt.NDArray[np.float32], stretch: bool) -> str:
    shown = Image.fromarray(as_picture(image, stretch))
    shown.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    shown.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _inline(svg: str, label: str, wide: bool) -> str:
    """A file's SVG as an element of the page: without what only a file needs, in the page's
    colours, and of legible size.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    opening, body = svg.split(">", 1)
    view = re.search(r'viewBox="0 0 ([\d.]+) [^"]*"', opening)
    assert view is not None, "matplotlib always writes a viewBox"
    body = re.sub(r'<(g|image|text)([^>]*?) id="[^"]*"', r"<\1\2", body)
    body = re.sub(r'(<text style="[^"]*?)font-family: [^;"]*; ', r"\1", body)  # the page's font
    for color, variable in _THEMED.items():
        body = body.replace(color, variable)
    width = float(view.group(1))
    size = f"max-width:{1.65 * width:.0f}px" + (f";min-width:{0.9 * width:.0f}px" if wide else "")
    return (
        f"<svg {view.group()} style='{size}' role='img' "
        f"aria-label='{_escaped(label)}'>{body.strip()}"
    )


def _scrolled(label: str) -> str:
    """Attributes of what may scroll, so that a keyboard reaches it and a reader says what it is."""
    return f" tabindex='0' role='group' aria-label='{_escaped(label)}'"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else _escaped(shortened(str(value)))


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
