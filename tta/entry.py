"""What the command-line programs share: help, errors, output folders, Trainer arguments."""

import inspect
import io
import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tta.config import Groups, closest, describe, read_arguments, resolve, save
from tta.errors import InputError, ProcessLost, said
from tta.processes import is_first

T = TypeVar("T")


def run(
    work: Callable[[], None],
    schema: type,
    groups: Groups,
    usage: str,
    argv: Sequence[str],
    stopped: str = "stopped before the end",
) -> int:
    """Do the work, or print the help; returns the exit status.

    An ``InputError`` becomes one sentence and 2, a process that was lost one sentence and 1; of several
    processes, the first one speaks. A Trainer that is terminated would leave with 0, as if the work were done;
    it is 143 here, as for any process that SIGTERM ends. Of Ctrl-C, which a Trainer turns into an exit with 1, ``stopped``
    tells, and the status is 130.
    """
    if any(word in ("--help", "-h", "help") for word in argv):
        print(describe(schema, groups, usage))
        return 0
    quieten()
    try:
        with nullcontext() if is_first() else redirect_stdout(io.StringIO()):
            work()
    except ProcessLost as error:
        if is_first():
            print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        # One from a worker process comes with its traceback in front.
        print(f"error: {str(error).strip().rsplit('InputError: ', 1)[-1]}", file=sys.stderr)
        return 2
    except SIGTERMException:  # a SystemExit itself
        print("terminated before the end", file=sys.stderr)
        return 128 + signal.SIGTERM
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(stopped, file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def configured(
    schema: type[T], groups: Groups, argv: Sequence[str], base: Mapping[str, Any] | None = None
) -> T:
    """The validated configuration of command-line words."""
    return resolve(schema, groups, read_arguments(argv, groups, base))


def trainer_arguments(given: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Arguments of Lightning's Trainer: the given ones over our defaults.

    Raises:
        InputError: the Trainer has no such argument.
    """
    known = inspect.signature(Trainer).parameters
    for key in given:
        if key not in known or key in ("callbacks", "logger"):
            raise InputError(
                f"unknown option trainer.{key}: {closest(key, set(known) - {'callbacks', 'logger'})}"
            )
    # One device unless more are asked for: what several compute together differs in rounding and in
    # the statistics of their shares of a batch, which nobody should meet by buying a second GPU.
    quiet = {"enable_model_summary": False, "num_sanity_val_steps": 0, "devices": 1}
    return {**quiet, **defaults, **given}


def create_trainer(arguments: Mapping[str, Any]) -> Trainer:
    """Lightning's Trainer; what it refuses (a device that is not there, say) is the user's to mend.

    Raises:
        InputError: the Trainer refused an argument.
    """
    try:
        trainer = Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"lightning.Trainer refuses its arguments ({said(error)}): check trainer.*"
        ) from error
    # Copies of this process would keep what they find to themselves; sharded weights are in no one's.
    copied = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
    if copied or (trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy)):
        raise InputError(
            "several processes share the work by trainer.strategy=ddp only, which a script can use "
            "and a notebook cannot: name it, or take trainer.devices=1"
        )
    return trainer


def output_folder(path: str, config: Any, program: str) -> Path:
    """Create the folder of a run, with its resolved configuration in it."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(config, folder / "config.yaml", f"python {program} {folder}/config.yaml")
    except OSError as error:
        raise InputError(
            f"the output folder {folder} cannot be written ({said(error)}): choose another, output=DIR"
        ) from error
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary, one key a line."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a dictionary."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def quieten() -> None:
    """Leave out what Lightning says on every run and no user can act on."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*is deprecated.*")
    warnings.filterwarnings(
        "ignore", message=".*Experiment logs directory .* exists and is not empty.*"
    )
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings(
        "ignore", message="No (positive|negative) samples in targets"
    )  # a class is missing, as is reported
    warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")
