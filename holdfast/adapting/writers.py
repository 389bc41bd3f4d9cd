"""Who writes the predictions of a run, by what its task asks for."""

from collections.abc import Callable
from pathlib import Path

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks import PredictionWriter
from holdfast.callbacks.cases import CaseWriter
from holdfast.callbacks.columns import known_of
from holdfast.callbacks.findings import FindingWriter
from holdfast.callbacks.leaving import Writer
from holdfast.callbacks.predictions import KEPT
from holdfast.tta.errors import InputError


def create_writer(assembly: Assembly, folder: Path, seal: str) -> Writer:
    """The writer of a run's predictions.

    Args:
        assembly: the parts of the run.
        folder: of its results.
        seal: what the chain of rows begins with.

    Raises:
        InputError: nobody writes what the task asks for.
    """
    task = assembly.checkpoint.meaning
    if task.target not in _WRITERS:
        raise InputError(
            f"task={task.name} has answers that no file is written of yet: adapt in a loop of your "
            "own, holdfast.guard"
        )
    return _WRITERS[task.target](assembly, folder, seal)


def _of_labels(assembly: Assembly, folder: Path, seal: str) -> PredictionWriter:
    images = assembly.images
    return PredictionWriter(
        folder / "predictions.csv",
        tuple(assembly.checkpoint.class_names),
        images.skipped,
        assembly.loader.lost,
        assembly.config.predictions.columns,
        len(assembly.stream),
        known_of(images, assembly.columns),
        folder / KEPT,
        seal,
    )


def _of_masks(assembly: Assembly, folder: Path, seal: str) -> CaseWriter:
    images = assembly.images
    return CaseWriter(
        folder,
        assembly.checkpoint.meaning,
        tuple(assembly.checkpoint.class_names),
        images,
        assembly.loader.lost,
        known_of(images, assembly.columns),
        assembly.config.predictions.masks,
        seal,
    )


def _of_findings(assembly: Assembly, folder: Path, seal: str) -> FindingWriter:
    images = assembly.images
    return FindingWriter(
        folder / "predictions.csv",
        assembly.checkpoint.meaning,
        tuple(assembly.checkpoint.class_names),
        skipped=images.skipped,
        lost=assembly.loader.lost,
        expected=len(assembly.stream),
        known=known_of(images, assembly.columns),
        kept=folder / KEPT,
        seal=seal,
    )


#: By the key of a batch under which the truth stands.
_WRITERS: dict[str, Callable[[Assembly, Path, str], Writer]] = {
    "label": _of_labels,
    "mask": _of_masks,
    "findings": _of_findings,
}
