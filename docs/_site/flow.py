"""Mermaid's diagrams, drawn when the site is built: they need neither a network nor a script then,
flowcharts as pictures, and states as a table.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NODE = r"(\w+)(?:\[\"?([^\"\]]*)\"?\])?"
_EDGE = re.compile(rf"^\s*{_NODE}\s*-->(?:\|([^|]*)\|)?\s*{_NODE}\s*$")
_ALONE = re.compile(rf"^\s*{_NODE}\s*$")
_STEP = re.compile(r"^\s*(\w+) --> (\w+): (.+?)\s*$")
#: Pixels: of a letter, a line, around text, between boxes side by side and above each other.
_LETTER, _LINE, _PAD, _ASIDE, _ABOVE = 7.2, 18, 12, 22, 46


class Edge(NamedTuple):
    """An arrow from one node to another, with what is said of it."""

    start: str
    end: str
    told: str


class Box(NamedTuple):
    """Where a node lies: its middle, and its sides; with its lines of text."""

    x: float
    y: float
    width: float
    height: float
    lines: Sequence[str]


def drawn(page: str) -> str:
    """The page with its diagrams in a form that every browser shows."""
    return _BLOCK.sub(lambda found: _shown(found[1]), page)


def _shown(source: str) -> str:
    if source.startswith("stateDiagram"):
        steps = [found.groups() for found in map(_STEP.match, source.splitlines()) if found]
        rows = [f"| {start} | {when} | {end} |" for start, end, when in steps]
        return "\n".join(["| from | when | to |", "|---|---|---|", *rows])
    names, edges = parsed(source)
    return f"<figure>{svg(names, edges)}</figure>"


def parsed(source: str) -> tuple[dict[str, str], list[Edge]]:
    """Nodes of a flowchart with their texts, and its arrows."""
    names: dict[str, str] = {}
    edges: list[Edge] = []
    for line in source.splitlines()[1:]:
        if found := _EDGE.match(line):
            start, text, told, end, other = found.groups()
            edges.append(Edge(start, end, told or ""))
            pairs = ((start, text), (end, other))
        elif found := _ALONE.match(line):
            pairs = ((found[1], found[2]),)
        else:
            continue
        for name, text in pairs:
            names[name] = text or names.get(name, name)
    return names, edges


def layers(names: Mapping[str, str], edges: Sequence[Edge]) -> list[list[str]]:
    """Nodes by the longest way that leads to them, each layer in the order of what leads there."""
    depth = dict.fromkeys(names, 0)
    for _ in names:  # as often as the longest way can have steps
        for edge in edges:
            depth[edge.end] = max(depth[edge.end], min(depth[edge.start] + 1, len(names)))
    rows: list[list[str]] = []
    for level in sorted(set(depth.values())):
        row = [name for name in names if depth[name] == level]
        before = rows[-1] if rows else []
        row.sort(key=lambda name: _pulled(name, before, edges))
        rows.append(row)
    return rows


def _pulled(name: str, before: Sequence[str], edges: Sequence[Edge]) -> float:
    places = [before.index(e.start) for e in edges if e.end == name and e.start in before]
    return sum(places) / len(places) if places else len(before)


def svg(names: Mapping[str, str], edges: Sequence[Edge]) -> str:
    """The flowchart from top to bottom."""
    boxes, width, height = _placed(names, layers(names, edges))
    parts = [_arrow(boxes[edge.start], boxes[edge.end], edge.told) for edge in edges]
    parts += [_box(box) for box in boxes.values()]
    told = "; ".join(f"{_plain(names[e.start])} leads to {_plain(names[e.end])}" for e in edges)
    return (
        f'<svg role="img" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" '
        f'class="flow"><title>{html.escape(told)}</title><defs><marker id="tip" markerWidth="8" '
        'markerHeight="8" refX="7" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker>'
        f"</defs>{''.join(parts)}</svg>"
    )


def _placed(
    names: Mapping[str, str], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, Box], float, float]:
    lines = {name: text.split("<br>") for name, text in names.items()}
    wide = {name: 2 * _PAD + _LETTER * max(map(len, text)) for name, text in lines.items()}
    spans = [sum(wide[name] + _ASIDE for name in row) for row in rows]
    boxes, y = {}, float(_PAD)
    for row, span in zip(rows, spans, strict=True):
        tall = max(len(lines[name]) for name in row) * _LINE + _PAD
        x = (max(spans) - span) / 2
        for name in row:
            x += _ASIDE / 2 + wide[name] / 2
            boxes[name] = Box(x, y + tall / 2, wide[name], tall, lines[name])
            x += _ASIDE / 2 + wide[name] / 2
        y += tall + _ABOVE
    return boxes, max(spans), y - _ABOVE + _PAD


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    first = box.y - (len(box.lines) - 1) * _LINE / 2 + 4
    texts = "".join(
        f'<text x="{box.x:.0f}" y="{first + place * _LINE:.0f}">{html.escape(line)}</text>'
        for place, line in enumerate(box.lines)
    )
    size = f'width="{box.width:.0f}" height="{box.height:.0f}"'
    return f'<rect x="{left:.0f}" y="{top:.0f}" {size} rx="6"/>{texts}'


def _arrow(start: Box, end: Box, told: str) -> str:
    down, up = start.y + start.height / 2, end.y - end.height / 2 - 1
    middle = (down + up) / 2
    way = f"M{start.x:.0f},{down:.0f} C{start.x:.0f},{middle:.0f} {end.x:.0f},{middle:.0f}"
    text = ""
    if told:
        place = f'x="{(start.x + end.x) / 2 + 8:.0f}" y="{middle:.0f}"'
        text = f'<text class="told" {place}>{html.escape(told)}</text>'
    return f'<path class="way" d="{way} {end.x:.0f},{up:.0f}" marker-end="url(#tip)"/>{text}'


def _plain(text: str) -> str:
    return text.replace("<br>", " ")
