"""``export=FILE``: what a run adapted, for other programs, when the run is done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig
from holdfast.export import check_libraries, export, facts_of
from holdfast.tta.errors import InputError
from holdfast.tta.settings import SUFFIXES


def check_export(config: AdaptConfig) -> None:
    """Refuse early what could not be written in the end.

    Raises:
        InputError: the folder of the file is not there, the file is, or a library is not.
    """
    if config.export is None:
        return
    file = Path(config.export).expanduser()
    if not file.parent.is_dir():
        raise InputError(f"export={file}: its folder does not exist: make it, or name another")
    there = [path for path in (file, facts_of(file)) if path.exists()]
    if there and not config.overwrite:
        raise InputError(
            f"export={file}: {there[0]} is there already: name another file, or overwrite=true"
        )
    if file.suffix == SUFFIXES["onnx"]:
        check_libraries()


def write_export(assembly: Assembly, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the file that was asked for, where one was.

    Args:
        assembly: the parts of the run.
        folder: of its results.
        facts: hashes of source and stream.

    Raises:
        InputError: the network cannot be written so.
        WriteError: the disk takes no more.
    """
    config = assembly.config
    if config.export is None:
        return
    file = Path(config.export).expanduser()
    [format] = [name for name, suffix in SUFFIXES.items() if suffix == file.suffix]
    told = {"run": folder.name, "guard": config.guard.kind, "stream": facts["stream"]}
    left = folder / "adapted.ckpt"
    export(assembly.checkpoint, left, format=format, path=file, told=told)  # type: ignore[arg-type]
