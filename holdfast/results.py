"""What training and adaptation return in Python."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.csvfile import read_rows
from holdfast.tta.results import headline

#: Columns of text; all others hold numbers, or nothing.
_TEXT = frozenset(
    {
        *("id", "prediction", "verdict", "served_by", "reason", "label", "group", "domain"),
        *("mode", "leads", "choice", "skipped", "weights", "chain"),
    }
)

#: A table by column, as ``pandas.DataFrame`` takes it.
Table = dict[str, list[Any]]


@dataclass(frozen=True)
class Adapted:
    """What an adaptation run left; tables are read from its folder when they are asked for.

    Attributes:
        folder: with all files of the run.
        metrics: content of ``metrics.json``.
    """

    folder: Path
    metrics: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.folder}: {', '.join(_told(self.metrics))}"

    __repr__ = __str__

    @cached_property
    def predictions(self) -> Table:
        """What was served, an image a row: ``pandas.DataFrame(result.predictions)``."""
        return _table(self.folder / "predictions.csv")

    @cached_property
    def patients(self) -> Table:
        """What was served, a patient or slide a row; empty where none are known."""
        path = self.folder / "patients.csv"
        return _table(path) if path.is_file() else {}

    @cached_property
    def trace(self) -> Table:
        """What the guard saw and did, a batch a row."""
        return _table(self.folder / "trace.csv")

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        text = (self.folder / "events.jsonl").read_text(encoding="utf-8")
        found = [json.loads(line) for line in text.splitlines()]
        return [{key: event[key] for key in event if key != "chain"} for event in found]

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The adapted tensors, by their names in the network."""
        content = torch.load(self.folder / "adapted.ckpt", weights_only=True, map_location="cpu")
        state: dict[str, torch.Tensor] = content["state"]
        return state


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        folder: with all files of the run; it is what ``adapt(source=…)`` takes.
    """

    folder: Path

    @cached_property
    def source(self) -> SourceCheckpoint:
        """The source checkpoint."""
        return SourceCheckpoint.load(self.folder)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Scores of the source model."""
        return self.source.metrics


def _told(metrics: Mapping[str, Any]) -> list[str]:
    """What a run came to, in a few words each."""
    told: list[str] = []
    for name in ("balanced_accuracy", "dice", "auroc", "last_quarter"):
        value = None if name == "auroc" and told else headline(metrics, name)
        told += [] if value is None else [f"{name.replace('_', ' ')} {value:.1f} %"]
    if metrics.get("level") == "group":
        told[0] += f" of {metrics['groups']} groups"
    for name in ("alarm", "reset"):
        count = metrics[f"{name}s"]
        told.append(f"{count} {name}" if count == 1 else f"{count} {name}s")
    if metrics["skipped_batches"]:
        reasons = ", ".join(
            f"{reason.replace('_', ' ')} {count}"
            for reason, count in metrics["skipped_batches"].items()
        )
        told.append(
            f"no update in {sum(metrics['skipped_batches'].values())} of {metrics['batches']} "
            f"batches ({reasons})"
        )
    if metrics["broken_images"]:
        told.append(f"{metrics['broken_images']} images with broken pixels")
    if metrics["unreadable_images"]:
        told.append(f"{metrics['unreadable_images']} images without a prediction")
    return told


def _table(path: Path) -> Table:
    """A CSV file by column."""
    table: Table = {}
    for row in read_rows(path):
        for name, cell in row.items():
            table.setdefault(name, []).append(cell if name in _TEXT else _number(cell))
    return table


def _number(cell: str) -> float | str | None:
    """A number; None for an empty cell, and text where it is none."""
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return cell
