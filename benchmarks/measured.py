"""The plan behind evidence/measured.md: methods alone and under our guard, where they help and
where they harm. Which cells, configs/benchmark/measured.yaml says.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.benchmarks import pages
from holdfast.benchmarks.config import OFF, BenchmarkConfig
from holdfast.benchmarks.tables import RUN_STREAM, Row

_SCORES = ("balanced_accuracy", "balanced_accuracy_last", "largest_last")
_HEAD = ("stream", "run", "balanced accuracy", "last quarter", "largest class in it", "resets")


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.conclude``."""
    return pages.conclude(config, folder, markdown)


def markdown(rows: Sequence[Row]) -> str:
    """A line a stream and run: mean and range over seeds, and the resets of each."""
    lines = []
    for here in pages.grouped(rows, _point).values():
        for run, own in pages.grouped(here, _run).items():
            scores = [_ranged([row[name] for row in own]) for name in _SCORES]
            resets = ", ".join(str(row["resets"]) for row in own)
            lines.append([_stream(own[0]), run, *scores, resets])
    return pages.table(_HEAD, lines, texts=len(_HEAD))


def _point(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in RUN_STREAM if name != "seed")


def _stream(row: Row) -> str:
    network = "" if row["network"] == "compact" else f", {row['network']} source"
    return f"{pages.target_title(row)}{network}, {row['stream']}, {row['images']} images"


def _run(row: Row) -> str:
    if row["lr"] is None:
        return pages.title_of(row["method"])
    guard = "off" if row["policy"] == OFF else "on"
    return f"{row['method']}, {row['optimizer']} {row['lr']:g}, {guard}"


def _ranged(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f} ({min(values):.1f}–{max(values):.1f})"
