"""What programs ask of whoever wrote a stream's predictions, whatever these are."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor

from holdfast.callbacks.cases import CaseWriter
from holdfast.callbacks.findings import FindingWriter
from holdfast.callbacks.predictions import PredictionWriter
from holdfast.callbacks.report.overlays import overlay, read_mask
from holdfast.callbacks.trajectory import (
    Course,
    course_of_cases,
    course_of_findings,
    course_of_labels,
)
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.targets import FindingTarget
from holdfast.tta.csvfile import read_rows
from holdfast.tta.results import prediction_sample
from holdfast.tta.tasks import Task

Writer = PredictionWriter | CaseWriter | FindingWriter
#: An image (channels, *spatial) in 0..1, and what is written below it.
Picture = tuple[Tensor, str]


def row_writer(
    task: Task, path: Path, class_names: tuple[str, ...], columns: str = "all", **more: Any
) -> PredictionWriter | FindingWriter:
    """Who writes a row an image: of findings, or of one class an image.

    Args:
        task: what the network's answer means.
        path: the file.
        class_names: of the classes, or findings.
        columns: which probabilities of classes; of findings all.
        **more: see ``RowWriter``.
    """
    if task.target == FindingTarget.key:
        return FindingWriter(path, task, class_names, **more)
    return PredictionWriter(path, class_names, columns=columns, task=task, **more)


@singledispatch
def scored(writer: Any, groups: npt.NDArray[Any], columns: Mapping[str, Any], **more: Any) -> Any:
    """The content of ``metrics.json`` that tells what the predictions are worth.

    Args:
        writer: of the predictions.
        groups: (N,) patient or slide of each image, in stream order.
        columns: (N,) subgroup of each, by the column's name.
        **more: ``aggregate`` and ``bootstrap``, as ``tta.scores.scores`` has them.
    """
    raise NotImplementedError(type(writer).__name__)


@singledispatch
def course(writer: Any) -> Course:
    """What left over the stream, for its picture."""
    raise NotImplementedError(type(writer).__name__)


@singledispatch
def sampled(writer: Any, count: int) -> list[dict[str, Any]]:
    """Rows at even distances along the stream, each with its ``position``."""
    raise NotImplementedError(type(writer).__name__)


@singledispatch
def pictured(writer: Any, images: ImageSet, count: int) -> list[Picture]:
    """Some images with what was said of them; of those that can no longer be read, none."""
    raise NotImplementedError(type(writer).__name__)


@scored.register
def _(writer: PredictionWriter, groups: Any, columns: Mapping[str, Any], **more: Any) -> Any:
    known = (writer.probabilities, writer.labels, writer.class_names, writer.domains)
    return writer.task.scored(*known, groups=groups, columns=columns, **more)


@scored.register
def _(writer: FindingWriter, groups: Any, columns: Mapping[str, Any], **more: Any) -> Any:
    return writer.scores(groups=groups, columns=columns, **more)


@scored.register
def _(writer: CaseWriter, groups: Any, columns: Mapping[str, Any], **more: Any) -> Any:
    return writer.scores(groups=groups, columns=columns, **more)


@course.register
def _(writer: PredictionWriter) -> Course:
    return course_of_labels(writer.task, writer.probabilities, writer.labels, writer.class_names)


@course.register
def _(writer: CaseWriter) -> Course:
    figures = writer.kept.figures
    return course_of_cases(figures["dice"], figures["share"], writer.kept.names)


@course.register
def _(writer: FindingWriter) -> Course:
    called = writer.task.decide(writer.probabilities)
    return course_of_findings(writer.probabilities, called, writer.findings, writer.class_names)


@sampled.register
def _(writer: PredictionWriter, count: int) -> list[dict[str, Any]]:
    return prediction_sample(writer.path, writer.labels, writer.class_names, count)


@sampled.register(FindingWriter)
@sampled.register(CaseWriter)
def _(writer: CaseWriter | FindingWriter, count: int) -> list[dict[str, Any]]:
    step = max(1, -(-writer.served // max(count, 1)))
    chosen = enumerate(read_rows(writer.path))
    rows = [(place, row) for place, row in chosen if place < writer.served and not place % step]
    return [{"position": place, **row} for place, row in rows] if count else []


@pictured.register
def _(writer: PredictionWriter, images: ImageSet, count: int) -> list[Picture]:
    shown: list[Picture] = []
    for row in sampled(writer, count):
        lost: dict[int, str] = {}
        seen = images.batch([int(writer.rows[row["position"]])], lost)["image"]
        said = f"{row['id']}: {row['prediction']} ({row['confidence']:.0%}), {row['label']}"
        shown += [] if lost else [(seen[0], said)]
    return shown


@pictured.register
def _(writer: CaseWriter, images: ImageSet, count: int) -> list[Picture]:
    shown: list[Picture] = []
    for row in sampled(writer, count) if writer.folder is not None else []:
        lost: dict[int, str] = {}
        number = int(writer.rows[row["position"]])
        batch = images.batch([number], lost)
        if not lost:
            mask = read_mask(writer.folder / row["mask"], images.place(number))
            picture = overlay(batch["image"][0], mask, batch["mask"][0])
            shown.append((picture, f"{row['id']}: {_told(row, writer.kept.names)}"))
    return shown


@pictured.register
def _(writer: FindingWriter, images: ImageSet, count: int) -> list[Picture]:
    shown: list[Picture] = []
    for row in sampled(writer, count):
        lost: dict[int, str] = {}
        seen = images.batch([int(writer.rows[row["position"]])], lost)["image"]
        said = [f"{name} {float(row[f'prob_{name}']):.0%}" for name in writer.class_names]
        shown += [] if lost else [(seen[0], f"{row['id']}: {', '.join(said)}")]
    return shown


def _told(row: Mapping[str, str], names: Sequence[str]) -> str:
    """Dice of each class in words, and who served."""
    dice = [(name, row.get(f"dice_{name}", "")) for name in names]
    known = ", ".join(f"{name} {float(value):.0%}" for name, value in dice if value)
    return f"Dice {known}; {row['served_by']}" if known else row["served_by"]
