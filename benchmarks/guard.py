"""The study of guards: what ``benchmark.py`` makes of its rows by default."""

from pathlib import Path
from typing import Any

from holdfast.benchmarks.goals import as_table, grouped, judged
from holdfast.benchmarks.options import BenchmarkConfig
from holdfast.benchmarks.report import benchmark_report, heat_map, regret_against_gain
from holdfast.benchmarks.runner import read_rows
from holdfast.benchmarks.summary import OURS, alone, summarize, with_references
from holdfast.tta import entry
from holdfast.tta.style import save


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """Write ``summary.json``, pictures and, if asked, the report of the rows in a folder.

    Returns:
        The content of ``summary.json``, and its figures as text.
    """
    results, references = (read_rows(folder, name) for name in ("results", "references"))
    costs = entry.read_json(folder / "cost.json") if (folder / "cost.json").is_file() else {}
    rows = with_references(results, references)
    ours = [row for row in rows if row["policy"] == OURS]
    summary = {
        **summarize(results, references, costs),
        "goals": judged(ours),
        "groups": grouped(ours, alone(ours)),
    }
    entry.write_json(folder / "summary.json", summary)
    if rows:
        save(regret_against_gain(rows), folder / "regret.png")
    if ours:
        save(heat_map(rows), folder / "cells.png")
    if config.report:
        page = benchmark_report(config, summary, rows)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return summary, as_table(summary)
