"""The plan behind docs/paper.md: the claims of the paper behind DSBR (arXiv 2606.02339), measured.
Which cells, configs/benchmark/paper.yaml says: the first of each list is the centre, and its parts
vary one axis at a time. Figures are of the last quarters of the streams.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from holdfast.benchmarks import pages, paper_figures
from holdfast.benchmarks.grid import BALANCED
from holdfast.benchmarks.options import BenchmarkConfig, rate_of
from holdfast.benchmarks.pages import (
    REFERENCES,
    methods_in,
    shown,
    stream_title,
    target_title,
    title_of,
)
from holdfast.benchmarks.tables import LAST, MEASURES, RUN_STREAM, Row, key_of

_MEASURES = {
    "beta_last": ("β", "{:.3f}"),
    "tv_last": ("total variation", "{:.3f}"),
    "balanced_accuracy_last": ("balanced accuracy, %", "{:.1f}"),
    "auroc_last": ("AUROC, %", "{:.1f}"),
}
_SHORT = ("beta_last", "balanced_accuracy_last")
#: Bias beforehand up to which the paper's pairs were hardly harmed, and from which on all had it
#: amplified.
_LOW, _HIGH = 0.1, 0.31
_BANDS = {"low": "β ≤ .10", "middle": "between", "high": "β ≥ .31"}
#: By how much bias must grow, and balanced accuracy fall (points), to count.
_GROWTH, _LOSS = 0.02, 1.0
#: Headings of tables, with their columns and lines.
_Tables = list[tuple[str, tuple[list[str], list[list[str]]]]]


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.conclude``."""
    tables, pictures = partial(markdown, config=config), partial(draw, config=config)
    return pages.conclude(config, folder, tables, pictures)


def markdown(rows: Sequence[Row], config: BenchmarkConfig) -> str:
    """All tables; mean ± standard deviation over seeds."""
    kinds: dict[str, Callable[[Sequence[Row], BenchmarkConfig, str], _Tables]] = {
        "Before and after, at the centre": _before_and_after,
        "Optimiser and rate: Δβ / Δ balanced accuracy against the control, mean over targets": (
            _rates
        ),
        "Length of the stream: β / balanced accuracy": partial(_along, axis="images"),
        "Batch size: β / balanced accuracy": partial(_along, axis="batch_size"),
        "Bias beforehand, and harm: runs whose β grew by more than .02 / whose balanced accuracy "
        "fell by more than a point": _bands,
    }
    sections = []
    for title, tables in kinds.items():
        texts = []
        for stream in config.streams:
            own = [row for row in rows if row["stream"] == stream]
            texts += [
                f"{head}:\n\n{pages.table(*table)}"
                for head, table in tables(own, config, stream_title(stream))
                if table[1]
            ]
        sections += ["\n\n".join([f"### {title}", *texts])] if texts else []
    return "\n\n".join(sections)


def draw(rows: Sequence[Row], config: BenchmarkConfig) -> dict[str, Figure]:
    """The pictures, by name; those that the rows have nothing for are left out."""
    shifted = at_all_shifts(rows, config)
    learning = [row for row in against_control(shifted) if row["method"] in _core(config)]
    longest = at(rows, config, images=max((row["images"] for row in rows), default=0))
    sizes = dict.fromkeys(row["batch_size"] for row in rows)
    batches = [row for size in sizes for row in at(rows, config, batch_size=size)]
    varied = [row for row in batches if row["batch_size"] != config.batch_sizes[0]]
    close = {(row["method"], target_title(row)) for row in varied}
    parts = {
        "bias": (paper_figures.bias, shifted),
        "accuracy": (paper_figures.accuracy, learning),
        "mirror": (paper_figures.mirror, [r for r in longest if r["stream"] != BALANCED]),
        "batch": (
            paper_figures.batch_sizes,
            [row for row in batches if (row["method"], target_title(row)) in close],
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


def over_targets(rows: Iterable[Row], measure: str) -> float | None:
    """Mean over targets of the mean over seeds; None where a target has no value."""
    targets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        targets.setdefault((row["data"], row["target"]), []).append(row)
    means = [pages.spread(own, measure) for own in targets.values()]
    known = [found.mean for found in means if found is not None]
    return fmean(known) if known and len(known) == len(means) else None


def against_control(rows: Sequence[Row]) -> list[Row]:
    """Each row with what its measures are above those of its stream's control; rows of streams
    without one are left out.
    """
    controls = {key_of(row, RUN_STREAM): row for row in rows if row["method"] == "norm"}
    return [
        {**row, **{name: _difference(row, control, name) for name in (*MEASURES, *LAST)}}
        for row in rows
        if (control := controls.get(key_of(row, RUN_STREAM))) is not None
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
    before = {key_of(row, RUN_STREAM): row["beta"] for row in rows if row["method"] == reference}
    found: dict[str, dict[str, Band]] = {}
    for row in against_control(rows):
        bias = before.get(key_of(row, RUN_STREAM))
        if row["method"] in REFERENCES or bias is None or row["beta_last"] is None:
            continue
        name = [*_BANDS][(bias > _LOW) + (bias >= _HIGH)]
        own = found.setdefault(row["method"], dict.fromkeys(_BANDS, Band(0, 0, 0)))
        runs, amplified, worse = own[name]
        grown, fallen = row["beta_last"] > _GROWTH, row["balanced_accuracy_last"] < -_LOSS
        own[name] = Band(runs + 1, amplified + grown, worse + fallen)
    return found


def _before_and_after(rows: Sequence[Row], config: BenchmarkConfig, title: str) -> _Tables:
    own = at_all_shifts(rows, config)
    columns = list(dict.fromkeys(map(target_title, own)))
    found: _Tables = []
    for measure, (name, form) in _MEASURES.items():
        lines = []
        for method in methods_in(own):
            cells = [
                [r for r in own if r["method"] == method and target_title(r) == column]
                for column in columns
            ]
            lines.append([f"`{title_of(method)}`", *(shown(c, measure, form) for c in cells)])
        found.append((f"{_first_upper(name)}, {title}", (["method", *columns], lines)))
    return found


def _rates(rows: Sequence[Row], config: BenchmarkConfig, title: str) -> _Tables:
    points = sorted(
        {(row["optimizer"], row["lr"]) for row in rows if row["lr"] is not None},
        key=lambda point: (point[0], -point[1]),
    )
    found = {p: against_control(at(rows, config, optimizer=p[0], lr=p[1])) for p in points}
    lines = []
    for method in _core(config):
        cells = []
        for own in found.values():
            values = [
                over_targets([row for row in own if row["method"] == method], name)
                for name in _SHORT
            ]
            forms = zip(values, ("{:+.3f}", "{:+.1f}"), strict=True)
            cells.append(" / ".join("–" if v is None else form.format(v) for v, form in forms))
        lines.append([f"`{method}`", *cells])
    head = ["method", *(f"{name} {lr:g}" for name, lr in points)]
    return [(_first_upper(title), (head, lines))] if points else []


def _along(rows: Sequence[Row], config: BenchmarkConfig, title: str, axis: str) -> _Tables:
    found = {value: at(rows, config, **{axis: value}) for value in sorted({r[axis] for r in rows})}
    centre = config.images if axis == "images" else config.batch_sizes[0]
    varied = [row for value, own in found.items() if value != centre for row in own]
    close = [method for method in methods_in(varied) if method not in REFERENCES]
    lines = []
    for target in sorted({target_title(row) for row in varied}):
        for method in (*REFERENCES, *close):
            points = [
                [row for row in own if row["method"] == method and target_title(row) == target]
                for own in found.values()
            ]
            cells = [
                " / ".join(shown(point, name, _MEASURES[name][1]) for name in _SHORT)
                for point in points
            ]
            lines.append([target, f"`{title_of(method)}`", *cells])
    return [(_first_upper(title), (["target", "method", *map(str, found)], lines))]


def _bands(rows: Sequence[Row], config: BenchmarkConfig, title: str) -> _Tables:
    tables: _Tables = []
    for reference in REFERENCES:
        found = bands(at_all_shifts(rows, config), reference)
        most = {name: max((v[name].runs for v in found.values()), default=0) for name in _BANDS}
        head = ["method", *(f"{_BANDS[name]} ({most[name]} runs)" for name in _BANDS)]
        lines = [
            [f"`{m}`", *(f"{b.amplified} / {b.worse}" if b.runs else "–" for b in own.values())]
            for m, own in found.items()
            if m in _core(config)
        ]
        name = f"{_first_upper(title)}, by the {title_of(reference)}'s β"
        tables.append((name, (head, lines)))
    return tables


def _core(config: BenchmarkConfig) -> list[str]:
    """The methods that run under each shift."""
    return [method for method in config.methods if method not in REFERENCES]


def _difference(row: Mapping[str, Any], control: Mapping[str, Any], name: str) -> float | None:
    value, other = row.get(name), control.get(name)
    return None if value is None or other is None else value - other


def _first_upper(text: str) -> str:
    return text if text.startswith("β") else text[0].upper() + text[1:]
