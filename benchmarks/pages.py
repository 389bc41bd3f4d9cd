"""What the studies of pages share: values over seeds, tables in Markdown, and a page's own part."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.grid import BALANCED
from holdfast.benchmarks.runner import read_rows
from holdfast.benchmarks.summary import target_of
from holdfast.benchmarks.tables import RUNS, Row
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.style import save

#: Before adaptation: the source itself, and the control, which has its weights and the methods'
#: statistics.
REFERENCES = ("source", "norm")
_END = "<!-- end -->"


class Spread(NamedTuple):
    """Mean over seeds, and their standard deviation (None for one seed)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of the values that are there; None without any."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        finite = len(known) > 1 and all(map(math.isfinite, known))
        return cls(fmean(known), stdev(known) if finite else None)

    def shown(self, form: str) -> str:
        """As a table has it."""
        if not math.isfinite(self.mean):
            return "∞"
        mean = form.format(self.mean)
        return mean if self.deviation is None else f"{mean} ± {form.format(self.deviation)}"


def over_seeds(rows: Iterable[Row], measure: str) -> Spread | None:
    """A measure over the seeds of a point."""
    return Spread.of(row[measure] for row in rows)


def shown(rows: Iterable[Row], measure: str, form: str) -> str:
    """The same, as a table has it."""
    found = over_seeds(rows, measure)
    return "–" if found is None else found.shown(form)


def table(head: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table in Markdown, its first columns text."""
    marks = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *lines))


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """The rows by a key, in the order in which keys first occur."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def pivot(
    rows: Sequence[Row],
    head: Sequence[str],
    line: Callable[[Row], tuple[str, ...]],
    column: Callable[[Row], str],
    cell: Callable[[list[Row]], str],
) -> str:
    """Rows as a table in Markdown; lines and columns in the order in which they first occur.

    Args:
        rows: of runs.
        head: headings of the columns that name a line.
        line: the names of a row's line.
        column: the heading of its column.
        cell: what is told of the rows of a line and column, of none where there are none.
    """
    columns = list(grouped(rows, column))
    lines = []
    for names, own in grouped(rows, line).items():
        cells = grouped(own, column)
        lines.append([*names, *(cell(cells.get(name, [])) for name in columns)])
    return table([*head, *columns], lines) if lines else ""


def method_title(method: str) -> str:
    """How tables and pictures call a method: the un-updated network under the methods' statistics
    is the control.
    """
    return "control" if method == "norm" else method


def stream_title(stream: str) -> str:
    """How pages and pictures call a stream."""
    return {BALANCED: "balanced classes", "prevalence": "85 % of one class"}.get(stream, stream)


def target_title(row: Row) -> str:
    """How pages and pictures call what a stream's images are."""
    name = target_of(row)
    return name if row["shift"] == "none" else f"{name}, {row['shift']} {row['severity']}"


def conclude(
    config: BenchmarkConfig,
    folder: Path,
    markdown: Callable[[Sequence[Row]], str],
    draw: Callable[[Sequence[Row]], Mapping[str, Figure]] = lambda rows: {},
) -> tuple[dict[str, Any], str]:
    """``leave`` what a study makes of the runs in a folder.

    Args:
        config: options.
        folder: of the results.
        markdown: makes the page's tables of the rows.
        draw: makes its pictures, by name.
    """
    rows = read_rows(folder, "results", RUNS)
    return leave(config, folder, {"runs": len(rows)}, markdown(rows), draw(rows))


def leave(
    config: BenchmarkConfig,
    folder: Path,
    summary: dict[str, Any],
    text: str,
    pictures: Mapping[str, Figure],
) -> tuple[dict[str, Any], str]:
    """Write ``summary.json``, pictures and, if asked, the page, and return summary and text."""
    entry.write_json(folder / "summary.json", summary)
    for name, picture in pictures.items():
        save(picture, folder / f"{name}.png")
    if config.page is not None:
        page = Path(config.page).expanduser()
        write_page(page, text, f"benchmark.py study={config.study}")
        beside = page.with_suffix("")
        beside.mkdir(exist_ok=True)
        for file in ("results.csv", *(f"{name}.png" for name in pictures)):
            (beside / file).write_bytes((folder / file).read_bytes())
    return summary, text


def write_page(path: Path, text: str, writer: str) -> None:
    """Put the tables between the page's markers, which name their writer, and leave what is around
    them.
    """
    start = f"<!-- written by {writer} -->"
    page = path.read_text() if path.is_file() else f"# Results\n\n{start}\n{_END}\n"
    if page.count(start) != 1 or _END not in page.split(start)[1]:
        raise InputError(f"{path} lacks the lines {start} and {_END}, between which the tables go")
    before, rest = page.split(start)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{start}\n\n{text}\n\n{_END}{rest.split(_END, 1)[1]}")
