"""The tables of docs/paper.md."""

import math
from collections.abc import Iterable, Sequence

from holdfast.benchmarks.orders import BALANCED
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.paper.plan import REFERENCES
from holdfast.benchmarks.paper.summary import (
    Spread,
    against_control,
    at,
    bands,
    methods_in,
    over_targets,
    spread,
    title_of,
)
from holdfast.benchmarks.tables import Row

_MEASURES = {
    "beta_last": ("β", "{:.3f}"),
    "tv_last": ("total variation", "{:.3f}"),
    "balanced_accuracy_last": ("balanced accuracy, %", "{:.1f}"),
    "auroc_last": ("AUROC, %", "{:.1f}"),
}
_SHORT = ("beta_last", "balanced_accuracy_last")


def markdown(rows: Sequence[Row], config: PaperConfig) -> str:
    """All tables, of the last quarters of the streams; mean ± standard deviation over seeds."""
    parts = {stream: [row for row in rows if row["stream"] == stream] for stream in config.streams}
    sections = {
        "Before and after, at the centre": [
            text
            for stream, own in parts.items()
            for text in _before_and_after(own, config, stream_title(stream))
        ],
        "Optimiser and rate: Δβ / Δ balanced accuracy against the control, mean over targets": [
            _rates(own, config, stream) for stream, own in parts.items()
        ],
        "Length of the stream: β / balanced accuracy": [
            _along("images", config.lengths, own, config, stream) for stream, own in parts.items()
        ],
        "Batch size: β / balanced accuracy": [
            _along("batch_size", sorted(config.batch_sizes), own, config, stream)
            for stream, own in parts.items()
        ],
        "Bias beforehand, and harm: runs whose β grew by more than .02 / whose balanced accuracy "
        "fell by more than a point": [
            _bands(own, config, stream, reference)
            for stream, own in parts.items()
            for reference in REFERENCES
        ],
    }
    written = {title: [text for text in texts if text] for title, texts in sections.items()}
    return "\n\n".join(
        "\n\n".join([f"### {title}", *texts]) for title, texts in written.items() if texts
    )


def stream_title(stream: str) -> str:
    """How pages and pictures call a stream."""
    return {BALANCED: "balanced classes", "prevalence": "85 % of one class"}.get(stream, stream)


def target_title(row: Row) -> str:
    """How pages and pictures call what a stream's images are."""
    name = row["data"] if row["data"] == row["target"] else f"{row['data']} {row['target']}"
    return name if row["shift"] == "none" else f"{name}, {row['shift']} {row['severity']}"


def _before_and_after(rows: Sequence[Row], config: PaperConfig, title: str) -> list[str]:
    own = [row for shift in config.shifts for row in at(rows, config, shift=shift)]
    columns = list(dict.fromkeys(map(target_title, own)))
    parts = []
    for measure, (name, form) in _MEASURES.items():
        lines = []
        for method in methods_in(own):
            of_method = [row for row in own if row["method"] == method]
            cells = [
                spread([row for row in of_method if target_title(row) == column], measure)
                for column in columns
            ]
            lines.append([f"`{title_of(method)}`", *(_shown(cell, form) for cell in cells)])
        parts.append(
            f"{_first_upper(name)}, {title}:\n\n{_table(['method', *columns], lines)}"
            if own
            else ""
        )
    return parts


def _rates(rows: Sequence[Row], config: PaperConfig, stream: str) -> str:
    points = [
        (name, float(f"{config.lr[name] * rate:.6g}"))
        for name in config.optimizers
        for rate in config.rates
    ]
    found = {
        (name, lr): against_control(at(rows, config, optimizer=name, lr=lr)) for name, lr in points
    }
    columns = [point for point in points if any(row["optimizer"] for row in found[point])]
    lines = []
    for method in config.methods:
        cells = []
        for point in columns:
            own = [row for row in found[point] if row["method"] == method]
            values = [over_targets(own, name) for name in _SHORT]
            cells.append(
                " / ".join(
                    "–" if v is None else form.format(v)
                    for v, form in zip(values, ("{:+.3f}", "{:+.1f}"), strict=True)
                )
            )
        lines.append([f"`{method}`", *cells])
    head = ["method", *(f"{name} {lr:g}" for name, lr in columns)]
    return f"{_first_upper(stream_title(stream))}:\n\n{_table(head, lines)}" if columns else ""


def _along(
    axis: str, values: Iterable[int], rows: Sequence[Row], config: PaperConfig, stream: str
) -> str:
    found = {value: at(rows, config, **{axis: value}) for value in values}
    others = {
        target_title(row)
        for value, own in found.items()
        if value != _centre(axis, config)
        for row in own
    }
    methods = (*REFERENCES, *config.close)
    lines = []
    for target in sorted(others):
        for method in methods:
            cells = []
            for own in found.values():
                point = [
                    row for row in own if row["method"] == method and target_title(row) == target
                ]
                cells.append(
                    " / ".join(_shown(spread(point, name), _MEASURES[name][1]) for name in _SHORT)
                )
            lines.append([target, f"`{title_of(method)}`", *cells])
    if not lines:
        return ""
    table = _table(["target", "method", *map(str, found)], lines)
    return f"{_first_upper(stream_title(stream))}:\n\n{table}"


def _bands(rows: Sequence[Row], config: PaperConfig, stream: str, reference: str) -> str:
    own = [row for shift in config.shifts for row in at(rows, config, shift=shift)]
    found = bands(own, reference)
    names = {"low": "β ≤ .10", "middle": "between", "high": "β ≥ .31"}
    head = [
        "method",
        *(
            f"{title} ({max((v[name].runs for v in found.values()), default=0)} runs)"
            for name, title in names.items()
        ),
    ]
    lines = [
        [
            f"`{method}`",
            *(
                f"{values[name].amplified} / {values[name].worse}" if values[name].runs else "–"
                for name in names
            ),
        ]
        for method, values in found.items()
        if method in config.methods
    ]
    who = "source" if reference == "source" else "control"
    return (
        f"{_first_upper(stream_title(stream))}, by the {who}'s β:\n\n{_table(head, lines)}"
        if lines
        else ""
    )


def _centre(axis: str, config: PaperConfig) -> int:
    return config.lengths[0] if axis == "images" else config.batch_sizes[0]


def _shown(found: Spread | None, form: str) -> str:
    if found is None:
        return "–"
    if not math.isfinite(found.mean):
        return "∞"
    mean = form.format(found.mean)
    return mean if found.deviation is None else f"{mean} ± {form.format(found.deviation)}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *lines))


def _first_upper(text: str) -> str:
    return text if text.startswith("β") else text[0].upper() + text[1:]
