"""Runs as W&B keeps them: files of offline runs, and projects on its server."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import wandb
from wandb.proto import wandb_internal_pb2

from holdfast.tta.errors import InputError, said

#: Bytes before the first record, of a block, and of a record's header: checksum (4), length (2),
#: type (1). W&B writes LevelDB's log format.
_OPENING, _BLOCK, _HEADER = 7, 32768, 7
#: Types of the last part of a record, and of one that is whole.
_LAST = (4, 1)
#: Seconds to wait for the server.
_PATIENCE = 20


class WandbRun(NamedTuple):
    """What W&B knows of a run."""

    id: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


def log_records(data: bytes) -> Iterator[bytes]:
    """Records of a W&B file; of one that is still written, those that are whole."""
    parts, at = b"", _OPENING
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:  # no header fits into the rest of a block
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        at += _HEADER + length
        if at > len(data):
            return
        parts += data[at - length : at]
        if kind in _LAST:
            yield parts
            parts = b""


def read_file(path: Path) -> WandbRun:
    """An offline run; of one that ended before it was under way, nothing but its name.

    Args:
        path: a file ``*.wandb``.

    Raises:
        InputError: it is none.
    """
    run_id = path.stem
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for data in log_records(path.read_bytes()):
        try:
            record = wandb_internal_pb2.Record.FromString(data)
        except Exception as error:  # of the library that W&B writes with
            raise InputError(f"{path} is no file of W&B's ({said(error)}): leave it out") from error
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
            config |= _values(record.run.config.update)
        elif kind == "config":
            config |= _values(record.config.update)
        elif kind == "summary":
            summary |= _values(record.summary.update)
    return WandbRun(run_id, config, summary)


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def read_project(name: str) -> list[WandbRun]:
    """The finished runs of ``adapt.py`` in a project on the server.

    Args:
        name: ENTITY/PROJECT, or PROJECT of one's own.

    Raises:
        InputError: the server does not answer, or knows no such project.
    """
    wanted = {"jobType": "adapt", "state": "finished"}
    try:
        api = wandb.Api(timeout=_PATIENCE)
        return [
            WandbRun(run.id, run.config, run.summary_metrics)
            for run in api.runs(name, filters=wanted, lazy=False)
        ]
    # Of its many libraries each has errors of its own.
    except Exception as error:
        raise InputError(
            f"W&B's project {name} cannot be read ({said(error)}): check its name, WANDB_API_KEY "
            "and the network, or name folders of runs"
        ) from error
