"""What every task says: what a network's answer means, and which rows of it count."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.marginal import likeliest, marginal_drift, predicted_counts
from holdfast.tta.prediction import Prediction
from holdfast.tta.tasks.kept import Column, Kept, KeptFigure, Scorer
from holdfast.tta.tasks.worth import figures_of

#: Logit of a cell that a row cannot be: its probability is 0 in any precision.
_FAR_BELOW = -1e4


class Task(ABC):
    """What a network's answer to an image means: the one place that knows.

    A network answers a batch with an *output*, (N, K) or (N, K, *spatial). Methods, guard and
    statistics see *rows*, each of which belongs to one of ``row_classes`` classes that exclude each
    other. Rows belong to one of ``groups`` groups, and statistics of classes are kept for each
    group: its classes stand one after the other's in a vector of ``cells``.

    Args:
        num_classes: number of names that the data give: classes, or findings.
        **options: of the task, plain values.
    """

    #: By which programs and checkpoints call it.
    name: ClassVar[str]
    #: Key of a batch under which the truth stands.
    target: ClassVar[str] = "label"
    #: The figure of ``scorer`` that training watches; larger is better.
    watch: ClassVar[str]
    #: The page about a run, a key of ``holdfast.callbacks.report.reporter.VIEWS``.
    view: ClassVar[str] = "figure"
    #: What a row is, in a word, for sentences.
    row: ClassVar[str] = "image"
    #: Whether a batch in which hardly any row is of another class teaches the wrong thing.
    screens_mix: ClassVar[bool] = False
    #: Whether each pixel has an answer, so that those of a moved view must be moved back.
    dense: ClassVar[bool] = False
    #: Names of the options that it takes.
    options: ClassVar[tuple[str, ...]] = ()
    #: Least number of names.
    fewest: ClassVar[int] = 2

    def __init__(self, num_classes: int, **options: Any) -> None:
        if not isinstance(num_classes, int) or num_classes < self.fewest:
            what = "class" if self.fewest == 1 else "classes"
            raise InputError(
                f"num_classes={num_classes}: adaptation needs at least {self.fewest} {what}"
            )
        strange = sorted(set(options) - set(self.options))
        if strange:
            known = ", ".join(self.options) or "none"
            raise InputError(f"task={self.name} has no option {strange[0]!r}: it has {known}")
        self.num_classes = num_classes
        self.given = dict(options)

    @property
    def described(self) -> dict[str, Any]:
        """Name and options, as checkpoints keep them."""
        return {"name": self.name, "options": dict(self.given)}

    @property
    def row_classes(self) -> int:
        """C: classes that a row may belong to."""
        return self.num_classes

    @property
    def groups(self) -> int:
        """G: groups of rows whose classes exclude each other."""
        return 1

    @property
    def by_image(self) -> bool:
        """Whether rows are images."""
        return self.row == "image"

    @property
    def cells(self) -> int:
        """G·C: classes of all groups."""
        return self.groups * self.row_classes

    # What a network answers

    @abstractmethod
    def head(self, model: nn.Module, name: str | None) -> nn.Module:
        """The layer of a network whose input counts as features.

        Args:
            model: the network.
            name: of the layer; None: it is looked for.

        Raises:
            InputError: there is none, or it answers with another number of classes.
        """

    @abstractmethod
    def output(self, answer: Any) -> Tensor:
        """The output (N, K) or (N, K, *spatial) in what a network answers, a tensor or several.

        Raises:
            InputError: there is none.
        """

    @abstractmethod
    def probabilities(self, output: Tensor) -> Tensor:
        """Probabilities of an output, in its shape."""

    @abstractmethod
    def inverse(self, probabilities: Tensor) -> Tensor:
        """An output that has these probabilities, in their shape."""

    @abstractmethod
    def decide(self, probabilities: Tensor) -> Tensor:
        """What is answered: (N,) classes, (N, *spatial) classes, or (N, L) whether each finding is
        present.
        """

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What training minimises, a scalar; what is unknown of the target counts for nothing."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """What predictions are worth, counted from nothing."""

    def kept(self, class_names: Sequence[str]) -> Kept:
        """What is kept of a stream's predictions, from nothing.

        Args:
            class_names: of the classes, or findings.
        """
        return KeptFigure(self.scorer())

    def scored(
        self,
        probabilities: Tensor,
        truth: Tensor,
        class_names: Sequence[str],
        domains: Sequence[str],
        *,
        groups: Column,
        columns: Mapping[str, Column],
        aggregate: bool = False,
        bootstrap: int = 0,
    ) -> dict[str, Any]:
        """What answers of one class an image are worth, as ``metrics.json`` tells; by default the
        figures of ``scorer``, without intervals.

        Args:
            probabilities: (N, C) in stream order.
            truth: (N,) labels, -1 where unknown.
            class_names: of the classes.
            domains: (N,) domain of each image.
            groups: (N,) patient or slide of each image.
            columns: (N,) subgroup of each image, by the column's name.
            aggregate: each group counts once.
            bootstrap: resamples of groups for 95 % intervals; 0: none.
        """
        known = (probabilities, truth, domains)
        parts: dict[str, Any] = {"groups": groups, "columns": columns, "aggregate": aggregate}
        return figures_of(self.scorer, self.inverse, *known, **parts)

    def figure(self, probabilities: Tensor, truth: Tensor) -> float:
        """The figure ``watch`` of answers of one class an image, in percent; NaN where nothing is
        known. Arguments as of ``scored``.
        """
        counted = self.scorer()
        counted.add(self.inverse(probabilities), truth)
        return counted.scores().get(self.watch, math.nan)

    def settle(self, kept: Any, class_names: Sequence[str]) -> None:
        """Choose what is to be chosen on validation images, and is not given; nothing by default.

        Args:
            kept: what ``kept`` has of their predictions.
            class_names: of the classes, or findings.
        """
        return

    # What statistics and objectives see of it

    @abstractmethod
    def rows(self, output: Tensor, features: Tensor) -> Prediction:
        """The rows of an output, differentiable.

        Args:
            output: from ``output``.
            features: what went into the head, (N, D) or (N, D, *spatial).
        """

    @abstractmethod
    def labels(self, target: Tensor, prediction: Prediction) -> Tensor:
        """(M,) true class of each row of a prediction, by the truth of the same images; -1 where it
        is not known.
        """

    def picked(self, labels: Tensor, prediction: Prediction) -> Tensor | None:
        """Numbers of a bounded number of rows of each image, as many of each class of theirs; None:
        all.

        Args:
            labels: (M,) class of each row.
            prediction: whose rows these are.
        """
        return None

    def sample(self, prediction: Prediction, like: Prediction | None = None) -> Prediction:
        """A bounded number of rows of each image, the same ones at each call.

        Args:
            prediction: from ``rows``.
            like: another of the same images by whose answers rows are picked, so that two models
                are compared on the same ones; None: its own.
        """
        by = prediction if like is None else like
        rows = self.picked(likeliest(by.logits.detach()), by)
        return prediction if rows is None else prediction.at(rows)

    @abstractmethod
    def mix(self, prediction: Prediction) -> Tensor:
        """Mean probability of each class in each image, over all of it: (N, G, C)."""

    # What a guard sees of it

    @property
    def unit(self) -> int:
        """Rows of an image that ``seen`` has, and that ``counts`` are in."""
        return self.groups

    def seen(self, prediction: Prediction, like: Prediction | None = None) -> Prediction:
        """A sample of rows whose logits (m, G·C) are of all cells, those of other groups far below,
        so that the likeliest cell of a row is its class.

        Args:
            prediction: from ``rows``.
            like: see ``sample``.
        """
        part = self.sample(prediction, like)
        if part.group is None:
            return part
        logits = part.logits.new_full((len(part.logits), self.cells), _FAR_BELOW)
        own = part.group[:, None] * self.row_classes + torch.arange(
            self.row_classes, device=part.group.device
        )
        return Prediction(logits.scatter_(1, own, part.logits.detach()), part.features)

    #: Images that are a look's worth of evidence.
    look: ClassVar[int] = 64
    #: Rows of ``seen`` that tell as much of a class as an image with one label does.
    worth: ClassVar[int] = 1

    def found(self, prediction: Prediction) -> Tensor:
        """(N,) share of an image's rows that are called anything but the first class."""
        return prediction.each_image((prediction.logits.detach().argmax(1) > 0).float())

    def image_doubt(self, doubt: Tensor, found: Tensor, shares: Tensor) -> Tensor:
        """(N,) doubts of single images, where agreeing on less than the source's ever hold is worth
        little.

        Args:
            doubt: (N,) from ``doubt``.
            found: (N,) from ``found``.
            shares: (101, G·C) quantiles of what images hold of each class at the source.
        """
        return doubt

    def weighed(self, doubt: Tensor, found: Tensor, shares: Tensor) -> Tensor:
        """(K,) mean doubts of models, with what answers deserve that a flip cannot change, since
        they are hardly any but one.

        Args:
            doubt: (K,) mean ``doubt`` of each.
            found: (K,) mean ``found`` of each.
            shares: (101, G·C) quantiles of what images hold of each class at the source.
        """
        return doubt

    def counts(self, prediction: Prediction) -> Tensor:
        """(G·C,) rows that are predicted as each class, all that there are, ``unit`` an image; rows
        that are not finite count for none.
        """
        return predicted_counts(prediction.logits, self.cells, prediction.group)

    #: From where on ``drift`` counts, and how much of it raises an alarm; None: as the guard has
    #: it.
    drift_level: ClassVar[float | None] = None
    drift_limit: ClassVar[float | None] = None

    def drift(self, adapted: Tensor, control: Tensor) -> Tensor:
        """How far what one model answers on the whole has moved from another, on the same images.

        Args:
            adapted: (G·C,) ``counts`` of the adapted model.
            control: of its control.

        Returns:
            Scalar in [0, 1].
        """
        drift: Tensor = marginal_drift(adapted, control)
        return drift

    def doubt(self, probabilities: Tensor, flipped: Tensor) -> Tensor | None:
        """(N,) how little a model agrees with itself once images are flipped, in [0, 1]; None where
        that tells nothing.

        Args:
            probabilities: of the images.
            flipped: of the flipped images, flipped back.
        """
        return None

    def kind(self, prediction: Prediction) -> Tensor:
        """(N,) what an image mostly shows, one of 0..``kinds``-1, for memories that keep a bit of
        each.
        """
        return prediction.logits.argmax(1)

    @property
    def kinds(self) -> int:
        """How many values ``kind`` has."""
        return self.num_classes


def described_task(description: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Name and options in a checkpoint's description; files from before tasks are of one label."""
    if description is None:
        return "single", {}
    return str(description["name"]), dict(description.get("options", {}))
