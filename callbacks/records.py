"""What a stream's batches came to: the trace of statistics, and events, written as they happen."""

import csv
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from lightning import LightningModule, Trainer

from holdfast.callbacks.grown import Rows
from holdfast.callbacks.guard.signals import SIGNALS
from holdfast.tta.csvfile import LINK, RowFile, read_rows
from holdfast.tta.distributed import objects_of_all
from holdfast.tta.errors import InputError, said
from holdfast.tta.growing import GrowingFile
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import Answering, Mode, StepOutputs
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
            *(f"share_{name}" for name in get_args(Answering)),
        ]
    )
)
#: Those that hold words.
_TEXTS = frozenset(("verdict", "mode", "leads", "choice", "skipped", "served_by"))
#: Columns of a trace that the run's picture and a second look at the stream need.
PICTURED = ("R", "drift", "entropy", "choice")


class TraceWriter(StreamCallback):
    """Writes ``trace.csv``, a row a batch, and ``events.jsonl``, a line an event; logs both; place
    it after the guard.

    Args:
        folder: where the two files go.
        kept: columns of the trace that are kept in memory; None: all, as a report needs them.
        seal: what the chains of lines begin with, the short hash of source and stream.
    """

    def __init__(self, folder: Path, kept: Collection[str] | None = None, seal: str = "") -> None:
        self.folder = folder
        self.rows = Rows(kept)
        self._seal = seal
        self._skips: Counter[str] = Counter()
        self._trace: RowFile | None = None
        self._events: RowFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._before = self._next = 0  # batches of the run that is gone on with; number of the next

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files, or take up those of a run that was stopped."""
        state, self._taken_up = self._taken_up, None
        if not trainer.is_global_zero:
            return
        trace, events = (self.folder / name for name in ("trace.csv", "events.jsonl"))
        self._trace = RowFile(trace, self._seal, state and state["trace"])
        self._events = RowFile(events, self._seal, state and state["events"])
        if state is None:
            self._trace.write_header(TRACE_COLUMNS)
        else:
            self._remember(trace)

    def _remember(self, trace: Path) -> None:
        """Take in the rows that a run left which is gone on with.

        Raises:
            InputError: they are damaged.
        """
        try:
            for row in read_rows(trace):
                self.rows.add(measured_in(row))
        except (ValueError, csv.Error) as error:
            raise InputError(
                f"{trace} is damaged ({said(error)}): put the file back, or run again, "
                "overwrite=true"
            ) from error

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow; none in other processes than the first."""
        return [file for file in (self._trace, self._events) if file is not None]

    def progress(self) -> dict[str, Any]:
        """What it takes to go on."""
        return {
            "batches": self._next,
            "skips": dict(self._skips),
            "trace": self._trace.state_dict() if self._trace else None,
            "events": self._events.state_dict() if self._events else None,
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up = progress
        self._skips = Counter(progress["skips"])
        self._before = self._next = progress["batches"]

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the batch's row and events."""
        rows = outputs.get("rows")  # pixels, or findings of images
        logits = outputs["logits"] if rows is None else rows.logits
        entropy = torch.special.entr(logits.detach().float().softmax(1)).sum(1)
        own = {
            "images": len(outputs["logits"]),
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
        number = self._before + batch_idx
        self._next = number + 1
        row = {"batch": number, **measured, **handled, "skipped": whole["skipped"], **shares}
        curves = {**measured, "mode": _CODES.get(outputs.get("mode", ""))}
        self.rows.add(row)
        self._skips.update([whole["skipped"]] if whole["skipped"] else [])
        self._write(row, whole["events"])
        log_trace(
            trainer.loggers,
            number,
            {key: value for key, value in curves.items() if isinstance(value, float)},
        )

    def _write(self, row: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
        if self._trace is None or self._events is None:
            return
        self._trace.write([[cell_of(row.get(column)) for column in TRACE_COLUMNS]])
        self._events.write_objects(events)

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
    own = [part for part in parts if part["skipped"] not in (None, "elsewhere")]
    return {
        **{name: _mean(parts, name) for name in ("entropy", "loss")},
        "skipped": own[0]["skipped"] if own else first["skipped"],
        "events": _events(first, own),
    }


def _mean(parts: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean over the images of all processes; None where one of them knows nothing."""
    if any(part[name] is None for part in parts):
        return None
    total: float = sum(part[name] * part["images"] for part in parts)
    return total / max(1, sum(part["images"] for part in parts))


def _events(
    first: Mapping[str, Any], blamed: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The first process's events, and once why nothing was learned, with the images to blame.

    Args:
        first: what the first process says.
        blamed: what those say that had a reason of their own.
    """
    skips = [event for part in blamed for event in part["events"] if event["event"] == "skipped"]
    events = [event for event in first["events"] if event["event"] != "skipped"]
    if skips:
        ids = [name for event in skips for name in event.get("ids", ())]
        events.append({**skips[0], "ids": ids} if ids else skips[0])
    return events


def measured_in(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of ``trace.csv`` as it was before it was written."""
    return {name: _read_cell(name, cell) for name, cell in row.items() if name != LINK}


def _read_cell(name: str, cell: str) -> Any:
    if not cell or name in _TEXTS:
        return cell or None
    if name == "looked":
        return cell == "1"
    return int(cell) if name in ("batch", "stands_for") else float(cell)


def cell_of(value: Any) -> Any:
    """A value as ``trace.csv`` holds it: floats in full, flags as 0 or 1."""
    return int(value) if isinstance(value, bool) else value
