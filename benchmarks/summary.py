"""The figures of a guard, from the rows of the benchmark; pure.

In a cell the *better* is the larger of source's and control's score. *Harm*: in the last quarter of
the stream the unguarded method is more than 3 points below the better. *Gain*: over the whole
stream it is more than 1 point above.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from holdfast.benchmarks.tables import CELL_KEYS, NORMALIZATIONS, STREAM_KEYS, Row, key_of

#: The guard that is ours; every other policy is a published one.
OURS = "on"

#: How a table shows the figures: heading, format.
_FIGURES = {
    "mean_regret": ("mean regret", "{:.1f}"),
    "worst_regret": ("worst", "{:.1f}"),
    "below_rate": ("below", "{:.1%}"),
    "harm_avoided": ("harm averted", "{:.1%}"),
    "detected_in_time": ("detected in time", "{:.1%}"),
    "false_reset_rate": ("false resets", "{:.1%}"),
    "median_kept_gain": ("kept gain, median", "{:.0%}"),
    "kept_gain": ("mean", "{:.0%}"),
    "normalization_regret": ("normalisation regret", "{:.2f}"),
    "cells": ("cells", "{}"),
    "harm": ("harm", "{}"),
    "gain": ("gain", "{}"),
}
#: Points around the better within which nothing is lost.
TOLERANCE = 1.0
_HARM, _GAIN, _LOSS = 3.0, 1.0, 5.0


def summarize(results: Sequence[Row], references: Sequence[Row]) -> dict[str, Any]:
    """All figures.

    Args:
        results: rows of ``results.csv``.
        references: rows of ``references.csv``; results of streams that have none are left out.

    Returns:
        ``ours``, ``policies`` by name, and ``unguarded`` (each method left alone, measured by the
        same figures); a figure without a cell that it could be taken from is None.
    """
    rows = with_references(results, references)
    regret = normalization_regret(references)
    names = sorted({row["policy"] for row in rows} - {OURS})

    def measured(policy: str) -> dict[str, Any]:
        own = figures([row for row in rows if row["policy"] == policy])
        return {
            **own,
            "normalization_regret": regret if policy == OURS else None,
        }

    return {
        "ours": measured(OURS),
        "policies": {name: measured(name) for name in names},
        "unguarded": figures(alone(rows)),
    }


def alone(rows: Iterable[Row]) -> list[Row]:
    """Each cell once, as if its method left alone were what a guard made of it."""
    unguarded = {"resets": 0, "first_alarm_batch": None}
    cells = {key_of(row, CELL_KEYS): row for row in rows}
    return [{**row, "guarded": row["unguarded"], **unguarded} for row in cells.values()]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells as text, their columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )


def as_lines(
    named: Mapping[str, Mapping[str, Any]], head: str
) -> tuple[list[str], list[list[str]]]:
    """The figures as a table: its heading, and a line each.

    Args:
        named: figures by name.
        head: what the names are.
    """
    shown = {key: title for key, title in _FIGURES.items() if any(key in f for f in named.values())}
    lines = []
    for name, values in named.items():
        cells = [(values.get(key), form) for key, (_, form) in shown.items()]
        lines.append([name, *("–" if v is None else form.format(v) for v, form in cells)])
    return [head, *(title for title, _ in shown.values())], lines


def policies_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of every policy, ours first, the unguarded methods last."""
    return {"ours": summary["ours"], **summary["policies"], "unguarded": summary["unguarded"]}


def with_references(results: Iterable[Row], references: Iterable[Row]) -> list[Row]:
    """Each result with the last quarters of its stream's source and control."""
    known = {key_of(row, STREAM_KEYS): row for row in references}
    lasts = ("source_last", "control_last")
    pairs = [(row, known.get(key_of(row, STREAM_KEYS))) for row in results]
    return [
        {**row, **{name: stream[name] for name in lasts}}
        for row, stream in pairs
        if stream is not None
    ]


def policy_title(policy: str) -> str:
    """How a table calls a guard."""
    return {OURS: "ours"}.get(policy, policy.replace("_", " "))


def target_of(row: Row) -> str:
    """How tables call a target."""
    return row["data"] if row["data"] == row["target"] else f"{row['data']} {row['target']}"


def better(row: Row, last: bool = False) -> float:
    """The better of source and control, over the stream or its last quarter."""
    end = "_last" if last else ""
    return max(row[f"source{end}"], row[f"control{end}"])


def harmed(row: Row) -> bool:
    """Whether the unguarded method ends in harm."""
    return bool(row["unguarded_last"] < better(row, last=True) - _HARM)


def gained(row: Row) -> bool:
    """Whether the unguarded method is worth its while."""
    return bool(row["unguarded"] > better(row) + _GAIN)


def regret(row: Row) -> float:
    """Points that the guarded run lies below the better."""
    return float(better(row) - row["guarded"])


def averted(row: Row) -> bool:
    """Whether the guarded run ends no more than a point below the better."""
    return regret(row) <= TOLERANCE


def kept(row: Row) -> float:
    """Guarded over unguarded gain, in a cell that gains."""
    return float(regret(row) / (better(row) - row["unguarded"]))


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of one policy that are taken from cells.

    Args:
        rows: its rows, from ``with_references``.

    Returns:
        Counts (``cells``, ``harm``, ``gain``) and

        - ``detected_in_time``: share of harm cells with an alarm before the running loss of what
          was served exceeds 5 points;
        - ``harm_avoided``: share of harm cells that end within a point of the better, alarm or no
          alarm;
        - ``detected_or_avoided``: share of harm cells with either;
        - ``false_reset_rate``: share of the other cells with any reset;
        - ``below_rate``: share of cells that end more than a point below the better;
        - ``worst_regret``, ``mean_regret``: of the better minus the guarded score, in points;
        - ``kept_gain``, ``median_kept_gain``: over gain cells, of guarded over unguarded gain.
    """
    harm = [row for row in rows if harmed(row)]
    calm = [row for row in rows if not harmed(row)]
    gain = [row for row in rows if gained(row)]
    regrets = [regret(row) for row in rows]
    in_time = [_in_time(row) for row in harm]
    avoided = [averted(row) for row in harm]
    gains = [kept(row) for row in gain]
    return {
        "cells": len(rows),
        "harm": len(harm),
        "gain": len(gain),
        "detected_in_time": _mean(in_time),
        "harm_avoided": _mean(avoided),
        "detected_or_avoided": _mean([a or b for a, b in zip(in_time, avoided, strict=True)]),
        "false_reset_rate": _mean([row["resets"] > 0 for row in calm]),
        "below_rate": _mean([regret > TOLERANCE for regret in regrets]),
        "worst_regret": max(regrets, default=None),
        "mean_regret": _mean(regrets),
        "kept_gain": _mean(gains),
        "median_kept_gain": median(gains) if gains else None,
    }


def normalization_regret(references: Sequence[Row]) -> float | None:
    """Mean over streams of the best fixed normalisation minus the one chosen without labels, no
    updates, in points.
    """
    return _mean(
        [
            max(row[name] for name in NORMALIZATIONS) - row["auto"]
            for row in references
            if row["auto"] is not None
        ]
    )


def _in_time(row: Row) -> bool:
    loss = row["loss_before_alarm"]
    return row["first_alarm_batch"] is not None and loss is not None and loss <= _LOSS


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
