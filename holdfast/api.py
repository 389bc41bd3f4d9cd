"""Training and adaptation from Python: values in, results out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from holdfast.adapting import run as adapting
from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig
from holdfast.adapting.config import completed as completed_adaptation
from holdfast.results import Adapted, Trained
from holdfast.training import run as training
from holdfast.training.config import TrainConfig
from holdfast.training.config import completed as completed_training
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import to_dict
from holdfast.tta.errors import InputError


def adapt(config: AdaptConfig | None = None, /, **options: Any) -> Adapted:
    """Carry a source model through a stream, adapting as it goes, as ``holdfast adapt`` does.

    Args:
        config: options as a dataclass, in place of keywords or beside them.
        **options: those of ``holdfast adapt --help``, or ``resume=DIR`` alone. A choice is a
            string; its options follow in a dictionary with the choice as ``kind``, or as
            ``**{"method.lr": 1e-3}``.

    Returns:
        Metrics, and predictions, trace and events as tables.

    Raises:
        InputError: an option that cannot be used, in one sentence; nothing was written then.

    Example:
        >>> import holdfast
        >>> source = holdfast.train(data={"kind": "phantom", "train_images": 300}, epochs=1,
        ...                         calibrate="off", trainer={"enable_progress_bar": False},
        ...                         wandb={"mode": "disabled"})
        >>> result = holdfast.adapt(source=source.folder, method="tent", guard="on",
        ...                         data={"target_images": 128},
        ...                         trainer={"enable_progress_bar": False},
        ...                         wandb={"mode": "disabled"})
        >>> len(result.predictions["id"]), result.metrics["batches"]
        (128, 2)
    """
    given = {**_given(config), **options}
    if given.keys() == {"resume"} and given["resume"] is not None:
        with entry.quiet():
            return Adapted(*adapting.resume(given["resume"]))
    assembly = Assembly.of(*completed_adaptation(AdaptConfig, given))
    if assembly.config.check is not None or assembly.config.preflight.kind == "only":
        raise InputError(
            "check=only and preflight=only are for the command line: leave them out, and ask "
            "Assembly.of(config).preflight() what the first images say"
        )
    with entry.quiet():
        return Adapted(*adapting.adapt(assembly))


def train(config: TrainConfig | None = None, /, **options: Any) -> Trained:
    """Train a source model, or adopt one (``weights=FILE``), as ``holdfast train`` does.

    Args:
        config: options as a dataclass, in place of keywords or beside them.
        **options: those of ``holdfast train --help``, as for ``adapt``.

    Returns:
        The run's folder, which ``adapt(source=…)`` takes, its checkpoint and metrics.

    Raises:
        InputError: an option that cannot be used, in one sentence; nothing was written then.

    Example:
        >>> import holdfast
        >>> holdfast.train(epochs=0)
        Traceback (most recent call last):
        ...
        holdfast.tta.errors.InputError: epochs must be at least 1
    """
    given = {**_given(config), **options}
    if given.keys() == {"resume"} and given["resume"] is not None:
        with entry.quiet():
            return Trained(training.resume(given["resume"]))
    completed = completed_training(given)
    if completed.check is not None:
        raise InputError("check=only is for the command line: leave it out")
    with entry.quiet():
        if completed.calibrate.kind == "only":
            return Trained(training.recalibrate(completed).parent)
        return Trained(training.train(completed))


def load_source(
    path: str | Path, model: str | Callable[..., nn.Module] | None = None
) -> SourceCheckpoint:
    """Read a source checkpoint.

    Args:
        path: ``source.ckpt``, or the folder that holds it.
        model: the function that built its network, or ``FILE.py:function``, where one did.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"a source checkpoint is named by its path, and not {type(path).__name__}")
    return SourceCheckpoint.load(path, model)


def _given(config: AdaptConfig | TrainConfig | None) -> dict[str, Any]:
    """Options that a dataclass sets, those that it leaves at their defaults left out."""
    if config is None:
        return {}
    if not isinstance(config, AdaptConfig | TrainConfig):
        raise InputError(
            f"options are named, such as source=DIR, and {config!r} stands alone: name it"
        )
    defaults = to_dict(type(config)())
    return {name: value for name, value in to_dict(config).items() if value != defaults[name]}
