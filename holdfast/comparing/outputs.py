"""A comparison as text, as a table for a spreadsheet, and as tables for LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.benchmarks.summary import aligned
from holdfast.comparing.comparison import Cell, Comparison, Condition, Entry, counted
from holdfast.comparing.diagram import critical_difference_diagram
from holdfast.tta.csvfile import csv_lines
from holdfast.tta.style import save_print

#: Conditions and entries that a terminal, and a page in LaTeX, shows one by one.
_MOST, _WIDEST = 40, 8
#: A p below which only that is said.
_LEAST_P = 0.001
_NONE = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def as_text(found: Comparison) -> str:
    """All that a reader at a terminal needs."""
    head = [found.by, "runs", "mean", "rank", "difference [95 %]", "better", "p", "p (Holm)"]
    lines = [head, *(_line(entry, found.pairs) for entry in found.entries)]
    parts = [f"{_title(found)}\n\n{aligned(lines)}"]
    if _shown(found):
        parts.append(aligned(_by_condition(found)))
    if found.friedman is not None and found.critical is not None:
        statistic, p = found.friedman
        parts.append(
            f"Friedman over {len(found.entries)} and {found.pairs} pairs: χ² = {statistic:.2f}, "
            f"p {_equal(p)}; ranks differ from {found.critical:.2f} on (Nemenyi, 5 %)."
        )
    return "\n\n".join([*parts, *found.notes])


def _title(found: Comparison) -> str:
    better = "less is better" if found.lower else "more is better"
    return (
        f"{found.metric} ({better}), mean ± sd over seeds, of "
        f"{counted(found.conditions, 'condition')}, "
        f"{counted(found.seeds, 'seed')} and {counted(found.pairs, 'pair')}; differences are "
        f"medians, from {found.baseline}"
    )


def _line(entry: Entry, pairs: int) -> list[str]:
    interval = "" if entry.interval is None else " [{:+.2f}, {:+.2f}]".format(*entry.interval)
    return [
        entry.name,
        str(entry.runs),
        spread(entry),
        f"{entry.rank:.2f}",
        _NONE if entry.difference is None else f"{entry.difference:+.2f}{interval}",
        _NONE if entry.better is None else f"{entry.better}/{pairs}",
        _p(entry.p),
        _p(entry.corrected),
    ]


def spread(cell: Cell | Entry, sign: str = "±") -> str:
    """Mean and deviation; a single run has none."""
    return f"{cell.mean:.2f}" if cell.sd is None else f"{cell.mean:.2f} {sign} {cell.sd:.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"


def _equal(value: float) -> str:
    text = _p(value)
    return text if text.startswith("<") else f"= {text}"


def _shown(found: Comparison) -> bool:
    """Whether conditions are shown one by one; the table for spreadsheets always does it."""
    few = found.conditions <= _MOST and len(found.entries) <= _WIDEST
    return bool(found.columns) and few


def _by_condition(found: Comparison) -> list[list[str]]:
    names = [entry.name for entry in found.entries]
    lines = [[*found.columns, *names]]
    for condition in _conditions(found):
        lines.append([*condition, *(spread(found.cells[condition, name]) for name in names)])
    return lines


def _conditions(found: Comparison) -> list[Condition]:
    return list(dict.fromkeys(condition for condition, _ in found.cells))


def as_csv(found: Comparison) -> str:
    """A line for each entry over all conditions, then one for each condition."""
    head = [found.by, *found.columns, "runs", "mean", "sd", "rank", "difference", "low", "high"]
    rows: list[list[object]] = [[*head, "better", "worse", "p", "p_holm"]]
    for entry in found.entries:
        numbers = [entry.runs, entry.mean, entry.sd, entry.rank, entry.difference]
        numbers += [*(entry.interval or (None, None)), entry.better, entry.worse]
        rows.append([entry.name, *[""] * len(found.columns), *numbers, entry.p, entry.corrected])
    for condition in _conditions(found) if found.columns else ():
        for entry in found.entries:
            cell = found.cells[condition, entry.name]
            rows.append([entry.name, *condition, cell.runs, cell.mean, cell.sd, *[""] * 8])
    return csv_lines([[_written(cell) for cell in row] for row in rows])


def _written(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def escaped(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    >>> print(escaped("norm_ema & 85 %"))
    norm\_ema \& 85 \%
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(found: Comparison) -> str:
    """Tables for ``booktabs``: over all conditions, and by condition; the best mean is bold."""
    best = _best(found, {entry.name: entry for entry in found.entries})
    head = [found.by, "mean $\\pm$ sd", "rank", "difference", "$p$ (Holm)"]
    lines = []
    for entry in found.entries:
        mean = _bold(spread(entry, "$\\pm$"), entry.name in best)
        p = "--" if entry.corrected is None else f"${_p(entry.corrected)}$"
        lines.append([escaped(entry.name), mean, f"{entry.rank:.2f}", _latex_difference(entry), p])
    parts = [f"% {_title(found)}\n% \\usepackage{{booktabs}}\n{_tabular(head, lines, 1)}"]
    if _shown(found):
        parts.append(_latex_by_condition(found))
    return "\n".join(parts)


def _latex_difference(entry: Entry) -> str:
    if entry.difference is None:
        return "--"
    shown = f"${entry.difference:.2f}$"
    if entry.interval is None:
        return shown
    low, high = entry.interval
    return f"{shown} [${low:.2f}$, ${high:.2f}$]"


def _latex_by_condition(found: Comparison) -> str:
    names = [entry.name for entry in found.entries]
    lines = []
    for condition in _conditions(found):
        cells = {name: found.cells[condition, name] for name in names}
        best = _best(found, cells)
        shown = [_bold(spread(cell, "$\\pm$"), name in best) for name, cell in cells.items()]
        lines.append([*map(escaped, condition), *shown])
    head = [escaped(name) for name in (*found.columns, *names)]
    return f"% by condition\n{_tabular(head, lines, len(found.columns))}"


def _best(found: Comparison, cells: Mapping[str, Cell | Entry]) -> set[str]:
    """Names of the best mean, as it is shown: several where they look alike."""
    shown = {name: round(cell.mean, 2) for name, cell in cells.items()}
    best = min(shown.values()) if found.lower else max(shown.values())
    return {name for name, mean in shown.items() if mean == best}


def _bold(text: str, bold: bool) -> str:
    return f"\\textbf{{{text}}}" if bold else text


def _tabular(head: Sequence[str], lines: Sequence[Sequence[str]], texts: int) -> str:
    body = [f"{' & '.join(line)} \\\\" for line in lines]
    columns = "l" * texts + "r" * (len(head) - texts)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            f"{' & '.join(head)} \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}\n",
        ]
    )


def write(found: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.csv``, ``comparison.tex``, and where there is one, the diagram.

    Args:
        found: the comparison.
        folder: exists; what an earlier comparison left there is replaced.

    Returns:
        What was written.
    """
    paths = [folder / "comparison.csv", folder / "comparison.tex"]
    paths[0].write_text(as_csv(found), encoding="utf-8", newline="")
    paths[1].write_text(as_latex(found), encoding="utf-8")
    stem = folder / "critical_difference"
    for kind in ("pdf", "png"):
        stem.with_suffix(f".{kind}").unlink(missing_ok=True)
    if found.critical is not None:
        paths += save_print(critical_difference_diagram(found), stem)
    return paths
