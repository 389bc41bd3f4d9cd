"""What a verdict leads to: memory, held states and the ladder, in pure functions that live guard
and replay share.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from callbacks.corrections import CORRECTIONS
from callbacks.verdict import Decision, Memory, State, Statistics, Thresholds, Verdict, decide

#: Statistics whose column in a trace has another name.
_COLUMNS = {"separation": "J", "ratio": "R"}
#: By column, the field of ``Statistics`` that it holds.
STATISTICS: Mapping[str, str] = {
    _COLUMNS.get(field.name, field.name): field.name for field in fields(Statistics)
}


def judge(
    statistics: Statistics,
    thresholds: Thresholds,
    memory: Memory,
    state: State,
    choice: str | None = None,
) -> Decision:
    """The decision on a batch; where nothing new is known, the last verdict stands.

    Args:
        statistics: what was measured.
        thresholds: where trust ends.
        memory: of the decision before.
        state: of the verdict before.
        choice: the statistics in use; None where there is no choice.
    """
    if choice in (
        None,
        "control",
    ):  # under label skew its own marginal may be wrong, and moving away from it right
        thresholds = replace(thresholds, alarm_excess=None)
    if memory.choice not in (None, choice):
        memory = forgotten(memory)
    decision = decide(statistics, thresholds, replace(memory, choice=choice))
    verdict = decision.verdict
    if verdict.reason == "statistics":
        return replace(decision, memory=forgotten(decision.memory))
    if statistics.ratio is None and verdict.state not in ("ALARM", "FROZEN"):
        if (state, verdict.state) == ("WATCH", "OK"):
            verdict = Verdict(
                "WATCH", "held", "The classes could not be compared, so the watch goes on."
            )
        else:
            verdict = Verdict("OK" if state == "ALARM" else state, verdict.reason, verdict.message)
    return replace(decision, verdict=verdict)


def rung_of(
    alarmed: Sequence[int], batch: int, ladder: Sequence[str], window: int, reason: str
) -> str:
    """The correction of an alarm: the further up, the more alarms the last ``window`` batches had.

    Where the adapted model is lost, values not finite or a class gone, the rungs that would keep
    some of it are skipped; but not on to the one that is final.

    Args:
        alarmed: numbers of the batches with earlier alarms that the ladder answered.
        batch: number of this one.
        ladder: names of corrections; the last repeats.
        window: batches over which alarms are counted.
        reason: of the verdict.
    """
    recent = sum(earlier > batch - window for earlier in alarmed)
    left = ladder[min(recent, len(ladder) - 1) :]
    if reason in ("non_finite", "vanished_class") and not CORRECTIONS[left[0]].resets:
        return next(
            (rung for rung in left if CORRECTIONS[rung].resets and not CORRECTIONS[rung].final),
            "reset",
        )
    return left[0]


def corrected(rung: str, memory: Memory) -> Memory:
    """The memory after a correction: it starts afresh, at half the level, frozen where the
    correction is final.
    """
    return replace(forgotten(memory), frozen=CORRECTIONS[rung].final)


def forgotten(memory: Memory) -> Memory:
    """The memory when adapted model or control becomes another: what was measured says nothing of
    this one.
    """
    return Memory(spent=memory.spent + 1, frozen=memory.frozen)


def trace_of(statistics: Statistics) -> dict[str, Any]:
    """The statistics by their columns in a trace."""
    return {column: getattr(statistics, name) for column, name in STATISTICS.items()}


def statistics_of(row: Mapping[str, str]) -> Statistics:
    """The statistics of a row of ``trace.csv``, exactly as they were judged.

    Raises:
        KeyError: the row lacks a column.
        ValueError: a cell holds something else.
    """
    values: dict[str, Any] = {}
    for column, name in STATISTICS.items():
        cell = row[column]
        if name == "vanished":
            values[name] = tuple(json.loads(cell)) if cell else ()
        elif name == "non_finite":
            values[name] = bool(int(cell or 0))
        elif name == "stands_for":
            values[name] = int(cell)
        else:
            values[name] = float(cell) if cell else None
    return Statistics(**values)


def cell_of(value: Any) -> Any:
    """A value as ``trace.csv`` holds it: floats in full, flags as 0 or 1, names as a JSON list."""
    if isinstance(value, bool):
        return int(value)
    return (json.dumps(value) if value else "") if isinstance(value, tuple) else value
