"""The seven figures of a guard, from the rows of the benchmark; pure.

In a cell the *better* is the larger of source's and control's score. *Harm*: in the last quarter of
the stream the unguarded method is more than 3 points below the better. *Gain*: over the whole
stream it is more than 1 point above.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.tables import CELL_KEYS, NORMALIZATIONS, STREAM_KEYS, Row, key_of

#: The guard that is ours; every other policy is a published one.
OURS = "on"

#: How a table shows the seven: heading, goal, format.
_FIGURES = {
    "detected_in_time": ("detected in time", "≥ 95 %", "{:.1%}"),
    "false_reset_rate": ("false resets", "≤ 2 %", "{:.1%}"),
    "below_rate": ("below", "≤ 1 %", "{:.1%}"),
    "worst_regret": ("worst regret", "≤ 2", "{:.1f}"),
    "kept_gain": ("kept gain", "≥ 98 %", "{:.1%}"),
    "normalization_regret": ("normalisation regret", "≤ 1.5", "{:.2f}"),
    "guard_cost": ("cost", "≤ 10 %", "{:.1%}"),
}
_HARM, _GAIN, _LOSS, _TOLERANCE = 3.0, 1.0, 5.0, 1.0


def summarize(
    results: Sequence[Row], references: Sequence[Row], costs: Mapping[str, float]
) -> dict[str, Any]:
    """All figures.

    Args:
        results: rows of ``results.csv``.
        references: rows of ``references.csv``; results of streams that have none are left out.
        costs: the guard's time over that of the steps that it watches, by policy.

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
            "guard_cost": costs.get(policy),
        }

    alone = {
        key_of(row, CELL_KEYS): {
            **row,
            "guarded": row["unguarded"],
            "resets": 0,
            "first_alarm_batch": None,
        }
        for row in rows
    }
    return {
        "ours": measured(OURS),
        "policies": {name: measured(name) for name in names},
        "unguarded": figures([*alone.values()]),
    }


def as_table(summary: Mapping[str, Any]) -> str:
    """The seven figures as text, a line a policy under the goals."""
    lines = as_lines(summary)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )


def as_lines(summary: Mapping[str, Any]) -> list[list[str]]:
    """The cells of that table: a heading, the goals, then a line a policy."""
    policies = {"ours": summary["ours"], **summary["policies"], "unguarded": summary["unguarded"]}
    head = ["policy", *(title for title, _, _ in _FIGURES.values()), "cells", "harm", "gain"]
    lines = [head, ["goal", *(goal for _, goal, _ in _FIGURES.values()), "", "", ""]]
    for name, values in policies.items():
        shown = [(values.get(key), form) for key, (_, _, form) in _FIGURES.items()]
        counts = [str(values[key]) for key in ("cells", "harm", "gain")]
        lines.append(
            [
                name,
                *("–" if value is None else form.format(value) for value, form in shown),
                *counts,
            ]
        )
    return lines


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
        - ``kept_gain``: mean over gain cells of guarded gain over unguarded gain.
    """
    harm = [row for row in rows if harmed(row)]
    calm = [row for row in rows if not harmed(row)]
    gain = [row for row in rows if gained(row)]
    regrets = [better(row) - row["guarded"] for row in rows]
    in_time = [_in_time(row) for row in harm]
    avoided = [row["guarded"] >= better(row) - _TOLERANCE for row in harm]
    return {
        "cells": len(rows),
        "harm": len(harm),
        "gain": len(gain),
        "detected_in_time": _mean(in_time),
        "harm_avoided": _mean(avoided),
        "detected_or_avoided": _mean([a or b for a, b in zip(in_time, avoided, strict=True)]),
        "false_reset_rate": _mean([row["resets"] > 0 for row in calm]),
        "below_rate": _mean([regret > _TOLERANCE for regret in regrets]),
        "worst_regret": max(regrets, default=None),
        "mean_regret": _mean(regrets),
        "kept_gain": _mean(
            [(row["guarded"] - better(row)) / (row["unguarded"] - better(row)) for row in gain]
        ),
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
    return row["first_alarm_batch"] is not None and row["loss_before_alarm"] <= _LOSS


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
