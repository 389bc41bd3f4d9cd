"""What the study's rows say; pure."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean, stdev
from typing import Any, NamedTuple

from holdfast.benchmarks.paper.cell import MEASURES
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.paper.plan import KEYS, REFERENCES, STREAM
from holdfast.benchmarks.tables import Row, key_of

#: The measures of a stream's last quarter: after adaptation, and of the references on the same
#: images.
AFTER = tuple(f"{name}_last" for name in MEASURES)
#: Bias beforehand up to which the paper's pairs were hardly harmed, and from which on all had it
#: amplified.
_LOW, _HIGH = 0.1, 0.31
_BANDS = ("low", "middle", "high")
#: By how much bias must grow, and balanced accuracy fall (points), to count.
_GROWTH, _LOSS = 0.02, 1.0


class Spread(NamedTuple):
    """Mean over seeds, their standard deviation (None for one seed), and how many there are."""

    mean: float
    deviation: float | None
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of the values that are there; None without any."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        finite = len(known) > 1 and all(map(math.isfinite, known))
        return cls(fmean(known), stdev(known) if finite else None, len(known))


def at(rows: Iterable[Row], config: PaperConfig, **axes: Any) -> list[Row]:
    """The rows at the centre, or elsewhere on the axes that are named; references have neither
    optimiser nor rate.
    """
    optimizer = axes.get("optimizer", config.optimizers[0])
    rate = config.lr[optimizer] * config.rates[0]
    centre = {
        "shift": config.shifts[0],
        "batch_size": config.batch_sizes[0],
        "images": config.lengths[0],
    }
    wanted = {**centre, "optimizer": optimizer, "lr": float(f"{rate:.6g}"), **axes}

    def fits(row: Row) -> bool:
        return all(
            row[key] == value or (key in ("optimizer", "lr") and row[key] is None)
            for key, value in wanted.items()
        )

    return [row for row in rows if fits(row)]


def spread(rows: Iterable[Row], measure: str) -> Spread | None:
    """A measure over the seeds of a point."""
    return Spread.of(row[measure] for row in rows)


def over_targets(rows: Iterable[Row], measure: str) -> float | None:
    """Mean over targets of the mean over seeds; None where a target has no value."""
    targets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        targets.setdefault((row["data"], row["target"]), []).append(row)
    means = [spread(own, measure) for own in targets.values()]
    known = [found.mean for found in means if found is not None]
    return fmean(known) if known and len(known) == len(means) else None


def against_control(rows: Sequence[Row]) -> list[Row]:
    """Each row with what its measures are above those of its stream's control; rows of streams
    without one are left out.
    """
    controls = {key_of(row, STREAM): row for row in rows if row["method"] == "norm"}
    pairs = [(row, controls.get(key_of(row, STREAM))) for row in rows]
    return [
        {**row, **{name: _difference(row[name], control[name]) for name in (*MEASURES, *AFTER)}}
        for row, control in pairs
        if control is not None
    ]


class Band(NamedTuple):
    """Runs of a method whose bias beforehand lay in a band: how many, and in how many of them it
    grew, or accuracy fell.
    """

    runs: int
    amplified: int
    worse: int


def bands(rows: Sequence[Row], reference: str) -> dict[str, dict[str, Band]]:
    """By method, then band: does the bias before adaptation foretell what updates do to it?

    Args:
        rows: of any points.
        reference: whose bias over the stream counts as that before: source, or norm for the
            control.

    Returns:
        Band ``low`` (β up to .1), ``middle`` and ``high`` (from .31 on); *amplified*: in the last
        quarter β is more than .02 above the control's on the same images; *worse*: balanced
        accuracy is more than a point below.
    """
    before = {key_of(row, STREAM): row["beta"] for row in rows if row["method"] == reference}
    found: dict[str, dict[str, Band]] = {}
    for row in against_control(rows):
        bias = before.get(key_of(row, STREAM))
        if row["method"] in REFERENCES or bias is None or row["beta_last"] is None:
            continue
        name = _BANDS[(bias > _LOW) + (bias >= _HIGH)]
        own = found.setdefault(row["method"], dict.fromkeys(_BANDS, Band(0, 0, 0)))
        runs, amplified, worse = own[name]
        grown, fallen = row["beta_last"] > _GROWTH, row["balanced_accuracy_last"] < -_LOSS
        own[name] = Band(runs + 1, amplified + grown, worse + fallen)
    return found


def summarize(rows: Sequence[Row], config: PaperConfig) -> dict[str, Any]:
    """The content of ``summary.json``.

    Returns:
        ``cells``, ``seeds``, ``centre`` (by stream and method, the measures of the last quarter,
        mean over targets), ``bands`` (by stream, reference and method, over the shifts at the
        centre) and ``points`` (each with mean and deviation over seeds); what is undefined or
        infinite is None.
    """
    keys = tuple(key for key in KEYS if key != "seed")
    ordered = sorted(rows, key=lambda row: key_of(row, keys))
    points = []
    for _, same in groupby(ordered, key=lambda row: key_of(row, keys)):
        own = list(same)
        found = {name: spread(own, name) for name in (*MEASURES, *AFTER)}
        values = {
            name: None if s is None else {"mean": _finite(s.mean), "sd": s.deviation}
            for name, s in found.items()
        }
        points.append({**{key: own[0][key] for key in keys}, "seeds": len(own), **values})
    shifted = [row for shift in config.shifts for row in at(rows, config, shift=shift)]
    of_stream = {
        stream: [row for row in shifted if row["stream"] == stream] for stream in config.streams
    }
    return {
        "cells": len(rows),
        "seeds": sorted({row["seed"] for row in rows}),
        "centre": {stream: _methods(at(own, config)) for stream, own in of_stream.items()},
        "bands": {
            stream: {
                reference: {
                    method: {name: band._asdict() for name, band in values.items()}
                    for method, values in bands(own, reference).items()
                }
                for reference in REFERENCES
            }
            for stream, own in of_stream.items()
        },
        "points": points,
    }


def as_table(summary: dict[str, Any]) -> str:
    """Bias and accuracy after adaptation, by stream and method, as text."""
    lines = [
        f"{'last quarter, mean over targets':<34}{'β':>8}{'TV':>8}{'bal. acc.':>11}{'AUROC':>8}"
    ]
    for stream, methods in summary["centre"].items():
        for method, values in methods.items():
            forms = zip(AFTER, ("8.3f", "8.3f", "11.1f", "8.1f"), strict=True)
            shown = [
                "–".rjust(int(form.split(".")[0])) if values[k] is None else f"{values[k]:{form}}"
                for k, form in forms
            ]
            lines.append(f"{f'{stream} {title_of(method)}':<34}{''.join(shown)}")
    return "\n".join(lines)


def title_of(method: str) -> str:
    """How tables and pictures call a method: the un-updated network under the methods' statistics
    is the control.
    """
    return "control" if method == "norm" else method


def methods_in(rows: Iterable[Row]) -> list[str]:
    """Methods in the order in which they ran."""
    return list(dict.fromkeys(row["method"] for row in rows))


def _methods(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    return {
        method: {
            name: _finite(over_targets([row for row in rows if row["method"] == method], name))
            for name in AFTER
        }
        for method in methods_in(rows)
    }


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
