"""What a run came to, for its loggers: figures for all of them, tables and pictures for W&B."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch import Tensor

from holdfast.tta.csvfile import read_rows
from holdfast.tta.tracking import wandb_runs

Rows = Sequence[Mapping[str, Any]]

#: Rows of a table at most; what is longer is in the run's files.
_MOST_ROWS = 10_000
#: Longer sides of pictures are thinned to about this many pixels.
_SIDE = 256


def log_result(
    loggers: Iterable[Logger],
    metrics: Mapping[str, Any],
    *,
    tables: Mapping[str, Rows] | None = None,
    pictures: Mapping[str, Path] | None = None,
) -> None:
    """Log figures (as W&B's summary, by which runs are filtered and sorted), tables and pictures.

    Args:
        loggers: of the run.
        metrics: figures, nested as in ``metrics.json``.
        tables: rows by the table's name; a table without rows is left out.
        pictures: PNG files by name.
    """
    flat = dict(flattened(metrics))
    numbers = {key: float(value) for key, value in flat.items() if isinstance(value, int | float)}
    for logger in loggers:
        if isinstance(logger, CSVLogger):  # holds curves; metrics.json lies beside it
            continue
        if not isinstance(logger, WandbLogger):
            logger.log_metrics(numbers)
            continue
        import wandb  # here: it takes a second, and a run without it needs none

        run = logger.experiment
        run.summary.update(flat)
        shown: dict[str, Any] = {name: table(rows) for name, rows in (tables or {}).items() if rows}
        shown |= {name: wandb.Image(str(path)) for name, path in (pictures or {}).items()}
        if shown:
            run.log(shown)


def log_images(loggers: Iterable[Logger], images: Sequence[tuple[Tensor, str]]) -> None:
    """Show images with their captions on W&B.

    Args:
        loggers: of the run.
        images: (channels, H, W) or (channels, D, H, W), scaled to 0..1, and what to write below
            each.
    """
    for run in wandb_runs(loggers):
        import wandb

        if images:
            run.log(
                {
                    "images": [
                        wandb.Image(picture_of(image), caption=caption) for image, caption in images
                    ]
                }
            )


def table(rows: Rows) -> Any:
    """A W&B table with a column for each key that occurs."""
    import wandb

    rows = rows[:_MOST_ROWS]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    # W&B takes one type a column, so that a mixed one is text.
    mixed = {
        key
        for key in columns
        if len({_kind(row[key]) for row in rows if row.get(key) is not None}) > 1
    }
    return wandb.Table(
        columns=columns,
        data=[
            [
                str(row[key]) if key in mixed and row.get(key) is not None else row.get(key)
                for key in columns
            ]
            for row in rows
        ],
    )


def metric_tables(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Tables of the metrics of each class, and of each domain and subgroup.

    Args:
        metrics: from ``tta.scores.scores``.
    """
    per_class = {
        "sensitivity": metrics.get("sensitivity", {}),
        "specificity": metrics.get("specificity", {}),
        "auroc": metrics.get("auroc", {}).get("per_class", {}),
    }
    names = dict.fromkeys(name for values in per_class.values() for name in values)
    classes = [
        {"class": name, **{key: values.get(name) for key, values in per_class.items()}}
        for name in names
    ]
    groups = [
        {
            "split": split,
            "value": value,
            **{key: part for key, part in flattened(values) if key in _GROUP_COLUMNS},
        }
        for split, value, values in parts_of(metrics)
    ]
    return {"classes": classes, "groups": groups}


_GROUP_COLUMNS = (
    "images",
    "groups",
    "accuracy",
    "balanced_accuracy",
    "auroc/macro",
    "ece",
    "last_quarter",
)


def prediction_sample(
    path: Path, labels: Tensor, class_names: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """Predictions at even distances along the stream, with the truth where it is known.

    Args:
        path: ``predictions.csv``.
        labels: (N,) true classes in stream order, -1 where unknown.
        class_names: names of the classes.
        count: how many at most.

    Returns:
        Rows of the file (probabilities left out) with their ``position`` in the stream.
    """
    if not count or not len(labels):
        return []
    step = ceil(len(labels) / count)
    chosen = list(islice(enumerate(read_rows(path)), 0, len(labels), step))
    kept = ("id", "prediction", "confidence", "verdict", "served_by")
    return [
        {
            "position": position,
            **{key: float(row[key]) if key == "confidence" else row[key] for key in kept},
            "label": class_names[int(labels[position])] if labels[position] >= 0 else "",
        }
        for position, row in chosen
    ]


def picture_of(image: Tensor) -> npt.NDArray[np.uint8]:
    """An image as (H, W, 3 or 1) bytes: of a volume its middle slice, of unusual channels the
    first; large ones thinned.
    """
    if image.dim() == 4:
        image = image[:, image.shape[1] // 2]
    image = image if image.shape[0] in (1, 3) else image[:1]
    step = ceil(max(image.shape[1:]) / _SIDE)
    pixels = image[:, ::step, ::step].nan_to_num().clamp(0, 1).movedim(0, -1)
    return (255 * pixels).round().byte().cpu().numpy()


def flattened(
    values: Mapping[Any, Any], between: str = "/", prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Nested values under names like ``auroc/macro``.

    Args:
        values: nested mappings.
        between: what joins names.
        prefix: what stands before all of them.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, between, f"{prefix}{key}{between}")
        else:
            yield f"{prefix}{key}", value


def parts_of(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Split, value and figures of each domain and subgroup in ``metrics.json``."""
    splits = {"domain": metrics.get("domains", {}), **metrics.get("subgroups", {})}
    for split, parts in splits.items():
        for value, part in parts.items():
            yield split, value, part


def headline(metrics: Mapping[str, Any], name: str) -> float | None:
    """A figure of this name, or its mean over classes; None where there is none.

    >>> headline({"auroc": {"macro": 81.5, "per_class": {}}}, "auroc")
    81.5
    """
    value = metrics.get(name)
    return value.get("macro") if isinstance(value, Mapping) else value


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
