"""Which source models the rows of a folder were measured with: those of two are never mixed in one
table.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from holdfast.benchmarks.orders import load_checkpoint
from holdfast.benchmarks.plan import Model
from holdfast.tta import entry
from holdfast.tta.errors import InputError

#: The hash of each source model, by its name.
_FILE = "sources.json"


def record_models(folder: Path, models: Iterable[Model]) -> None:
    """Write down which source models the rows to come are measured with.

    Args:
        folder: of the results.
        models: all trained.

    Raises:
        InputError: rows that are there are of others.
    """
    known = recorded_models(folder)
    places = {model.name: model.folder for model in models}
    new = {name: load_checkpoint(str(place)).hash for name, place in places.items()}
    for name in _other(known, new):
        raise InputError(
            f"{folder} holds results of another source model than {places[name]}, and they would "
            "be "
            "mixed: choose another folder, output=DIR, or name those of the results, sources=DIR"
        )
    entry.write_json(folder / _FILE, {**known, **new})


def merge_models(folder: Path, parts: Sequence[Path]) -> None:
    """Put together what shards were measured with.

    Raises:
        InputError: two of them had different source models for the same streams.
    """
    known, of = recorded_models(folder), dict.fromkeys(recorded_models(folder), folder)
    for part in parts:
        new = recorded_models(part)
        for name in _other(known, new):
            raise InputError(
                f"{part} and {of[name]} were measured with different source models ({name}), and "
                "cannot be merged: run one of them again with the other's, sources=DIR"
            )
        of = {**dict.fromkeys(new, part), **of}
        known = {**known, **new}
    entry.write_json(folder / _FILE, known)


def recorded_models(folder: Path) -> dict[str, str]:
    """The hashes of the source models of a folder's rows, by name; none where there are no rows."""
    path = folder / _FILE
    if not (path.is_file() and (folder / "results.csv").is_file()):
        return {}
    return {str(name): str(digest) for name, digest in entry.read_json(path).items()}


def _other(known: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name, digest in new.items() if known.get(name, digest) != digest]
