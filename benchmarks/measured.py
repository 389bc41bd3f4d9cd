"""The plan behind evidence/measured.md and segmentation.md: methods alone and under our guard,
where they help and where they harm. Which cells, the YAML of the page's name says.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from holdfast.benchmarks import pages
from holdfast.benchmarks.config import OFF
from holdfast.benchmarks.rounds import ranged
from holdfast.benchmarks.tables import METRIC, RUN_STREAM, Row

_SCORES = ("balanced_accuracy", "balanced_accuracy_last", "largest_last")
_HEAD = ("last quarter", "largest class in it", "resets")
#: How pages call what a task watches; other figures go by their names.
_TITLES = {"dice": "mean Dice", "auroc": "macro AUROC", None: "score"}


def markdown(rows: Sequence[Row]) -> str:
    """A table for each figure that tasks watch, with a line a stream and run: mean and range over
    seeds, and the resets of each.
    """
    parts = pages.grouped(rows, lambda row: row.get(METRIC))
    return "\n\n".join(_table(own, _title(metric)) for metric, own in parts.items())


def _title(metric: str | None) -> str:
    return _TITLES.get(metric) or str(metric).replace("_", " ")


def _table(rows: Sequence[Row], score: str) -> str:
    lines = []
    for here in pages.grouped(rows, _point).values():
        for run, own in pages.grouped(here, _run).items():
            scores = [
                _ranged([row[name] for row in own if row[name] is not None]) for name in _SCORES
            ]
            resets = ", ".join(str(row["resets"]) for row in own)
            lines.append([_stream(own[0]), run, *scores, resets])
    head = ("stream", "run", score, *_HEAD)
    return pages.table(head, lines, texts=len(head))


def _point(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in RUN_STREAM if name != "seed")


def _stream(row: Row) -> str:
    network = "" if row["network"] == "compact" else f", {row['network']} source"
    return f"{pages.target_title(row)}{network}, {row['stream']}, {row['images']} images"


def _run(row: Row) -> str:
    if row["lr"] is None:
        return pages.method_title(row["method"])
    guard = "off" if row["policy"] == OFF else "on"
    return f"{row['method']}, {row['optimizer']} {row['lr']:g}, {guard}"


def _ranged(values: Sequence[float]) -> str:
    return ranged(values, "{:.1f}", mean=True) if values else "–"


#: See ``pages.conclude``.
conclude = partial(pages.conclude, markdown=markdown)
