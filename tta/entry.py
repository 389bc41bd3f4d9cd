"""What the command-line programs share: help, errors, output folders, Trainer arguments."""

import inspect
import io
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.tta.config import Groups, as_yaml, closest, read_arguments, resolve, save
from holdfast.tta.errors import InputError, ProcessLost, Terminated, WriteError, said
from holdfast.tta.folder import is_disk_error, no_folder, write_error
from holdfast.tta.processes import announce_start, end_with_first, is_first, together
from holdfast.tta.saying import spoken
from holdfast.tta.usage import explain, topic_of
from holdfast.tta.words import words

if TYPE_CHECKING:  # Lightning takes seconds, and --help needs none of it
    from lightning import LightningModule, Trainer

T = TypeVar("T")

#: Loggers that tell on every run which devices there are, which seed is set, and who takes part.
_TALKATIVE = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.distributed",
)
#: Asks a program for the words that it takes, for completion.
PRINT_WORDS = "--print_words"
#: Exit status of a run whose results cannot be written: EX_IOERR of sysexits.h.
_IO_ERROR = 74


def run(
    work: Callable[[], None],
    schema: type,
    groups: Groups,
    usage: str,
    argv: Sequence[str],
    stopped: str = "stopped before the end",
    configure: Callable[[Sequence[str]], Any] | None = None,
) -> int:
    """Do the work, or print the help or the configuration; returns the exit status.

    An ``InputError`` becomes one sentence and 2, a process that was lost one and 1, a disk that
    takes no more one and 74; of several processes, the first one speaks. A Trainer that is
    terminated would leave with 0, as if the work were done; it is 143 here, as for any process that
    SIGTERM ends. Of Ctrl-C, which a Trainer turns into an exit with 1, ``stopped``
    tells, and the status is 130. Where nobody reads the output any more, it is 141.

    Args:
        work: the whole of it, from its configuration on.
        schema: dataclass of the options.
        groups: choices of each group.
        usage: what to type, and what it does.
        argv: command-line words.
        stopped: what is said after Ctrl-C.
        configure: makes a configuration of words, where that takes more than the words.
    """
    topic = topic_of(argv)
    if topic is not None:
        work = partial(_explain, schema, groups, usage, topic)
    elif PRINT_WORDS in argv:
        work = partial(_print_words, schema, groups)
    elif "--print_config" in argv:
        others = [word for word in argv if word != "--print_config"]
        make = configure or partial(configured, schema, groups)
        work = partial(_print_config, make, others)
    quieten()
    end_with_first()
    try:
        mute = nullcontext() if is_first() else redirect_stdout(io.StringIO())
        with _terminable(), mute, spoken():
            work()
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, ProcessLost, WriteError, OSError) as error:
        return _failed(error)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, _termination()):
            if is_first():
                print(_noted("terminated before the end", error), file=sys.stderr)
            return 128 + signal.SIGTERM
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(_noted(stopped, error), file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _explain(schema: type, groups: Groups, usage: str, topic: str) -> None:
    print(explain(schema, groups, usage, topic))


def _print_words(schema: type, groups: Groups) -> None:
    print("\n".join(words(schema, groups)))


def _print_config(configure: Callable[[Sequence[str]], Any], words: Sequence[str]) -> None:
    print(as_yaml(configure(words)), end="")


def fit(
    trainer: "Trainer", module: "LightningModule", data: Any, stopped: Path | None = None
) -> None:
    """``trainer.fit``, of which processes that share it are told the end, and SIGTERM is never
    forgotten.

    Args:
        trainer: that fits.
        module: what.
        data: to what.
        stopped: Lightning's checkpoint, of a run that is gone on with.

    Raises:
        ProcessLost: another process ended before its work was done.
        SIGTERMException: the process was terminated; the batch it was at is done.
    """
    with together():
        trainer.fit(module, data, ckpt_path=stopped, weights_only=True if stopped else None)
    if trainer.received_sigterm:  # after the last batch, when the Trainer asks no more
        raise _termination()


@contextmanager
def incomplete(
    count: Callable[[], int], total: int | None, folder: Path | None = None
) -> Iterator[None]:
    """Whatever ends the block early, its sentence says how far the stream came, and how it goes on.

    Args:
        count: images served so far.
        total: images of the stream; None: nobody knows.
        folder: of the run, where that can be gone on with.
    """
    try:
        yield
    except BaseException as error:
        goes_on = "" if folder is None else f"; go on with resume={folder}"
        of_all = "" if total is None else f" of {total}"
        error.add_note(f"incomplete: {count()}{of_all} images were served{goes_on}")
        raise


def _failed(error: Exception) -> int:
    """Say in a sentence what went wrong; returns the exit status."""
    if isinstance(error, OSError):
        if not is_disk_error(error):
            raise error
        told = write_error(error)
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return _failed(told)
    # One from a worker process comes with its traceback in front.
    sentence = str(error).strip().rsplit("InputError: ", 1)[-1]
    if is_first() or isinstance(error, InputError):
        print(_noted(f"error: {sentence}", error), file=sys.stderr)
    if isinstance(error, WriteError):
        return _IO_ERROR
    return 2 if isinstance(error, InputError) else 1


def _noted(sentence: str, error: BaseException) -> str:
    """A sentence, and what was noted on its way."""
    return "; ".join([sentence, *getattr(error, "__notes__", ())])


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what goes on with an exception, so that files and loggers are closed and the
    status is told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> None:
    # A Trainer that runs has put a handler of its own before this one, and ends behind the batch.
    if signal.getsignal(signal.SIGTERM) is _terminate:
        raise _termination()


def _termination() -> type[SystemExit]:
    """What SIGTERM raises: Lightning's exception, once there is one."""
    loaded = sys.modules.get("lightning.pytorch.utilities.exceptions")
    found: type[SystemExit] = getattr(loaded, "SIGTERMException", Terminated)
    return found


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
    from lightning import Trainer

    known = inspect.signature(Trainer).parameters
    for key in given:
        if key not in known or key in ("callbacks", "logger"):
            raise InputError(
                f"unknown option trainer.{key}: "
                f"{closest(key, set(known) - {'callbacks', 'logger'})}"
            )
    # One device unless more are asked for: what several compute together differs in rounding and in
    # the statistics of their shares of a batch, which nobody should meet by buying a second GPU.
    quiet = {"enable_model_summary": False, "num_sanity_val_steps": 0, "devices": 1}
    return {**quiet, **defaults, **given}


def create_trainer(arguments: Mapping[str, Any]) -> "Trainer":
    """Lightning's Trainer; what it refuses (a device that is not there, say) is the user's to mend.

    Raises:
        InputError: the Trainer refused an argument.
    """
    from lightning import Trainer
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

    try:
        trainer = Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"lightning.Trainer refuses its arguments ({reason}): check trainer.*"
        ) from error
    # Copies of this process would keep what they find to themselves; sharded weights are in no
    # one's.
    copied = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
    if copied or (trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy)):
        raise InputError(
            "several processes share the work by trainer.strategy=ddp only, which a script can use "
            "and a notebook cannot: name it, or take trainer.devices=1"
        )
    if trainer.world_size > 1:
        announce_start()
    return trainer


def output_folder(path: str, config: Any, program: str) -> Path:
    """Create the folder of a run, with its resolved configuration in it."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(config, folder / "config.yaml", f"{program} {folder}/config.yaml")
    except OSError as error:
        raise no_folder(error, folder) from error
    return folder


def check_choice(value: str | None) -> None:
    """Refuse what ``check=`` does not know.

    Raises:
        InputError: it is something else than ``only``.
    """
    if value not in (None, "only"):
        raise InputError(f"check={value} is not known: check=only checks, and null runs")


def check_counts(config: Any, *names: str) -> None:
    """Refuse what would end a run with a traceback: counts and seeds that nothing takes.

    Raises:
        InputError: one is negative, or a seed of more than 32 bits.
    """
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 2**32:
            raise InputError(f"{name}={value} must be a whole number from 0 to {2**32 - 1}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary, one key a line."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a dictionary.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no readable JSON ({said(error, path)}): repair it, or take another"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object: repair it, or take another")
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block Lightning leaves out what no user can act on."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    try:
        with warnings.catch_warnings():
            quieten()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def quieten() -> None:
    """Leave out what Lightning says on every run and no user can act on."""
    for name in _TALKATIVE:
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
