"""A source that is trained first, where a configuration says how and there is none yet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.tta.errors import InputError

#: Options that both programs have, and that hold for the training as well.
_SHARED = ("seed", "trainer", "wandb", "logger")


def train_first(values: Mapping[str, Any]) -> None:
    """Train the source that ``train`` describes, unless ``source`` holds one already.

    Args:
        values: of ``adapt.py``, as they were given.

    Raises:
        InputError: nothing says where the source goes, or its options are none.
    """
    given, source = values.get("train"), values.get("source")
    if given is None:
        return
    if not isinstance(given, Mapping) or not isinstance(source, str | Path):
        raise InputError(
            "train= holds options of train.py, such as train.data=phantom, and source=DIR says "
            "where the source goes"
        )
    from holdfast.tta.checkpoint import source_file

    if source_file(source).is_file():
        return
    # Imported here, since whoever has a source never needs it.
    from holdfast.training.config import completed
    from holdfast.training.run import train

    shared = {name: values[name] for name in _SHARED if name in values}
    train(completed({**shared, **given, "output": str(Path(source).expanduser())}))
