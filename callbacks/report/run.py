"""The report of a run of ``adapt.py``: what the stream did to the model, and what the guard did
about it, on one page.
"""

import platform
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch

from holdfast.callbacks.report import figures, guarded, page, scored
from holdfast.callbacks.report.facts import ROWS, RunFacts, RunView, gap
from holdfast.callbacks.report.observe import moments_shown
from holdfast.callbacks.report.plane import alone, clusters, discriminant_plane
from holdfast.callbacks.report.unupdated import Disagreement
from holdfast.callbacks.report.worth import answer
from holdfast.callbacks.trajectory import window_width

_PACKAGES = ("holdfast", "torch", "lightning", "monai", "torchmetrics", "numpy")


def run_report(facts: RunFacts) -> str:
    """The page, as HTML."""
    view = RunView(facts)
    numbers = {"image": len(view.labels), "batch": len(facts.rows)}
    numbers |= {"alarm": facts.metrics["alarms"], "reset": facts.metrics["resets"]}
    lead = ", ".join(page.counted(number, thing) for thing, number in numbers.items()) + "."
    if facts.parts > 1:
        lead += f" {facts.parts} processes shared each batch."
    sections = [
        ("What happened", guarded.what_happened(view)),
        ("Guard", guarded.guard(view)),
        ("Accuracy over the stream", scored.accuracy(view)),
        ("What was predicted", predicted(view)),
        ("Features", features(view)),
        ("Confusion", scored.confusion(view)),
        ("Calibration", scored.calibration(view)),
        ("Domains and subgroups", scored.groups(view)),
        ("Largest changes of mind", changes(view)),
        ("Settings", settings(view)),
    ]
    worth = answer(facts.metrics, facts.about["method"]).html()
    return page.page(facts.name, lead, sections, head=[worth, tiles(view)])


def tiles(view: RunView) -> str:
    """The numbers to read first."""
    metrics = view.facts.metrics
    shown: dict[str, str] = {}
    if view.labelled:
        if metrics["level"] == "group":
            shown["scored, by their images' mean"] = page.counted(metrics["groups"], "group")
        ends = scored.between(
            metrics.get("intervals", {}).get("balanced_accuracy"), metrics["groups"]
        )
        named = "balanced accuracy, served" + ("" if ends is None else f" (95 %: {ends})")
        shown[named] = f"{metrics['balanced_accuracy']:.1f} %"
        for name in reversed(view.models):
            if name != "served":
                shown[f"balanced accuracy, {name}"] = f"{view.score(name):.1f} %"
        held = gap(metrics, "control")
        if held is not None:
            shown["served against control (95 %)"] = held
        if "last_quarter" in metrics:
            shown["served, last quarter"] = f"{metrics['last_quarter']:.1f} %"
    return page.tiles({**shown, "images a second": f"{metrics['images_per_second']:,}"})


def predicted(view: RunView) -> list[str]:
    """Predicted marginals over the stream, and on the whole."""
    panels = {"served": view.served.predictions}
    if "control" in view.models:
        panels["control"] = view.models["control"].predictions
    if view.labelled:
        panels["true labels"] = view.labels
    batches = len(view.facts.rows)
    width = page.counted(window_width(len(view.labels)), "image")
    caption = (
        f"Share of each class among the images, in a sliding window of {width}. Where served leans "
        "to fewer classes than the control, look closely."
    )
    drawn = page.figure(
        lambda: figures.marginals(panels, view.colors, len(view.names), batches), caption
    )
    shares = {
        name: torch.bincount(c[c >= 0], minlength=len(view.names)) for name, c in panels.items()
    }
    order = shares["served"].argsort(descending=True, stable=True).tolist()[:ROWS]
    rows = [[view.names[i], *(float(100 * n[i] / n.sum()) for n in shares.values())] for i in order]
    return [
        view.legend(),
        page.grid("two", [drawn, page.table(["class", *(f"{name}, %" for name in shares)], rows)]),
    ]


def features(view: RunView) -> list[str]:
    """What the adapted model's features looked like at three moments."""
    source, shown = view.facts.checkpoint, moments_shown(view.facts.observer)
    known = source.feature_mean, source.feature_var, source.prevalence
    plane = discriminant_plane(*known, view.colors)
    drawn = clusters([window for _, window in shown], plane, view.colors, view.labelled)
    parts = [
        page.figure(
            partial(alone, draw),
            f"{len(window.labels)} images up to batch {window.batch}.",
            f"{name.capitalize()}.",
        )
        for draw, (name, window) in zip(drawn, shown, strict=True)
    ]
    by = "true" if view.labelled else "predicted"
    text = (
        "The adapted model's features in the plane that tells the source's classes apart best (two "
        f"discriminant axes, {plane.told:.0%} of what does), coloured by {by} class. Crosses are "
        "their means, lines the borders between them; both stay. What lies beyond is on the rim. "
        "Classes that meet on one side of a border get one answer."
    )
    return [page.paragraph(text), view.legend(), page.grid("three", parts)]


def changes(view: RunView) -> list[str]:
    """Images on which adaptation made the largest difference."""
    if view.facts.unupdated is None:
        return []
    found = view.facts.unupdated.changes
    if not found:
        return [page.paragraph("What left is what the control says, image by image.")]
    text = (
        "Images of which the control, which learned nothing, says another class than what was "
        "served; the surest first. "
    )
    text += (
        "Each is shown from its darkest to its brightest pixel, and of a volume the middle slice."
    )
    return [page.paragraph(text), page.grid("pictures", [_shown(view, change) for change in found])]


def _shown(view: RunView, change: Disagreement) -> str:
    (before, weak), (after, strong) = change.control, change.served
    text = f"{view.names[before]} ({weak:.0%}) became {view.names[after]} ({strong:.0%})"
    text += f"; it is {view.names[change.label]}" if change.label >= 0 else ""
    return page.picture(
        change.image.numpy(),
        page.shortened(change.id, 40),
        f"{text}. {change.domain}, batch {change.batch}",
    )


def settings(view: RunView) -> list[str]:
    """What it takes to have every number again."""
    source, versions = view.facts.checkpoint, []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    rows = [
        *view.facts.about.items(),
        ("source, SHA-256 of its weights", source.hash),
        (
            "source, balanced accuracy on its own test images",
            source.metrics.get("balanced_accuracy"),
        ),
        ("versions", f"{', '.join(versions)}, Python {platform.python_version()}"),
        ("written", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]
    parts = [
        page.table(["", ""], rows, texts=2),
        page.details("Configuration, resolved", view.facts.settings),
    ]
    if view.facts.unupdated is not None:
        parts.append(
            page.paragraph(
                "Source and control were asked after the run, in a second pass over the stream "
                "without updates: the control "
                "under the statistics that the guard had chosen at each batch, or the method's own "
                "where nobody chose."
            )
        )
    return parts
