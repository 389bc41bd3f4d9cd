"""What leaves the stream: predictions, the trace of statistics, and events, each written as it happens."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.judge import STATISTICS, cell_of
from tta.tracking import log_trace

#: What a person looks at, then what else ``callbacks.replay`` needs, then how the batch was handled.
TRACE_COLUMNS = tuple(
    dict.fromkeys(
        [
            "batch",
            "J",
            "R",
            "drift",
            "entropy",
            "loss",
            "verdict",
            *STATISTICS,
            "checked",
            "skipped",
            "choice",
            "served_by",
        ]
    )
)


class PredictionWriter(Callback):
    """Writes ``predictions.csv``, a row an image, and keeps what the metrics need; place it after the guard.

    Args:
        path: the file.
        class_names: names of the classes, which name the probability columns.
        skipped: reason for each image, by id, that could not be read: they stand at the end, with nothing else.
    """

    def __init__(
        self, path: Path, class_names: tuple[str, ...], skipped: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.skipped = dict(skipped or {})
        self.domains: list[str] = []
        self.rows: list[int] = []
        #: Images with broken pixels.
        self.broken = 0
        self.seconds = 0.0
        self._probabilities: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._file: IO[str] | None = None
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file and write its header."""
        self._file = self.path.open("w", newline="")
        columns = [
            "id",
            "prediction",
            "confidence",
            *(f"prob_{name}" for name in self.class_names),
            "verdict",
            "served_by",
            "reason",
        ]
        csv.writer(self._file).writerow(columns)
        self._started = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the batch."""
        assert self._file is not None
        probabilities = outputs["logits"].float().softmax(1).cpu()
        confidences, predictions = probabilities.max(1)
        state = [outputs.get("verdict", ""), outputs.get("served_by", "")]
        broken = outputs.get("broken")
        self.broken += 0 if broken is None else len(broken)
        reasons = dict.fromkeys(
            [] if broken is None else broken.tolist(), "broken pixels were replaced"
        )
        rows = zip(
            batch["id"],
            predictions.tolist(),
            confidences.tolist(),
            probabilities.tolist(),
            strict=True,
        )
        csv.writer(self._file).writerows(
            [
                name,
                self.class_names[label],
                f"{confidence:.6f}",
                *(f"{p:.6f}" for p in row),
                *state,
                reasons.get(index, ""),
            ]
            for index, (name, label, confidence, row) in enumerate(rows)
        )
        self._file.flush()
        self._probabilities.append(probabilities)
        self._labels.append(batch["label"].cpu())
        self.domains += batch["domain"]
        self.rows += batch["index"].tolist()
        self.seconds = perf_counter() - self._started

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was skipped, and close the file."""
        assert self._file is not None
        empty = [""] * (len(self.class_names) + 4)
        csv.writer(self._file).writerows(
            [name, *empty, reason] for name, reason in self.skipped.items()
        )
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file; what was predicted stays written."""
        self._close()

    @property
    def probabilities(self) -> Tensor:
        """(N, C) of all images, in stream order."""
        return torch.cat(self._probabilities)

    @property
    def labels(self) -> Tensor:
        """(N,) of all images, in stream order; -1 where there is none."""
        return torch.cat(self._labels)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


class TraceWriter(Callback):
    """Writes ``trace.csv``, a row a batch, and ``events.jsonl``, a line an event; logs both; place it after the guard.

    Args:
        folder: where the two files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._files: list[IO[str]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files."""
        self._files = [
            (self.folder / name).open("w", newline="") for name in ("trace.csv", "events.jsonl")
        ]
        csv.writer(self._files[0]).writerow(TRACE_COLUMNS)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the batch's row and events."""
        probabilities = outputs["logits"].float().softmax(1)
        measured = {
            "entropy": torch.special.entr(probabilities).sum(1).mean().item(),
            "loss": None if outputs.get("loss") is None else float(outputs["loss"]),
            **outputs.get("statistics", {}),
        }
        handled = {
            key: outputs.get(key)
            for key in ("verdict", "checked", "skipped", "choice", "served_by")
        }
        row = {"batch": batch_idx, **measured, **handled}
        self.rows.append(row)
        csv.writer(self._files[0]).writerow([cell_of(row.get(column)) for column in TRACE_COLUMNS])
        for event in outputs.get("events", ()):
            self.events.append(event)
            self._files[1].write(json.dumps(event) + "\n")
        for file in self._files:
            file.flush()
        log_trace(
            trainer.loggers,
            batch_idx,
            {key: value for key, value in measured.items() if isinstance(value, float)},
        )

    @property
    def skipped(self) -> dict[str, int]:
        """How many batches taught nothing, by the reason."""
        return dict(Counter(row["skipped"] for row in self.rows if row["skipped"]).most_common())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the files."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the files; what happened stays written."""
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()
