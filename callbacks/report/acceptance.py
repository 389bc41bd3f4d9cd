"""The page of ``adapt.py accept``: the advice, and the intervals it rests upon."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from holdfast.callbacks.report import page
from holdfast.callbacks.report.page import ADAPTED, CONTROL, LINE, SERVED, SOFT, SOURCE
from holdfast.callbacks.report.reporter import shareable
from holdfast.callbacks.report.scored import between
from holdfast.tta.acceptance import GUARDED, MARGIN, UNGUARDED, Acceptance
from holdfast.tta.intervals import FEW

_TITLES = {
    "adapt": "Deploy the guarded method",
    "not settled": "Not settled: label more images",
    "do not adapt": "Do not adapt",
}
_COLORS = {"source": SOURCE, UNGUARDED: ADAPTED, GUARDED: SERVED}
_WIDTH = 6.4  # inches


def acceptance_page(found: Acceptance, name: str, settings: Mapping[str, Any]) -> str:
    """The whole file.

    Args:
        found: what was found.
        name: of the run.
        settings: the configuration, ``auto`` resolved.
    """
    facts = {f"labelled {found.unit}s": str(found.labels), "patients or slides": str(found.groups)}
    if found.more is not None:
        facts["labels more, about"] = str(found.more)
    caption = (
        "Points of balanced accuracy over the source, with 95 % intervals under resampling of "
        f"patients or slides; the band is {MARGIN:g} point, which nobody would notice."
    )
    meant = (
        "Source and statistics without updates learn nothing: batch are each batch's own, "
        "corrected ones allow for the mix of classes. Unguarded is the method as published, "
        "guarded as adapt.py runs it."
    )
    text = OmegaConf.to_yaml(OmegaConf.create(shareable(settings)))
    sections = [
        (
            "What each is worth",
            [_table(found), page.paragraph(meant), page.figure(lambda: gains(found), caption)],
        ),
        ("Settings", [page.details("The configuration", text)]),
    ]
    head = [page.tiles(facts), page.paragraph(found.reason)]
    notes = [*found.notes]
    if found.groups < FEW:
        notes.append(
            f"Labels come from {found.groups} patients or slides: from {FEW} on, intervals by "
            "resampling them can be relied on."
        )
    head += [page.items(notes)] if notes else []
    return page.page(
        f"{_TITLES[found.advice]}: {name}", "Acceptance before go-live", sections, head
    )


def gains(found: Acceptance) -> Figure:
    """The gain of each way of serving over the source, with its interval."""
    shown = {name: way for name, way in found.ways.items() if way.gain_interval is not None}
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-MARGIN, MARGIN, color=LINE, linewidth=0)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for height, (name, way) in enumerate(reversed(shown.items())):
        color = _COLORS.get(name, CONTROL)
        axes.plot(way.gain_interval or [], [height, height], color=color, linewidth=2.2)
        axes.plot([way.gain], [height], "o", color=color, markersize=6)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("gain over the source, points")
    return figure


def _table(found: Acceptance) -> str:
    rows = []
    for name, way in found.ways.items():
        gain = None if way.gain_interval is None else page.signed(way.gain)
        points = way.gain_interval and " to ".join(map(page.signed, way.gain_interval))
        ends = between(way.accuracy_interval, found.groups)
        rows.append([name, way.accuracy, ends, gain, points])
    head = ["", "balanced accuracy", "95 %", "gain", "95 %"]
    deployed = [index for index, name in enumerate(found.ways) if name == found.deploy]
    return page.table(head, rows, marked=deployed if found.more is None else ())
