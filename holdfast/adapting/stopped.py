"""A run that was stopped: what it was, where it stands, and whether it can be gone on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig, configured
from holdfast.adapting.outputs import PROGRAM
from holdfast.tta.errors import InputError
from holdfast.tta.folder import clear, result_in, sweep
from holdfast.tta.processes import is_first
from holdfast.tta.saying import say
from holdfast.tta.streamfile import NAME, before, load_stream

#: What stands for the hash of a stream of which nobody knows what will come.
WAITS = "data=watch"


def facts_of(assembly: Assembly) -> dict[str, Any]:
    """What a run is, by which its checkpoint is recognised."""
    stream = assembly.stream.hash(assembly.images) if not assembly.waits else WAITS
    return {"source": assembly.checkpoint.hash, "stream": stream}


def run_name(folder: Path, assembly: Assembly) -> str:
    """The name of the run in a folder: the folder's own below runs/adapt."""
    if folder.resolve().parent == Path(PROGRAM.root).resolve():
        return folder.name
    return assembly.config.name or assembly.name


def stopped_run(folder: Path) -> Assembly:
    """The parts of the run in a folder.

    Raises:
        InputError: there is none, it is complete, or its source or data are not there.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise InputError(
            f"{folder} holds no run, for config.yaml is not there: name the folder of a run of "
            f"{PROGRAM.name}, resume=DIR"
        )
    if (folder / "metrics.json").exists() and not any(map(Path.exists, _checkpoints(folder))):
        raise InputError(
            f"the run in {folder} is complete, and there is nothing to resume: run again in "
            f"another folder, {PROGRAM.name} {config} output=DIR"
        )
    return Assembly.of(*configured(AdaptConfig, [str(config)]))


def stopped_at(folder: Path, assembly: Assembly) -> Sequence[Mapping[str, Any]] | None:
    """Where the run stands, a state of each process; None: nothing was served, so it begins anew.

    Raises:
        InputError: its checkpoints are of another source or stream, or none of them is whole.
    """
    if is_first():
        sweep(folder, PROGRAM)
    content = load_stream(folder / NAME)
    if content is None:
        if is_first() and result_in(folder, PROGRAM):
            clear(folder, PROGRAM, spare=("config.yaml",))
        say(f"the run in {folder} was stopped before its first checkpoint, and begins anew")
        return None
    facts = facts_of(assembly)
    for name, told in (("source", "the source checkpoint is"), ("stream", "the images are")):
        if content[name] != facts[name]:
            raise InputError(
                f"{told} no longer as when the run in {folder} began, so it cannot go on: put "
                "back what was there, or run again, overwrite=true"
            )
    states: Sequence[Mapping[str, Any]] = content["processes"]
    say(f"going on in {folder} behind batch {states[0]['loader']['position']}")
    return states


def _checkpoints(folder: Path) -> tuple[Path, Path]:
    return folder / NAME, before(folder / NAME)
