"""Checkpoints and results as W&B artifacts, so that W&B shows which source, and which state, a
result came from.

The source checkpoint leaves ``train.py`` and enters ``adapt.py`` under one name, made from its
weights, and W&B knows versions by their content: a run that was offline is linked with the run that
trained its source once both are synced.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.results import flattened
from holdfast.tta.tracking import wandb_runs

_LOG = logging.getLogger(__name__)


def source_name(source: SourceCheckpoint) -> str:
    """The artifact of a source checkpoint; its versions differ in what does not belong to the
    weights, say in calibration.
    """
    return _allowed(f"source-{source.data['kind']}-{source.network['kind']}-{source.hash[:8]}")


def adapted_name(source: SourceCheckpoint) -> str:
    """The artifact of what adaptation made of a source."""
    return f"adapted-{source.hash[:8]}"


def log_artifact(
    loggers: Iterable[Logger],
    name: str,
    kind: str,
    files: Sequence[Path],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Give files out as an artifact; they are copied, so that a later run into the same folder does
    not matter.

    Args:
        loggers: of the run.
        name: of the artifact; signs that W&B does not allow are replaced.
        kind: model, predictions or benchmark.
        files: what it holds.
        metadata: what is known of it.
    """
    for run in wandb_runs(loggers):
        _declare(run, "output", _artifact(name, kind, files, metadata, "mutable"))


def use_model(
    loggers: Iterable[Logger],
    role: str,
    name: str,
    file: Path,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Declare a checkpoint as the run's input: the version of an artifact that has this content,
    made where it is not known.

    Args:
        loggers: of the run.
        role: source or start; the configuration's ``ROLE_artifact`` becomes NAME@DIGEST.
        name: of the artifact.
        file: its one file, which stays where it is, and must until an offline run is synced.
        metadata: what is known of it.
    """
    for run in wandb_runs(loggers):
        artifact = _artifact(name, "model", [file], metadata, "immutable")
        run.config.update({f"{role}_artifact": f"{name}@{artifact.digest}"}, allow_val_change=True)
        _declare(run, "input", artifact)


def source_metadata(source: SourceCheckpoint) -> dict[str, Any]:
    """What W&B shows of a source checkpoint."""
    scores = {
        key: value
        for key, value in flattened(source.metrics)
        if key in ("balanced_accuracy", "auroc/macro", "dice")
    }
    return {
        "network": source.network,
        "classes": list(source.class_names),
        "sha256": source.hash,
        **scores,
    }


def _artifact(
    name: str,
    kind: str,
    files: Sequence[Path],
    metadata: Mapping[str, Any] | None,
    policy: Literal["mutable", "immutable"],
) -> Any:
    import wandb  # here: it takes a second, and a run without it needs none

    artifact = wandb.Artifact(_allowed(name), kind, metadata=dict(metadata or {}))
    for file in files:
        artifact.add_file(str(file), policy=policy)
    return artifact


def _declare(run: Any, end: Literal["input", "output"], artifact: Any) -> None:
    try:
        if end == "output":
            run.log_artifact(artifact)
        elif run.offline:
            # What use_artifact itself does with an artifact that is new; offline it refuses, for no
            # run could wait for the answer. The record says that the run uses the version, and
            # syncing sees to it.
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(artifact)
    except Exception as error:  # whatever W&B raises, the run goes on
        _LOG.warning("the W&B artifact %s was not logged (%s)", artifact.name, type(error).__name__)


def _allowed(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]
