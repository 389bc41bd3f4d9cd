"""The cells of one stream: each method alone and under each guard, as rows of tables."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from holdfast.benchmarks.config import LABELLED, OFF, TOLD, rate_of
from holdfast.benchmarks.grid import Setting
from holdfast.benchmarks.measures import loss_before, measures, running_loss, scores
from holdfast.benchmarks.orders import load_stream, write_labels
from holdfast.benchmarks.passes import Outcome, assembled, load_checkpoint, run
from holdfast.benchmarks.summary import OURS
from holdfast.benchmarks.tables import METRIC, NORMALIZATIONS, Row
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.methods.settings import UpdateConfig


@dataclass(frozen=True)
class Variant:
    """A method under the label that tables give it.

    Args:
        label: in the tables.
        kind: a name of ``METHODS``.
        options: hyperparameters, in place of adapt.py's.
    """

    label: str
    kind: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def learns(self) -> bool:
        """Whether it takes gradient steps, and so has a learning rate."""
        return issubclass(METHODS[self.kind].Config, UpdateConfig)

    @property
    def words(self) -> list[str]:
        """How adapt.py is asked for it."""
        return [f"method={self.kind}", *(f"method.{name}={value}" for name, value in self.options)]


@dataclass(frozen=True)
class Cell:
    """A method at a learning rate, with the guards that are still to run on it; see
    ``create_cell``.
    """

    variant: Variant
    optimizer: str | None = None
    lr: float | None = None
    policies: tuple[str, ...] = ()

    @property
    def names(self) -> Row:
        """The columns that name it."""
        return {"method": self.variant.label, "optimizer": self.optimizer, "lr": self.lr}

    def words(self, policy: str) -> list[str]:
        """How adapt.py is asked for it under a guard, whose own options may follow its name.

        Ours comes with adapt.py's choice of normalisation; under others, and alone, the method has
        that which it was published with.
        """
        words = [*self.variant.words, *f"guard={policy}".split()]
        if self.lr is not None:
            words += [f"method.optimizer={self.optimizer}", f"method.lr={self.lr!r}"]
        config = METHODS[self.variant.kind].Config.as_published()
        if isinstance(config, UpdateConfig) and policy.split()[0] != OURS:
            words.append(f"method.normalization={config.normalization}")
        return words


@dataclass(frozen=True)
class StreamCells:
    """A stream with its cells.

    Args:
        setting: the stream.
        images: its least length.
        cells: what runs on it.
        source: folder of the source model.
        model: seed that the source was trained with.
        data: how adapt.py is asked for the data set.
        compared: whether runs are held against source and control, as the study of guards does;
            else each is a row by itself.
        normalizations: whether the choices of normalisation are still to be measured.
    """

    setting: Setting
    images: int
    cells: tuple[Cell, ...]
    source: str
    model: int
    data: tuple[str, ...]
    compared: bool = False
    normalizations: bool = False


#: The table of what went wrong.
_ERRORS = "errors"


class Report(NamedTuple):
    """Rows for one of the tables; ``done`` counts the cells that are dealt with."""

    table: str
    rows: list[Row]
    done: int = 0


def create_cell(
    variant: Variant, rate: float | str, source: str, data: tuple[str, ...], batch_size: int
) -> Cell:
    """The cell at a learning rate.

    Args:
        variant: the method.
        rate: a multiple of the rate that adapt.py would take by itself, or optimiser and rate.
        source: folder of the source model, on which the default depends.
        data: how adapt.py is asked for the data set.
        batch_size: images a batch.
    """
    if not variant.learns:
        return Cell(variant)
    optimizer, number = rate_of(rate)
    if optimizer is not None:
        return Cell(variant, optimizer, float(f"{number:.6g}"))
    words = [f"source={source}", *data, *variant.words, f"stream.batch_size={batch_size}"]
    chosen = assembled(words).config.method.options
    return Cell(variant, chosen.optimizer, float(f"{chosen.lr * number:.6g}"))


def run_task(task: StreamCells) -> Iterator[Report]:
    """Run a stream's cells, and report each as soon as it is there; what fails is reported, and the
    rest goes on.
    """
    names = {**task.setting._asdict(), "images": task.images, "model": task.model}
    stream = _Compared(task) if task.compared else _Stream(task)
    begun = _attempt({**names, "method": None, "lr": None}, "references", stream.begin)
    yield begun
    if begun.table == _ERRORS:
        yield Report("results", [], done=len(task.cells))
        return
    for cell in task.cells:
        keys = {**names, **cell.names}
        alone = _attempt(keys, "results", partial(stream.alone, cell))
        yield alone
        for policy in () if alone.table == _ERRORS else cell.policies:
            work = partial(stream.under, policy, cell)
            yield _attempt({**keys, "policy": policy}, "results", work)
        yield Report("results", [], done=1)


def _attempt(keys: Row, table: str, work: Callable[[], Row]) -> Report:
    """What the work found, or what went wrong."""
    try:
        found = work()
    except Exception as error:  # of whatever kind: it must not end the other cells
        sentence = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Report(_ERRORS, [{**keys, "error": sentence}])
    return Report(table, [{**keys, **found}]) if found else Report("results", [])


class _Stream:
    """A stream in memory, whose runs are rows by themselves; each step returns what it found."""

    def __init__(self, task: StreamCells) -> None:
        self.task = task

    def begin(self) -> Row:
        """Load it, and measure what all cells share."""
        task = self.task
        self.class_names = load_checkpoint(task.source).class_names
        self.batches, self.words = load_stream(task.setting, task.source, task.data, task.images)
        self.task_of, self.truth = load_checkpoint(task.source).meaning, self.batches.truth
        return {}

    def alone(self, cell: Cell) -> Row:
        """Run what all guards of a cell share."""
        return {}

    def under(self, policy: str, cell: Cell) -> Row:
        """Run a cell under a guard."""
        outcome = self.guarded(cell.words(policy))
        if self.truth.dim() > 1:  # masks and findings: what their task watches takes its place
            measured = scores("balanced_accuracy", outcome.logits, self.truth, self.task_of)
        else:
            measured = measures(outcome.probabilities, self.truth, self.class_names)
        return {
            **measured,
            "resets": outcome.resets,
            "seconds": round(outcome.seconds, 3),
            METRIC: self.task_of.watch,
        }

    def guarded(self, words: Sequence[str]) -> Outcome:
        """One pass under a guard, with labels or shares of the classes where it asks for some."""
        words = [self.told(word) if word.startswith(TOLD) else word for word in words]
        asked = [word for word in words if word.startswith(LABELLED)]
        if not asked:
            return self.run(words)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.csv"
            share = float(asked[0].removeprefix(LABELLED)) / 1000
            write_labels(path, self.batches, share, self.class_names, self.task.setting.seed)
            kept = [word for word in words if not word.startswith(LABELLED)]
            return self.run(["guard.prevalence=labels", *kept, f"labels={path}"])

    def told(self, word: str) -> str:
        """What tells the guard the true shares of the classes to within so much."""
        if self.truth.dim() > 1:
            raise InputError("told=WIDTH is of one label an image: leave it out of policies")
        width, known = float(word.removeprefix(TOLD)), self.truth[self.truth >= 0]
        shares = torch.bincount(known, minlength=len(self.class_names)) / len(known)
        bounds = torch.stack([shares - width, shares + width], 1).clamp(0, 1)
        table = dict(zip(self.class_names, bounds.tolist(), strict=True))
        return f"guard.prevalence={json.dumps(table)}"

    def run(self, words: Sequence[str]) -> Outcome:
        """One pass."""
        return run(self.batches, [*self.words, *words])


class _Compared(_Stream):
    """A stream in memory, with source and control, against which runs are held."""

    def begin(self) -> Row:
        """Load it, run the references, and measure what each normalisation is worth."""
        super().begin()
        self.source, self.control = (
            self.run([*NORMALIZATIONS[name], "guard=off"]) for name in ("source", "batch")
        )
        self.shared = {
            **self.scores("source", self.source),
            **self.scores("control", self.control),
        }
        return self.normalizations() if self.task.normalizations else {}

    def normalizations(self) -> Row:
        """What the stream is worth without updates, by normalisation."""
        row = {**self.shared, "batch": self.shared["control"], "images": len(self.truth)}
        for name, words in NORMALIZATIONS.items():
            if name not in row:
                row[name] = self.scores(name, self.run([*words, "guard=off"]))[name]
        chosen = self.run(["method=norm", "method.normalization=auto", "guard=on"])
        return {**row, **self.scores("auto", chosen)}

    def alone(self, cell: Cell) -> Row:
        """Run the method by itself."""
        outcome = self.run(cell.words(OFF))
        self.base = {**self.shared, **self.scores("unguarded", outcome)}
        return {}

    def under(self, policy: str, cell: Cell) -> Row:
        """Run it under a guard."""
        outcome = self.guarded(cell.words(policy))
        alarm = outcome.first_alarm
        return {
            **self.base,
            **self.scores("guarded", outcome),
            "alarms": outcome.alarms,
            "resets": outcome.resets,
            "first_alarm_batch": alarm,
            "loss_before_alarm": None if alarm is None else self.loss_before(alarm, outcome),
            "seconds": round(outcome.seconds, 3),
            METRIC: self.task_of.watch,
        }

    def scores(self, name: str, outcome: Outcome) -> dict[str, float]:
        """See ``measures.scores``."""
        return scores(name, outcome.logits, self.truth, self.task_of)

    def loss_before(self, alarm: int, outcome: Outcome) -> float | None:
        """See ``measures.loss_before``; None where images have no label to count by."""
        if self.truth.dim() > 1:
            return None
        bases = [self.source.predictions, self.control.predictions]
        batch_size = self.task.setting.batch_size
        return loss_before(alarm, running_loss(outcome.predictions, bases, self.truth, batch_size))
