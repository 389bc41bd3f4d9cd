"""The sections about what the guard saw and did."""

import numpy as np

from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.guard.signals import SIGNALS
from holdfast.callbacks.records import HANDLED
from holdfast.callbacks.report import figures, page
from holdfast.callbacks.report.facts import RunView
from holdfast.callbacks.report.observe import SUMS
from holdfast.callbacks.report.strips import timeline

#: Columns of a trace that are no evidence of a published guard.
_OURS = ("batch", "entropy", "loss", *HANDLED, *(signal.name for signal in SIGNALS))
#: How the sums are called.
_SUMS = {
    "R": "shortfall of R",
    "gain": "moved for nothing",
}


def what_happened(view: RunView) -> list[str]:
    """Alarms, corrections and changes of mode, in sentences."""
    kinds = ("mode", "correction")
    told = [
        event
        for event in view.facts.events
        if event["event"] in kinds or event.get("state") == "ALARM"
    ]
    lines = [f"Batch {event['batch']}: {event['message']}" for event in told[:12]]
    if len(told) > 12:
        lines.append(f"and {len(told) - 12} more, see events.jsonl")
    skipped = sum(bool(row.get("skipped")) for row in view.facts.rows)
    if skipped:
        lines.append(
            f"{skipped} of {len(view.facts.rows)} batches taught the model nothing; events.jsonl "
            "says why."
        )
    return (
        [page.items(lines)] if lines else [page.paragraph("Nothing that called for a correction.")]
    )


def guard(view: RunView) -> list[str]:
    """Verdicts, and the statistics behind them with their thresholds; of an unguarded run only what
    it has.
    """
    rows, events = view.facts.rows, view.facts.events
    if not any(row.get("verdict") for row in rows):
        text = (
            "This run was not guarded, so there are no verdicts, no separation ratio and no drift."
        )
        return [page.paragraph(text), page.grid("two", losses(view))]
    parts = [
        page.figure(
            lambda: timeline(rows, events),
            "What the guard thought of each batch, in which mode it was, under which normalisation "
            "statistics the model worked, and which model's prediction left (of a mixture, "
            "trace.csv has the shares). Of batches too many to draw, the gravest verdict counts.",
            "Verdicts.",
        )
    ]
    levels = view.facts.levels
    if levels is None:
        parts += [*evidence(view), *losses(view)]
        text = "A published guard: it has its own evidence, and neither separation ratio nor drift."
        return [page.paragraph(text), page.grid("two", parts)]
    parts += _compared(view, levels)
    return [page.grid("two", [*parts, *losses(view)])]


def _compared(view: RunView, levels: Levels) -> list[str]:
    """The adapted model against its control: what is watched, and the sums that alarm."""
    rows, events = view.facts.rows, view.facts.events
    ratio, drift = (figures.column(rows, name) for name in ("R", "drift"))
    if not np.isfinite([*ratio, *drift]).any():
        text = (
            "The adapted model was never compared with its control: nothing was adapted, or not "
            "for long enough."
        )
        return [page.paragraph(text)]
    watched = [
        ("ratio R", ratio, 1 - levels.levels["R"], "low"),
        ("drift", drift, levels.levels["drift"], "high"),
    ]
    summed = [
        (_SUMS.get(name, name), figures.column(view.facts.sums, name), levels.limits[name], "high")
        for name in SUMS
    ]
    return [
        page.figure(
            lambda: figures.measures(rows, events, watched),
            "R: class separation of the adapted model over the control's. Drift: total variation "
            "between their predicted marginals. Dashed: beyond it the guard watches closely. "
            "Vertical: corrections; dotted, another mode.",
            "What is watched.",
        ),
        page.figure(
            lambda: figures.measures(rows, events, summed),
            "By how much each signal exceeded its level, summed over looks; an alarm is raised "
            "above the dashed line.",
            "What alarms.",
        ),
    ]


def evidence(view: RunView) -> list[str]:
    """What a published guard measured: its numbers, at most four."""
    rows, known = view.facts.rows, {}
    for name in dict.fromkeys(name for row in rows for name in row if name not in _OURS):
        values = [row.get(name) for row in rows]
        if any(isinstance(v, float) for v in values) and not any(
            isinstance(v, str | tuple) for v in values
        ):
            known[name] = figures.column(rows, name)
    panels = [
        (name.replace("_", " "), values, None, "high") for name, values in list(known.items())[:4]
    ]
    if not panels:
        return []
    return [
        page.figure(
            lambda: figures.measures(rows, view.facts.events, panels),
            "By which it judges.",
            "Evidence.",
        )
    ]


def losses(view: RunView) -> list[str]:
    """Entropy and loss, which every method has."""
    rows = view.facts.rows
    columns = [(name, figures.column(rows, name)) for name in ("entropy", "loss")]
    panels = [(name, values, None, "high") for name, values in columns if np.isfinite(values).any()]
    text = "Mean entropy of the predictions that left, in nats, and the loss of the update."
    return [
        page.figure(
            lambda: figures.measures(rows, view.facts.events, panels), text, "Entropy and loss."
        )
    ]
