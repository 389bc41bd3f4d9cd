"""Finished adaptation runs, read back from their folders."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.tta.csvfile import read_rows
from holdfast.tta.entry import read_json


@dataclass(frozen=True)
class Run:
    """What a run left behind, in stream order.

    Attributes:
        title: how tables and pictures call it.
        metrics: content of ``metrics.json``.
        trace: rows of ``trace.csv``; numbers as floats, None where nothing was measured.
        events: lines of ``events.jsonl``.
        predictions: (N,) predicted classes.
        labels: (N,) true classes, -1 where unknown.
    """

    title: str
    metrics: dict[str, Any]
    trace: list[dict[str, Any]]
    events: list[dict[str, Any]]
    predictions: Tensor
    labels: Tensor

    @classmethod
    def read(
        cls, folder: Path, title: str, class_names: tuple[str, ...], labels: Mapping[str, int]
    ) -> "Run":
        """Read a run's folder.

        Args:
            folder: output of ``adapt.py``.
            title: how to call the run.
            class_names: names of the classes.
            labels: true class of each image id.
        """
        rows = [
            (row["id"], row["prediction"])
            for row in read_rows(folder / "predictions.csv")
            if row["prediction"]
        ]
        trace = [
            {key: _number(value) for key, value in row.items()}
            for row in read_rows(folder / "trace.csv")
        ]
        lines = (folder / "events.jsonl").read_text().splitlines()
        return cls(
            title=title,
            metrics=read_json(folder / "metrics.json"),
            trace=trace,
            events=[json.loads(line) for line in lines],
            predictions=torch.tensor([class_names.index(name) for _, name in rows]),
            labels=torch.tensor([labels.get(image, -1) for image, _ in rows]),
        )

    @property
    def corrections(self) -> list[dict[str, Any]]:
        """The events in which the guard corrected the model."""
        return [event for event in self.events if event["event"] == "correction"]


def _number(value: str) -> float | str | None:
    if value == "":
        return None
    try:
        return float(value)
    except ValueError:
        return value
