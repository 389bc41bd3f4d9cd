"""A comparison as a table for a spreadsheet, and as tables for LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.comparing.diagram import critical_difference_diagram
from holdfast.comparing.found import (
    Comparison,
    Entry,
    SeedScores,
    conditions,
    p_text,
    shown,
    spread,
    title,
)
from holdfast.tta.csvfile import csv_lines
from holdfast.tta.style import save_print

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def as_csv(found: Comparison) -> str:
    """A line for each entry over all conditions, then one for each condition."""
    head = [found.by, *found.columns, "runs", "mean", "sd", "rank", "difference", "low", "high"]
    rows: list[list[object]] = [[*head, "better", "worse", "p", "p_holm"]]
    for entry in found.entries:
        numbers = [entry.runs, entry.mean, entry.sd, entry.rank, entry.difference]
        numbers += [*(entry.interval or (None, None)), entry.better, entry.worse]
        rows.append([entry.name, *[""] * len(found.columns), *numbers, entry.p, entry.corrected])
    for condition in conditions(found) if found.columns else ():
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
        p = "--" if entry.corrected is None else f"${p_text(entry.corrected)}$"
        lines.append([escaped(entry.name), mean, f"{entry.rank:.2f}", _latex_difference(entry), p])
    parts = [f"% {title(found)}\n% \\usepackage{{booktabs}}\n{_tabular(head, lines, 1)}"]
    if shown(found):
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
    for condition in conditions(found):
        cells = {name: found.cells[condition, name] for name in names}
        best = _best(found, cells)
        shown = [_bold(spread(cell, "$\\pm$"), name in best) for name, cell in cells.items()]
        lines.append([*map(escaped, condition), *shown])
    head = [escaped(name) for name in (*found.columns, *names)]
    return f"% by condition\n{_tabular(head, lines, len(found.columns))}"


def _best(found: Comparison, cells: Mapping[str, SeedScores | Entry]) -> set[str]:
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
