"""The sections that need labels: accuracy, confusion, calibration, domains and subgroups."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from callbacks.report import figures, page
from callbacks.report.facts import ROWS, View


def accuracy(view: View) -> list[str]:
    """Running balanced accuracy of all models, and the served one's figures by class."""
    if not view.labelled:
        return [
            page.paragraph(
                "No image of this stream has a label, so nothing here says how accurate the predictions are."
            )
        ]
    curves = {name: model.predictions for name, model in view.models.items()}
    own = view.facts.observer.predictions
    if not torch.equal(own, view.served.predictions):
        curves = {**curves, "adapted": own}
    caption = (
        "In a window that slides along the stream, an eighth of it or 200 images long. Source and control learn nothing; "
        "adapted is the model's own answer, served what left."
    )
    events, batches = view.facts.events, len(view.facts.rows)
    drawn = page.figure(
        lambda: figures.accuracy(curves, view.labels, len(view.names), batches, events), caption
    )
    return [page.grid("two", [drawn, per_class(view)])]


def per_class(view: View) -> str:
    """What was served, by class, the least sensitive first."""
    metrics = view.facts.metrics
    area = metrics.get("auroc", {}).get("per_class", {})
    parts = [metrics["sensitivity"], metrics["specificity"], area]
    support = torch.bincount(view.labels[view.labels >= 0], minlength=len(view.names)).tolist()
    rows = [
        [name, n, *(part.get(name) for part in parts)]
        for name, n in zip(view.names, support, strict=True)
    ]
    rows.sort(key=lambda row: (row[2] is None, row[2]))
    head = ["class", "images", "sensitivity", "specificity", "AUROC"]
    cut = (
        [page.paragraph(f"The {ROWS} least sensitive of {len(rows)} classes.")]
        if len(rows) > ROWS
        else []
    )
    return f"<div>{page.table(head, rows[:ROWS])}{''.join(cut)}</div>"


def confusion(view: View) -> list[str]:
    """A confusion matrix a model."""
    if not view.labelled:
        return []
    known = view.labels >= 0
    parts = []
    for name in reversed(view.models):
        said = view.models[name].predictions[known]
        counts = multiclass_confusion_matrix(said, view.labels[known], len(view.names))
        text = f"Balanced accuracy {view.score(name):.1f} %."
        parts.append(
            page.figure(
                partial(figures.confusion, counts, view.names), text, f"{name.capitalize()}."
            )
        )
    return [page.paragraph("Percent of each true class."), page.grid("three", parts)]


def calibration(view: View) -> list[str]:
    """Reliability diagrams."""
    if not view.labelled:
        return []
    known = view.labels >= 0
    drawn = {
        name: (m.confidences[known], (m.predictions == view.labels)[known])
        for name, m in view.models.items()
    }
    text = (
        f"Above the diagonal a model is too modest, below it too sure. Expected calibration error of what was served: "
        f"{view.facts.metrics['ece']:.1f} %. Bins of fewer than {figures.LEAST} images are left out."
    )
    return [page.grid("two", [page.figure(lambda: figures.reliability(drawn), text)])]


def groups(view: View) -> list[str]:
    """A table for the domains, and one for each column that metrics are split by."""
    metrics = view.facts.metrics
    if not view.labelled:
        asked = " and ".join(view.facts.columns) or "domain"
        return [page.paragraph(f"Without labels there is no accuracy by {asked}.")]
    domains = metrics["domains"]
    split = (
        {"domain": (domains, np.array(view.facts.domains, dtype=object))}
        if len(domains) > 1
        else {}
    )
    split |= {
        name: (parts, view.facts.columns[name])
        for name, parts in metrics.get("subgroups", {}).items()
    }
    if not split:
        return [
            page.paragraph(
                "There is one domain, and no subgroups were asked for (data.subgroups=[sex,site])."
            )
        ]
    shown = []
    for name, (parts, values) in split.items():
        shown += [page.heading(f"By {name}"), *by_group(view, parts, values)]
    if "scored" in metrics:
        shown.insert(
            0,
            page.paragraph(
                f"Scored: {metrics['scored']}, each by the mean probabilities of its images."
            ),
        )
    return shown


def by_group(view: View, parts: Mapping[str, Any], values: npt.NDArray[Any]) -> list[str]:
    """A table, the worst first.

    Args:
        view: of the run.
        parts: metrics by the column's value.
        values: (N,) of the column.
    """
    pooled = (
        "scored" in view.facts.metrics
    )  # source and control have no probabilities to take the mean of
    others = [] if pooled else [name for name in reversed(view.models) if name != "served"]
    named = np.array([str(value) or "(unknown)" for value in values.tolist()], dtype=object)
    ranked = sorted(parts, key=lambda value: (parts[value].get("balanced_accuracy", np.inf), value))
    rows = []
    for value in ranked[:ROWS]:
        part, member = parts[value], torch.from_numpy(named == value)
        known = bool((view.labels[member] >= 0).any())
        rows.append(
            [
                *(value, part.get("images", int(member.sum())), part.get("balanced_accuracy")),
                *(view.score(name, member) if known else None for name in others),
                *(part.get("auroc", {}).get("macro"), part.get("ece")),
            ]
        )
    count = "groups" if pooled else "images"
    head = ["", count, "balanced accuracy, served", *others, "AUROC", "calibration error"]
    text = "The worst is marked."
    if len(ranked) > ROWS:
        text = f"The {ROWS} worst of {len(ranked)}; metrics.json has all. {text}"
    return [
        page.table(
            head,
            rows,
            marked=[0] if "balanced_accuracy" in parts[ranked[0]] and len(rows) > 1 else (),
        ),
        page.paragraph(text),
    ]
