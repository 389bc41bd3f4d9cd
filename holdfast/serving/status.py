"""The status page: what the service is, how it stands, and the curves of its last batches."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from holdfast.callbacks.report.figures import column, measures
from holdfast.callbacks.report.page import figure, grid, items, page, table, tiles
from holdfast.callbacks.report.strips import timeline

#: Seconds after which a browser asks again.
REFRESH = 5
#: Batches that a curve needs.
_LEAST = 2
#: Events that are listed.
LISTED = 20
_CURVES = (
    ("R", "R", "low"),
    ("drift", "drift", "high"),
    ("entropy", "entropy", "high"),
)


def status_page(
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    batches: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    levels: Mapping[str, float],
) -> str:
    """The page, which asks for nothing from elsewhere and runs no script.

    Args:
        title: name of the service.
        facts: what it is and does, by name.
        notes: sentences on what to look at.
        batches: rows of the trace, the newest last.
        events: the last ones, in the form of ``events.jsonl``.
        levels: to mark in curves, by the column's name.
    """
    sections = [
        ("The last batches", _curves(batches, events, levels)),
        ("Events", _listed(events)),
        ("How to ask", [table(["request", "what it does"], _REQUESTS, texts=2)]),
    ]
    lead = f"The page renews itself every {REFRESH} seconds."
    return page(title, lead, sections, [tiles(facts), items(notes) if notes else ""])


_REQUESTS = (
    ("POST /predict", "images in, answers out: a form with images, ids and metadata, or a file"),
    ("POST /labels", "labels of images, by their ids, now or days later"),
    ("GET /status", "this page's figures as JSON"),
    ("GET /metrics", "figures for Prometheus"),
    ("GET /health, GET /ready", "for whoever supervises the service"),
    ("GET /openapi.json", "the description of all requests, for programs"),
)


def _curves(
    batches: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    levels: Mapping[str, float],
) -> list[str]:
    """Strips and curves as in a run's report, over the place of a batch among those shown."""
    if len(batches) < _LEAST:
        return []
    first = batches[0]["batch"]
    marked = [{**one, "batch": one["batch"] - first} for one in events if one["batch"] >= first]
    shown = f"batches {batches[0]['batch']} to {batches[-1]['batch']}"
    measured = [(name, column(batches, key), levels.get(key), end) for key, name, end in _CURVES]
    panels = [panel for panel in measured if not np.isnan(panel[1]).all()]
    parts = [figure(partial(timeline, batches, marked), f"In {shown}.", "Who answered.")]
    if panels:
        draw = partial(measures, batches, marked, panels)
        parts.append(figure(draw, f"In {shown}; dashed: the guard's level.", "What is watched."))
    return [grid("two", parts)]


def _listed(events: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (event.get("batch"), event.get("event"), event.get("message"))
        for event in reversed(events[-LISTED:])
    ]
    return [table(["batch", "event", "what happened"], rows, texts=3)] if rows else []
