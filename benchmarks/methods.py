"""The plan behind docs/results.md: every method, unguarded and with its defaults, on real shifts.
Which cells, configs/benchmark/methods.yaml says.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from holdfast.benchmarks import pages
from holdfast.benchmarks.options import BenchmarkConfig
from holdfast.benchmarks.tables import Row
from holdfast.tta.methods import METHODS

_HEADINGS = {
    "iid": "Classes as in the target (`stream=iid`)",
    "prevalence": "85 % of one class (`stream=prevalence`)",
}


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.conclude``."""
    return pages.conclude(config, folder, markdown)


def markdown(rows: Sequence[Row]) -> str:
    """A table for each kind of stream: balanced accuracy by method and target, mean ± deviation
    over seeds, and images a second.
    """
    parts = []
    for stream in dict.fromkeys(row["stream"] for row in rows):
        here = [row for row in rows if row["stream"] == stream]
        titles = list(dict.fromkeys(map(pages.target_title, here)))
        length = max(row["images"] for row in here)
        lines = [
            _line(name, own, titles, length)
            for name in METHODS
            if (own := [row for row in here if row["method"] == name])
        ]
        head = ["method", *titles, "mean", "images/s"]
        parts.append(f"### {_HEADINGS.get(stream, stream)}\n\n{pages.table(head, lines)}")
    return "\n\n".join(parts)


def _line(name: str, rows: Sequence[Row], titles: Sequence[str], length: int) -> list[str]:
    of_target = [[row for row in rows if pages.target_title(row) == title] for title in titles]
    found = [pages.spread(own, "balanced_accuracy") for own in of_target]
    means = [each.mean for each in found if each is not None]
    mean = f"{fmean(means):.1f}" if len(means) == len(titles) else "–"
    speed = median(row["images"] / row["seconds"] for row in rows)
    most = max(row["images"] for row in rows)
    # So slow a method is measured on shorter streams.
    note = f" (of {most})" if 2 * most < length else ""
    scores = ["–" if each is None else each.shown("{:.1f}") for each in found]
    return [f"`{name}`{note}", *scores, mean, f"{speed:.0f}"]
