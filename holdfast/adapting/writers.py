"""Who writes the predictions of a run, by what its task asks for."""

from collections.abc import Callable
from pathlib import Path

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks.cases import CaseWriter
from holdfast.callbacks.columns import known_of
from holdfast.callbacks.leaving import Writer, row_writer
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


def _of_rows(assembly: Assembly, folder: Path, seal: str) -> Writer:
    images = assembly.images
    return row_writer(
        assembly.checkpoint.meaning,
        folder / "predictions.csv",
        tuple(assembly.checkpoint.class_names),
        assembly.config.predictions.columns,
        skipped=images.skipped,
        lost=assembly.loader.lost,
        expected=len(assembly.stream),
        known=known_of(images, assembly.columns),
        kept=folder / KEPT,
        seal=seal,
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


#: By the key of a batch under which the truth stands.
_WRITERS: dict[str, Callable[[Assembly, Path, str], Writer]] = {
    "label": _of_rows,
    "mask": _of_masks,
    "findings": _of_rows,
}
