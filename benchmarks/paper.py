"""The plan behind evidence/paper.md: the claims of the paper behind DSBR (arXiv 2606.02339).
Which cells, configs/benchmark/paper.yaml says: the first of each list is the centre, and its parts
vary one axis at a time. Figures are of the last quarters of the streams.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from holdfast.benchmarks import pages, paper_figures
from holdfast.benchmarks.config import BenchmarkConfig, rate_of
from holdfast.benchmarks.grid import BALANCED
from holdfast.benchmarks.pages import (
    REFERENCES,
    method_title,
    over_seeds,
    pivot,
    shown,
    target_title,
)
from holdfast.benchmarks.tables import (
    LAST,
    MEASURES,
    METRIC,
    RUN_STREAM,
    Row,
    check_balanced,
    key_of,
)

_MEASURES = {
    "beta_last": ("β", "{:.3f}"),
    "tv_last": ("total variation", "{:.3f}"),
    "balanced_accuracy_last": ("balanced accuracy, %", "{:.1f}"),
    "auroc_last": ("AUROC, %", "{:.1f}"),
}
_SHORT = ("beta_last", "balanced_accuracy_last")
#: Bands of bias beforehand: up to .10 the paper's pairs were hardly harmed, from .31 on all had it
#: amplified.
BANDS = ("β ≤ .10", "between", "β ≥ .31")
_LOW, _HIGH = 0.1, 0.31
#: By how much bias must grow, and balanced accuracy fall (points), to count.
_GROWTH, _LOSS = 0.02, 1.0
#: Tables, by what is to be said above them.
_Tables = dict[str, str]


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.conclude``.

    Raises:
        InputError: the runs are of masks or findings, which have no bias in this study's sense.
    """
    tables, pictures = partial(markdown, config=config), partial(draw, config=config)
    return pages.conclude(config, folder, tables, pictures)


def markdown(rows: Sequence[Row], config: BenchmarkConfig) -> str:
    """All tables; mean ± standard deviation over seeds."""
    check_balanced(row.get(METRIC) for row in rows)
    kinds: dict[str, Callable[[Sequence[Row], BenchmarkConfig], _Tables]] = {
        "Before and after, at the centre": _before_and_after,
        "Optimiser and rate: Δβ / Δ balanced accuracy against the control, mean over targets": (
            _rates
        ),
        "Length of the stream: β / balanced accuracy": partial(_along, axis="images"),
        "Batch size: β / balanced accuracy": partial(_along, axis="batch_size"),
        "Bias beforehand, and harm: runs whose β grew by more than .02 / whose balanced accuracy "
        "fell by more than a point, of all": _bands,
    }
    sections = []
    for title, tables in kinds.items():
        texts = [
            f"{_first_upper(pages.stream_title(stream))}{what}:\n\n{table}"
            for stream in config.streams
            for what, table in tables([r for r in rows if r["stream"] == stream], config).items()
            if table
        ]
        sections += ["\n\n".join([f"### {title}", *texts])] if texts else []
    return "\n\n".join(sections)


def draw(rows: Sequence[Row], config: BenchmarkConfig) -> dict[str, Figure]:
    """The pictures, by name; those that the rows have nothing for are left out."""
    shifted = at_all_shifts(rows, config)
    learning = [row for row in against_control(shifted) if _learns(row, config)]
    longer = [row for row in along(rows, config, "images") if row["stream"] != BALANCED]
    parts: dict[str, tuple[Callable[[Sequence[Row]], Figure], list[Row]]] = {
        "bias": (paper_figures.bias, shifted),
        "accuracy": (paper_figures.accuracy, learning),
        "mirror": (partial(paper_figures.along, axis="images"), longer),
        "batch": (
            partial(paper_figures.along, axis="batch_size"),
            along(rows, config, "batch_size"),
        ),
    }
    return {name: picture(own) for name, (picture, own) in parts.items() if own}


def at(rows: Iterable[Row], config: BenchmarkConfig, **axes: Any) -> list[Row]:
    """The rows at the centre, or elsewhere on the axes that are named; references have neither
    optimiser nor rate.
    """
    optimizer, lr = rate_of(config.rates[0])
    centre = {"shift": config.shifts[0], "batch_size": config.batch_sizes[0]}
    wanted = {**centre, "images": config.images, "optimizer": optimizer, "lr": lr, **axes}

    def fits(row: Row) -> bool:
        return all(
            row[key] == value or (key in ("optimizer", "lr") and row[key] is None)
            for key, value in wanted.items()
        )

    return [row for row in rows if fits(row)]


def at_all_shifts(rows: Iterable[Row], config: BenchmarkConfig) -> list[Row]:
    """The rows at the centre, under each shift."""
    return [row for shift in config.shifts for row in at(rows, config, shift=shift)]


def along(rows: Sequence[Row], config: BenchmarkConfig, axis: str) -> list[Row]:
    """The rows at the centre and elsewhere on an axis, of targets and methods that ran elsewhere;
    by target, method and value.
    """
    values = sorted({row[axis] for row in rows})
    own = [row for value in values for row in at(rows, config, **{axis: value})]
    centre = config.images if axis == "images" else config.batch_sizes[0]
    varied = {(target_title(row), row["method"]) for row in own if row[axis] != centre}
    kept = [row for row in own if (target_title(row), row["method"]) in varied]
    return sorted(kept, key=lambda row: (target_title(row), config.methods.index(row["method"])))


def over_targets(rows: Iterable[Row], measure: str) -> float | None:
    """Mean over targets of the mean over seeds; None where a target has no value."""
    targets = pages.grouped(rows, lambda row: (row["data"], row["target"]))
    means = [over_seeds(own, measure) for own in targets.values()]
    known = [found.mean for found in means if found is not None]
    return fmean(known) if known and len(known) == len(means) else None


def against_control(rows: Sequence[Row]) -> list[Row]:
    """Each row with what its measures are above those of its stream's control; rows of streams
    without one are left out.
    """
    controls = {key_of(row, RUN_STREAM): row for row in rows if row["method"] == "norm"}

    def above(row: Row, control: Row, name: str) -> float | None:
        known = row.get(name) is not None and control.get(name) is not None
        return row[name] - control[name] if known else None

    return [
        {**row, **{name: above(row, control, name) for name in (*MEASURES, *LAST)}}
        for row in rows
        if (control := controls.get(key_of(row, RUN_STREAM))) is not None
    ]


def banded(rows: Sequence[Row], reference: str) -> list[Row]:
    """Runs of methods that learn, by what their ``band`` of bias was beforehand: does it foretell
    what updates do to it?

    Args:
        rows: of any points.
        reference: whose bias over the stream counts as that before: source, or norm for the
            control.

    Returns:
        Rows with their band, ``amplified`` (in the last quarter β is more than .02 above the
        control's on the same images) and ``worse`` (balanced accuracy is a point below), by band.
    """
    before = {key_of(row, RUN_STREAM): row["beta"] for row in rows if row["method"] == reference}
    found = []
    for row in against_control(rows):
        bias = before.get(key_of(row, RUN_STREAM))
        if row["method"] in REFERENCES or bias is None or row["beta_last"] is None:
            continue
        grown, worse = row["beta_last"] > _GROWTH, row["balanced_accuracy_last"] < -_LOSS
        band = (bias > _LOW) + (bias >= _HIGH)
        found.append({**row, "band": band, "amplified": grown, "worse": worse})
    return sorted(found, key=lambda row: row["band"])


def _before_and_after(rows: Sequence[Row], config: BenchmarkConfig) -> _Tables:
    own = at_all_shifts(rows, config)
    return {
        f", {name}": pivot(
            own, ["method"], _method, target_title, partial(shown, measure=measure, form=form)
        )
        for measure, (name, form) in _MEASURES.items()
    }


def _rates(rows: Sequence[Row], config: BenchmarkConfig) -> _Tables:
    points = sorted({(r["optimizer"], -r["lr"]) for r in rows if r["lr"] is not None})
    own = [
        row
        for optimizer, lr in points
        for row in against_control(at(rows, config, optimizer=optimizer, lr=-lr))
        if _learns(row, config)
    ]

    def cell(part: list[Row]) -> str:
        found = [over_targets(part, name) for name in _SHORT]
        forms = zip(found, ("{:+.3f}", "{:+.1f}"), strict=True)
        return " / ".join("–" if value is None else form.format(value) for value, form in forms)

    return {
        "": pivot(own, ["method"], _method, lambda row: f"{row['optimizer']} {row['lr']:g}", cell)
    }


def _along(rows: Sequence[Row], config: BenchmarkConfig, axis: str) -> _Tables:
    def cell(part: list[Row]) -> str:
        return " / ".join(shown(part, name, _MEASURES[name][1]) for name in _SHORT)

    own = along(rows, config, axis)
    names = ["target", "method"]
    return {
        "": pivot(
            own, names, lambda row: (target_title(row), *_method(row)), lambda r: str(r[axis]), cell
        )
    }


def _bands(rows: Sequence[Row], config: BenchmarkConfig) -> _Tables:
    def cell(part: list[Row]) -> str:
        counts = (sum(row[name] for row in part) for name in ("amplified", "worse"))
        return f"{' / '.join(map(str, counts))} of {len(part)}" if part else "–"

    shifted = at_all_shifts(rows, config)
    return {
        f", by the {method_title(reference)}'s β": pivot(
            [row for row in banded(shifted, reference) if _learns(row, config)],
            *(["method"], _method, lambda row: BANDS[row["band"]], cell),
        )
        for reference in REFERENCES
    }


def _learns(row: Row, config: BenchmarkConfig) -> bool:
    """Whether a row is of one of the methods that run under each shift, and adapt."""
    return row["method"] in config.methods and row["method"] not in REFERENCES


def _method(row: Row) -> tuple[str]:
    return (f"`{method_title(row['method'])}`",)


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]
