"""The cells of one stream: its references once, then each method unguarded, and guarded by each
policy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.adapting.config import configure
from holdfast.benchmarks.grid import Setting
from holdfast.benchmarks.kept import kept
from holdfast.benchmarks.orders import load_checkpoint, load_stream
from holdfast.benchmarks.passes import Outcome, loss_before, run, running_loss
from holdfast.benchmarks.summary import OURS
from holdfast.benchmarks.tables import NORMALIZATIONS, Row
from holdfast.tta.methods import METHODS
from holdfast.tta.methods.scaling import scaled
from holdfast.tta.methods.settings import UpdateConfig
from holdfast.tta.metrics import balanced_accuracy


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
    def words(self) -> list[str]:
        """How adapt.py is asked for it."""
        return [f"method={self.kind}", *(f"method.{name}={value}" for name, value in self.options)]


@dataclass(frozen=True)
class Cell:
    """A method at a learning rate, with the policies that are still to run on it; see
    ``create_cell``.
    """

    variant: Variant
    optimizer: str | None
    lr: float | None
    policies: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """How adapt.py is asked for it."""
        rate = (
            []
            if self.lr is None
            else [f"method.optimizer={self.optimizer}", f"method.lr={self.lr!r}"]
        )
        return [*self.variant.words, *rate]

    @property
    def published(self) -> list[str]:
        """The normalisation that the method was published with, whatever adapt.py's default."""
        config = METHODS[self.variant.kind].Config()
        return (
            [f"method.normalization={config.normalization}"]
            if isinstance(config, UpdateConfig)
            else []
        )


@dataclass(frozen=True)
class Task:
    """A stream with its cells.

    Args:
        setting: the stream.
        cells: what runs on it.
        source: folder of the source model.
        model: seed that the source was trained with.
        data: how adapt.py is asked for the data set.
        images: least length of the stream.
        normalizations: whether the choices of normalisation are still to be measured.
    """

    setting: Setting
    cells: tuple[Cell, ...]
    source: str
    model: int
    data: tuple[str, ...]
    images: int
    normalizations: bool


class Report(NamedTuple):
    """Rows for one of the tables: references, results, predictions or errors; ``done`` counts the
    cells that are dealt with.
    """

    table: str
    rows: list[Row]
    done: int = 0


def create_cell(
    variant: Variant, rate: float, source: str, data: tuple[str, ...], batch_size: int
) -> Cell:
    """The cell at a multiple of the learning rate that adapt.py would take by itself.

    Args:
        variant: the method.
        rate: the multiple.
        source: folder of the source model, on which the default depends.
        data: how adapt.py is asked for the data set.
        batch_size: images a batch.
    """
    checkpoint = load_checkpoint(source)
    options = configure([f"source={source}", *data, *variant.words]).method.options
    chosen = scaled(
        options,
        METHODS[variant.kind].Config,
        model=checkpoint.architecture,
        size=checkpoint.size,
        batch_size=batch_size,
    )
    if not isinstance(chosen, UpdateConfig):
        return Cell(variant, None, None)
    assert chosen.lr != "auto"
    return Cell(variant, chosen.optimizer, float(f"{chosen.lr * rate:.6g}"))


def run_task(task: Task, tell: Callable[[Report], None]) -> None:
    """Run a stream's cells; what fails is reported, and the rest goes on.

    Args:
        task: the stream and its cells.
        tell: takes each report as soon as it is there.
    """
    names = {**task.setting._asdict(), "model": task.model}
    try:
        stream = _Stream(task)
        tell(Report("predictions", kept({**names, "method": None, "lr": None}, stream.told())))
        if task.normalizations:
            tell(Report("references", [{**names, **stream.normalizations()}]))
    except Exception as error:  # of whatever kind: it must not end the other streams
        tell(Report("errors", [{**names, "error": sentence(error)}], done=len(task.cells)))
        return
    for cell in task.cells:
        _run_cell(stream, cell, {**names, "method": cell.variant.label, "lr": cell.lr}, tell)
        tell(Report("results", [], done=1))


def _run_cell(stream: "_Stream", cell: Cell, keys: Row, tell: Callable[[Report], None]) -> None:
    """Run a cell under its policies; each is told as it ends, predictions before the result, by
    which it counts as done.
    """
    try:
        unguarded, served = stream.unguarded(cell)
    except Exception as error:  # as in ``run_task``
        tell(Report("errors", [{**keys, "error": sentence(error)}]))
        return
    tell(Report("predictions", kept(keys, {"off": served})))
    for policy in cell.policies:
        try:
            guarded, served = stream.guarded(cell, policy)
        except Exception as error:
            tell(Report("errors", [{**keys, "policy": policy, "error": sentence(error)}]))
            continue
        tell(Report("predictions", kept(keys, {policy: served})))
        tell(Report("results", [{**keys, "policy": policy, **unguarded, **guarded}]))


class _Stream:
    """A stream in memory, with its references."""

    def __init__(self, task: Task) -> None:
        self.task, self.checkpoint = task, load_checkpoint(task.source)
        self.batches, self.words = load_stream(task.setting, task.source, task.data, task.images)
        self.labels = self.batches.labels
        self.source, self.control = (
            self.run([*NORMALIZATIONS[name], "guard=off"]) for name in ("source", "batch")
        )

    def run(self, words: list[str]) -> Outcome:
        return run(self.batches, configure([*self.words, *words]), self.checkpoint)

    def told(self) -> dict[str, Tensor]:
        """What all cells share: labels, images, and the predictions of source and control."""
        images = torch.cat([batch["index"] for batch in self.batches])
        references = {"source": self.source.predictions, "control": self.control.predictions}
        return {"labels": self.labels, "images": images, **references}

    def scores(self, name: str, outcome: Outcome) -> dict[str, float]:
        """Balanced accuracy over the stream, and over its last quarter, in percent."""
        classes, quarter = len(self.checkpoint.class_names), slice(len(self.labels) * 3 // 4, None)
        return {
            name: balanced_accuracy(outcome.predictions, self.labels, classes),
            f"{name}_last": balanced_accuracy(
                outcome.predictions[quarter], self.labels[quarter], classes
            ),
        }

    def normalizations(self) -> Row:
        """What the stream is worth without updates, by normalisation."""
        choices = {
            name: list(words)
            for name, words in NORMALIZATIONS.items()
            if name not in ("source", "batch")
        }
        scores = {
            name: self.scores(name, self.run([*words, "guard=off"]))[name]
            for name, words in choices.items()
        }
        chosen = self.run(["method=norm", "method.normalization=auto", "guard=on"])
        scores["auto"] = self.scores("auto", chosen)["auto"]
        source, control = self.scores("source", self.source), self.scores("control", self.control)
        return {
            "images": len(self.labels),
            **source,
            **control,
            **scores,
            "batch": control["control"],
        }

    def unguarded(self, cell: Cell) -> tuple[Row, Tensor]:
        """What all policies of a cell share: the references' scores and the unguarded method's, and
        its predictions.
        """
        outcome = self.run([*cell.words, *cell.published, "guard=off"])
        references = {
            name: self.scores(name, base)[name]
            for name, base in (("source", self.source), ("control", self.control))
        }
        return {**references, **self.scores("unguarded", outcome)}, outcome.predictions

    def guarded(self, cell: Cell, policy: str) -> tuple[Row, Tensor]:
        """What a policy makes of the cell, and the predictions.

        Ours comes with adapt.py's choice of normalisation; a published guard meets the method as
        that was published. A policy may bring options of its guard, as words behind the name.
        """
        guard = f"guard={policy}".split()
        normalization = [] if guard[0] == f"guard={OURS}" else cell.published
        outcome = self.run([*cell.words, *normalization, *guard])
        alarm, bases = (
            outcome.first_alarm,
            [base.predictions for base in (self.source, self.control)],
        )
        losses = running_loss(outcome.predictions, bases, self.labels, self.task.setting.batch_size)
        row = {
            **self.scores("guarded", outcome),
            "alarms": outcome.alarms,
            "resets": outcome.resets,
            "first_alarm_batch": alarm,
            "loss_before_alarm": None if alarm is None else loss_before(alarm, losses),
            "seconds": round(outcome.seconds, 3),
        }
        return row, outcome.predictions


def sentence(error: Exception) -> str:
    """An error as a table has it, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
