"""What leaves the stream: predictions, the trace of statistics, and events, each written as it
happens.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from holdfast.callbacks.base import SHARES
from holdfast.callbacks.columns import Columns, Known
from holdfast.callbacks.grown import Grown, Names, Rows
from holdfast.callbacks.guard.modes import Mode
from holdfast.callbacks.guard.signals import SIGNALS
from holdfast.tta.batches import described
from holdfast.tta.csvfile import RowFile
from holdfast.tta.distributed import batch_of_all, objects_of_all
from holdfast.tta.stages import StreamCallback
from holdfast.tta.tracking import log_trace

#: How the guard handled a batch: its mode, whether it looked, how many batches the look stands for,
#: who led, and under which statistics the model worked.
HANDLED = ("mode", "looked", "stands_for", "leads", "choice")
#: A mode as a number, for curves: in the order of ``Mode``, from adapting, 0, to frozen, 4.
_CODES = {mode: float(code) for code, mode in enumerate(get_args(Mode))}
#: What a person looks at, then what else ``callbacks.replay`` needs, then how the batch was
#: handled.
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
            "mode",
            *(signal.name for signal in SIGNALS),
            *HANDLED,
            "skipped",
            "served_by",
            *(f"share_{name}" for name in SHARES),
        ]
    )
)
#: Columns of a trace that the run's picture and a second look at the stream need.
PICTURED = ("R", "drift", "entropy", "choice")


class PredictionWriter(StreamCallback, BasePredictionWriter):
    """Writes ``predictions.csv``, a row an image, and keeps what the metrics need; place it after
    the guard.

    It does so in every stage of the Trainer. Images without an ``id`` in their batch are named by
    their position in the stream.

    Args:
        path: the file.
        class_names: names of the classes, which name the probability columns.
        skipped: reason for each image, by id, that could not be read: they stand at the end, with
            nothing else.
        lost: the loader's, id and reason of those that can no longer be read: they stand there too.
        columns: which probabilities are written, as ``callbacks.columns`` knows them.
        expected: images of the stream, for which memory is set aside.
        known: (N,) what the image set says of each image, by name: columns behind all others.
    """

    def __init__(
        self,
        path: Path,
        class_names: tuple[str, ...],
        skipped: Mapping[str, str] | None = None,
        lost: Mapping[int, tuple[str, str]] | None = None,
        columns: str = "all",
        expected: int = 0,
        known: Known | None = None,
    ) -> None:
        super().__init__("batch")
        self.path = path
        self.class_names = class_names
        self.skipped = dict(skipped or {})
        self.lost: Mapping[int, tuple[str, str]] = {} if lost is None else lost
        #: Images that got no prediction, for they could not be read.
        self.unreadable = 0
        #: Images with broken pixels.
        self.broken = 0
        self.seconds = 0.0
        self._columns = Columns(columns, class_names)
        names = ["id", "prediction", "confidence", *self._columns.names]
        self._names = [*names, "verdict", "served_by", "reason"]
        # A column of the data's that is called like one of ours is left out.
        self._known = {n: of for n, of in (known or {}).items() if n not in self._names}
        self._probabilities = Grown(np.float32, expected)
        self._labels = Grown(np.int32, expected)
        self._rows = Grown(np.int64, expected)
        self._domains = Names()
        self._file: RowFile | None = None
        self._started = 0.0
        self._images = 0  # of this process

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file and write its header."""
        self._started = perf_counter()
        if not trainer.is_global_zero:
            return
        self._file = RowFile(self.path)
        self._file.write([[*self._names, *self._known]])

    def on_served(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the batch, of all processes, and write it."""
        count = len(outputs["logits"])
        given = described(batch, count, self._images)
        self._images += count
        broken = torch.zeros(count, dtype=torch.bool)
        if outputs.get("broken") is not None:
            broken[outputs["broken"].cpu()] = True
        served = batch_of_all(
            {
                "id": given.ids,
                "domain": given.domains,
                "index": given.index.cpu(),
                "label": given.labels.cpu(),
                "probabilities": outputs["logits"].float().softmax(1).cpu(),
                "served_by": [outputs.get("served_by", "")] * count,
                "broken": broken,
            }
        )
        if self._file is not None:
            self._write_rows(served, outputs.get("verdict", ""))
        self.broken += int(served["broken"].sum())
        self._probabilities.add(served["probabilities"].numpy())
        self._labels.add(served["label"].numpy())
        self._rows.add(served["index"].numpy())
        self._domains.add(served["domain"])
        self.seconds = perf_counter() - self._started

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take in the batch, as Lightning asks a writer of predictions to."""
        self.on_served(trainer, pl_module, prediction, batch, batch_idx)

    def _write_rows(self, served: Mapping[str, Any], verdict: str) -> None:
        assert self._file is not None
        confidences, predictions = served["probabilities"].max(1)
        rows = zip(
            served["id"],
            predictions.tolist(),
            confidences.tolist(),
            self._columns.cells(served["probabilities"]),
            served["served_by"],
            served["broken"].tolist(),
            self._told(served["index"].numpy()),
            strict=True,
        )
        self._file.write(
            [
                [
                    name,
                    self.class_names[label],
                    f"{confidence:.6f}",
                    *cells,
                    verdict,
                    served_by,
                    "broken pixels were replaced" if repaired else "",
                    *known,
                ]
                for name, label, confidence, cells, served_by, repaired, known in rows
            ]
        )

    def _told(self, rows: npt.NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """What is known of each image, by its row in the image set."""
        if not self._known:
            return [()] * len(rows)
        return list(zip(*(of[rows].tolist() for of in self._known.values()), strict=True))

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was skipped, and close the file."""
        lost = [told for part in objects_of_all(dict(self.lost)) for told in sorted(part.items())]
        rows = [*self.skipped.items(), *(told for _, told in lost)]
        self.unreadable = len(rows)
        if self._file is None:
            return
        empty, unknown = [""] * (len(self._names) - 2), [""] * len(self._known)
        self._file.write([[name, *empty, reason, *unknown] for name, reason in rows])
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file; what was predicted stays written."""
        self._close()

    @property
    def probabilities(self) -> Tensor:
        """(N, C) of all images, in stream order."""
        return torch.from_numpy(self._probabilities.values)

    @property
    def labels(self) -> Tensor:
        """(N,) of all images, in stream order; -1 where there is none."""
        return torch.from_numpy(self._labels.values).long()

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(N,) which image of the image set each is."""
        return self._rows.values

    @property
    def served(self) -> int:
        """Images that left so far."""
        return len(self._rows)

    @property
    def domains(self) -> list[str]:
        """(N,) domain of each image."""
        return self._domains.values

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


class TraceWriter(StreamCallback):
    """Writes ``trace.csv``, a row a batch, and ``events.jsonl``, a line an event; logs both; place
    it after the guard.

    Args:
        folder: where the two files go.
        kept: columns of the trace that are kept in memory; None: all, as a report needs them.
    """

    def __init__(self, folder: Path, kept: Collection[str] | None = None) -> None:
        self.folder = folder
        self.rows = Rows(kept)
        self._skips: Counter[str] = Counter()
        self._trace: RowFile | None = None
        self._events: RowFile | None = None

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files."""
        if not trainer.is_global_zero:
            return
        self._trace = RowFile(self.folder / "trace.csv")
        self._events = RowFile(self.folder / "events.jsonl")
        self._trace.write([TRACE_COLUMNS])

    def on_served(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the batch's row and events."""
        entropy = torch.special.entr(outputs["logits"].float().softmax(1)).sum(1)
        own = {
            "images": len(entropy),
            "entropy": entropy.sum().item() / max(1, len(entropy)),
            "loss": None if outputs.get("loss") is None else float(outputs["loss"]),
            "skipped": outputs.get("skipped"),
            "events": list(outputs.get("events", ())),
        }
        whole = _put_together(objects_of_all(own))
        measured = {
            "entropy": whole["entropy"],
            "loss": whole["loss"],
            **outputs.get("statistics", {}),
        }
        handled = {key: outputs.get(key) for key in ("verdict", *HANDLED, "served_by")}
        shares = {f"share_{name}": share for name, share in outputs.get("shares", {}).items()}
        row = {"batch": batch_idx, **measured, **handled, "skipped": whole["skipped"], **shares}
        curves = {**measured, "mode": _CODES.get(outputs.get("mode", ""))}
        self.rows.add(row)
        self._skips.update([whole["skipped"]] if whole["skipped"] else [])
        self._write(row, whole["events"])
        log_trace(
            trainer.loggers,
            batch_idx,
            {key: value for key, value in curves.items() if isinstance(value, float)},
        )

    def _write(self, row: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
        if self._trace is None or self._events is None:
            return
        self._trace.write([[cell_of(row.get(column)) for column in TRACE_COLUMNS]])
        if events:
            lines = "".join(json.dumps(event) + "\n" for event in events)
            self._events.write_lines(lines, len(events))

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened, as the first process wrote it; a long stream has too much of it for
        memory.
        """
        if self._events is None:
            return []
        with self._events.path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    @property
    def skipped(self) -> dict[str, int]:
        """How many batches taught nothing, by the reason."""
        return dict(self._skips.most_common())

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the files."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the files; what happened stays written."""
        self._close()

    def _close(self) -> None:
        for file in (self._trace, self._events):
            if file is not None:
                file.close()


def _put_together(parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the processes say of their shares of a batch, as if one had had all of it.

    All judge alike, so the first one's events are those of all; but why nothing was learned, and
    which images are to blame, only those know that had them.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    images = sum(part["images"] for part in parts)
    means: dict[str, float | None] = {}
    for name in ("entropy", "loss"):
        known = [part for part in parts if part[name] is not None]
        total = sum(part[name] * part["images"] for part in known)
        means[name] = total / max(1, images) if len(known) == len(parts) else None
    own = [part for part in parts if part["skipped"] not in (None, "elsewhere")]
    skips = [event for part in own for event in part["events"] if event["event"] == "skipped"]
    blamed = [name for event in skips for name in event.get("ids", ())]
    events = [event for event in first["events"] if event["event"] != "skipped"]
    if skips:
        events.append({**skips[0], "ids": blamed} if blamed else skips[0])
    return {**means, "skipped": own[0]["skipped"] if own else first["skipped"], "events": events}


def cell_of(value: Any) -> Any:
    """A value as ``trace.csv`` holds it: floats in full, flags as 0 or 1."""
    return int(value) if isinstance(value, bool) else value
