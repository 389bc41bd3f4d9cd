"""The sections that need labels: accuracy, confusion, calibration, domains and subgroups."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from holdfast.callbacks.report import figures, page
from holdfast.callbacks.report.facts import ROWS, RunView, gap
from holdfast.callbacks.report.forest import forest
from holdfast.callbacks.trajectory import window_width
from holdfast.tta.intervals import FEW
from holdfast.tta.scores import worst_of


def accuracy(view: RunView) -> list[str]:
    """Running balanced accuracy of all models, and the served one's figures by class."""
    if not view.labelled:
        return [
            page.paragraph(
                "No image of this stream has a label, so nothing here says how accurate the "
                "predictions are."
            )
        ]
    curves = {name: model.predictions for name, model in view.models.items()}
    own = view.facts.observer.predictions
    if not torch.equal(own, view.served.predictions):
        curves = {**curves, "adapted": own}
    width = window_width(len(view.labels))
    caption = (
        f"In a window of {page.counted(width, 'image')} that slides along the stream. Source and "
        "control learn nothing; "
        "adapted is the model's own answer, served what left."
    )
    if view.units.unit == "group":
        caption += " Images are counted here, for a group has no place in the stream."
    events, batches = view.facts.events, len(view.facts.rows)
    drawn = page.figure(
        lambda: figures.accuracy(curves, view.labels, len(view.names), batches, events), caption
    )
    return [page.grid("two", [drawn, per_class(view)])]


def per_class(view: RunView) -> str:
    """What was served, by class, the least sensitive first."""
    metrics, units = view.facts.metrics, view.units
    area = metrics.get("auroc", {}).get("per_class", {})
    ends = metrics.get("intervals", {}).get("sensitivity", {})
    rows = []
    for label, name in enumerate(view.names):
        member = (units.labels == label).numpy()
        count, groups = int(member.sum()), len(np.unique(units.groups[member]))
        rows.append(
            [
                *(name, marked_few(count, groups), metrics["sensitivity"].get(name)),
                between(ends.get(name), groups),
                *(part.get(name) for part in (metrics["specificity"], area)),
            ]
        )
    rows.sort(key=lambda row: (row[2] is None, row[2]))
    head = ["class", f"{units.unit}s", "sensitivity", "95 %", "specificity", "AUROC"]
    notes = few_note(rows[:ROWS], 1)
    if len(rows) > ROWS:
        notes.append(page.paragraph(f"The {ROWS} least sensitive of {len(rows)} classes."))
    return f"<div>{page.table(head, rows[:ROWS])}{''.join(notes)}</div>"


def between(ends: Sequence[float] | None, groups: int) -> str | None:
    """An interval as a table has it; none of a few groups, of which resamples hardly differ."""
    return None if ends is None or groups < FEW else f"{ends[0]:.1f} to {ends[1]:.1f}"


def marked_few(count: int, groups: int) -> str:
    """A number of images or groups, marked where their groups are too few to say much."""
    return f"{count}*" if groups < FEW else str(count)


def few_note(rows: Sequence[Sequence[Any]], *columns: int) -> list[str]:
    """What the mark means, where a row has it."""
    if not any(str(row[column]).endswith("*") for row in rows for column in columns):
        return []
    text = (
        f"* fewer than {FEW} patients or slides: one more or less moves the figure by over "
        f"{100 // FEW} points, "
    )
    text += "and an interval would promise too much."
    return [page.paragraph(text)]


def confusion(view: RunView) -> list[str]:
    """A confusion matrix a model."""
    if not view.labelled:
        return []
    labels = view.units.labels
    known = labels >= 0
    parts = []
    for name in reversed(view.models):
        said = view.scored[name].predictions[known]
        counts = multiclass_confusion_matrix(said, labels[known], len(view.names))
        text = f"Balanced accuracy {view.score(name):.1f} %."
        parts.append(
            page.figure(
                partial(figures.confusion, counts, view.names), text, f"{name.capitalize()}."
            )
        )
    text = f"Percent of the {view.units.unit}s of each true class."
    return [page.paragraph(text), page.grid("three", parts)]


def calibration(view: RunView) -> list[str]:
    """Reliability diagrams."""
    if not view.labelled:
        return []
    unit, labels = view.units.unit, view.units.labels
    known = labels >= 0
    drawn = {
        name: (said.confidences[known], (said.predictions == labels)[known])
        for name, said in view.scored.items()
    }
    text = (
        "Above the diagonal a model is too modest, below it too sure. Expected calibration error "
        "of what was served: "
        f"{view.facts.metrics['ece']:.1f} %. Bins of fewer than {figures.LEAST} {unit}s are "
        "left out."
    )
    return [page.grid("two", [page.figure(lambda: figures.reliability(drawn, unit), text)])]


def groups(view: RunView) -> list[str]:
    """A table for the domains, and one for each column that metrics are split by."""
    metrics = view.facts.metrics
    if not view.labelled:
        asked = " and ".join(view.facts.columns) or "domain"
        return [page.paragraph(f"Without labels there is no accuracy by {asked}.")]
    domains = metrics["domains"]
    split = {"domain": domains} if len(domains) > 1 else {}
    split |= metrics.get("subgroups", {})
    if not split:
        return [
            page.paragraph(
                "There is one domain, and no subgroups were asked for (data.subgroups=[sex,site])."
            )
        ]
    shown = []
    if view.units.unit == "group":
        text = (
            f"Scored: {page.counted(metrics['groups'], 'group')} (patients or slides) of "
            f"{page.counted(metrics['images'], 'image')}, each by the mean probabilities of its "
            "images."
        )
        shown.append(page.paragraph(text))
    if plot := forest(view, split):
        shown.append(page.grid("two", plot))
    for name, parts in split.items():
        shown += [page.heading(f"By {name}"), *by_group(view, parts)]
    return shown


def by_group(view: RunView, parts: Mapping[str, Any]) -> list[str]:
    """A table, values in their own order.

    Args:
        view: of the run.
        parts: metrics by the column's value.
    """
    others = [name for name in reversed(view.models) if name != "served"]
    ranked = sorted(parts, key=lambda value: parts[value].get("balanced_accuracy", np.inf))
    listed = [value for value in parts if value in set(ranked[:ROWS])]
    rows = []
    for value in listed:
        part = parts[value]
        against = part.get("against", {})
        ends = part.get("intervals", {}).get("balanced_accuracy")
        rows.append(
            [
                *(value, *_counts(view, part), part.get("balanced_accuracy")),
                between(ends, part["groups"]),
                *(against.get(name, {}).get("balanced_accuracy") for name in others),
                *([gap(part, "control")] if "control" in others else []),
                *(part.get("auroc", {}).get("macro"), part.get("ece")),
            ]
        )
    counts = ["images", "groups"] if _both(view) else ["images"]
    held = ["against control (95 %)"] if "control" in others else []
    head = ["", *counts, "balanced accuracy, served", "95 %", *others, *held]
    head += ["AUROC", "calibration error"]
    worst = worst_of(parts) if len(rows) > 1 else None
    text = "" if worst is None else "The worst is marked."
    if len(ranked) > ROWS:
        text = f"The {ROWS} worst of {len(ranked)}; metrics.json has all. {text}"
    marked = [] if worst is None else [listed.index(worst["group"])]
    notes = [page.paragraph(text)] if text else []
    return [page.table(head, rows, marked=marked), *notes, *few_note(rows, 1, len(counts))]


def _both(view: RunView) -> bool:
    """Whether images and groups are different numbers."""
    metrics = view.facts.metrics
    return bool(metrics["level"] == "group" or metrics["groups"] != metrics["images"])


def _counts(view: RunView, part: Mapping[str, Any]) -> list[str]:
    if not _both(view):
        return [marked_few(part["images"], part["groups"])]
    return [str(part["images"]), marked_few(part["groups"], part["groups"])]
