"""Options of what all programs have: loggers, checkpoints of streams, what is written.

Nothing here imports torch, so that ``--help`` has them at once.
"""

import os
import re
from dataclasses import dataclass
from typing import Literal

from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Options of groups that people need first, as default and sentence: what has them says the same.
TARGET = (None, "domain, or domains, of the target stream; null: all but data.source")
BATCH_SIZE = (64, "images that arrive together")
#: Classes up to which all probabilities are written, unless told otherwise: a row is then about a
#: kilobyte.
MANY_CLASSES = 100
#: Endings of files for other programs, by their format, as ``holdfast.export`` writes them.
SUFFIXES = {"torch": ".pt", "safetensors": ".safetensors", "onnx": ".onnx", "program": ".pt2"}
#: W&B's keys: 40 hexadecimal digits behind an optional host, or the newer kind.
_KEY = re.compile(r"(\w+-)?[0-9a-f]{40}|wandb_v\d+_\w{20,}")


@dataclass
class WandbConfig:
    """Where a run is logged. Credentials come from the environment alone."""

    mode: Literal["online", "offline", "disabled"] = option(
        "offline",
        "online, offline (sync later) or disabled; WANDB_MODE, where set, decides between the "
        "first two",
    )
    fallback: Literal["offline", "refuse"] = option(
        "offline",
        "where the server does not answer at the start of an online run: log offline, with a "
        "warning, or refuse",
    )
    project: str = option("holdfast", "project on W&B")
    entity: str | None = option(None, "team or user on W&B")
    group: str | None = option(None, "group of runs; null: of a stream, the run's name")
    name: str | None = option(None, "name on W&B; null: the run's")
    tags: list[str] = option([], "tags, e.g. [pilot,ward3]")
    notes: str | None = option(None, "a sentence about the run")
    id: str | None = option(None, "id of the run, to resume it by; null: a new one")
    resume: Literal["never", "allow", "must", "auto"] = option(
        "never", "go on with the run of that id: allow, must or auto"
    )
    artifacts: bool = option(
        True, "log checkpoints and predictions as artifacts, with their lineage"
    )
    images: int = option(
        0, "images of the stream to log with their predictions; synced, they leave your machine"
    )

    def __post_init__(self) -> None:
        for name in ("project", "entity", "group", "name", "notes", "id", "tags"):
            value = getattr(self, name)
            if any(
                _KEY.fullmatch(str(word))
                for word in (value if isinstance(value, list) else str(value).split())
            ):
                raise InputError(
                    f"wandb.{name} looks like a W&B key: secrets belong into the environment, "
                    "WANDB_API_KEY"
                )
        if self.images < 0:
            raise InputError("wandb.images must not be negative")
        if (
            self.resume in ("allow", "must")
            and self.id is None
            and "WANDB_RUN_ID" not in os.environ
        ):
            raise InputError(f"wandb.resume={self.resume} needs the run to go on with: wandb.id=ID")


@dataclass
class CheckpointConfig:
    """When a stream leaves a checkpoint, from which ``resume=DIR`` goes on."""

    every: int | None = option(
        None, "batches between two checkpoints; null: by time, at most 1 % of the run; 0: none"
    )

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 0:
            raise InputError("checkpoint.every must not be negative")


@dataclass
class PredictionsConfig:
    """What is written of each prediction."""

    columns: Literal["auto", "all", "top5", "none"] = option(
        "auto",
        "probabilities of all classes, the top5 with their classes, or none; auto: all up to "
        f"{MANY_CLASSES}",
    )
    masks: bool = option(True, "where masks are predicted, leave a file of each in masks/")
    parquet: bool = option(False, "leave predictions.parquet as well, with ids as they are")


def check_format(format: str) -> None:
    """Refuse a format that no network is written in.

    Raises:
        InputError: it is none.
    """
    if format not in SUFFIXES:
        raise InputError(f"format={format} is not known: choose {', '.join(SUFFIXES)}")
