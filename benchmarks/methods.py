"""The plan behind evidence/results.md: every method, unguarded, with its defaults, on real shifts.
Which cells, configs/benchmark/methods.yaml says.
"""

from collections.abc import Sequence
from functools import partial
from statistics import fmean, median

from holdfast.benchmarks import pages
from holdfast.benchmarks.tables import Row
from holdfast.tta.methods import METHODS

_HEADINGS = {
    "iid": "Classes as in the target (`stream=iid`)",
    "prevalence": "85 % of one class (`stream=prevalence`)",
}


def markdown(rows: Sequence[Row]) -> str:
    """A table for each kind of stream: the task's score by method and target, mean ± deviation over
    seeds, and images a second.
    """
    parts = []
    for stream, here in pages.grouped(rows, lambda row: row["stream"]).items():
        titles = list(pages.grouped(here, pages.target_title))
        length = max(row["images"] for row in here)
        own = pages.grouped(here, lambda row: row["method"])
        lines = [_line(name, own[name], titles, length) for name in METHODS if name in own]
        head = ["method", *titles, "mean", "images/s"]
        parts.append(f"### {_HEADINGS.get(stream, stream)}\n\n{pages.table(head, lines)}")
    return "\n\n".join(parts)


def _line(name: str, rows: Sequence[Row], titles: Sequence[str], length: int) -> list[str]:
    of_target = pages.grouped(rows, pages.target_title)
    found = [pages.over_seeds(of_target.get(title, []), "balanced_accuracy") for title in titles]
    means = [each.mean for each in found if each is not None]
    mean = f"{fmean(means):.1f}" if len(means) == len(titles) else "–"
    speed = median(row["images"] / row["seconds"] for row in rows)
    most = max(row["images"] for row in rows)
    # So slow a method is measured on shorter streams.
    note = f" (of {most})" if 2 * most < length else ""
    scores = ["–" if each is None else each.shown("{:.1f}") for each in found]
    return [f"`{name}`{note}", *scores, mean, f"{speed:.0f}"]


#: See ``pages.conclude``.
conclude = partial(pages.conclude, markdown=markdown)
