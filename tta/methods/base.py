"""What every adaptation method is: a plain module that predicts, then updates itself.

A method says what it adapts and by which loss; this module holds what it may say, and the order of
things in a batch. Beneath it lie ``passes`` (running the network), ``state`` (what is learned, and
the way back) and ``control`` (the un-updated twins).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from holdfast.tta.batches import check_computable, images_of
from holdfast.tta.distributed import any_of_all, place
from holdfast.tta.errors import InputError
from holdfast.tta.learning import as_in_fit
from holdfast.tta.methods.control import Controlled
from holdfast.tta.methods.prediction import Prediction, Update
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.methods.state import moved
from holdfast.tta.normalization import Statistics
from holdfast.tta.objectives import entropy
from holdfast.tta.selection import last_stage, norm_affine
from holdfast.tta.tasks import Task
from holdfast.tta.views import moved_back, view_with_move
from holdfast.tta.windows import WINDOWS, drawn, larger

__all__ = ["Method", "NormAffineMethod", "Prediction", "Update"]

#: After so many batches in a row without a sample to learn from, a person should know.
_PATIENCE = 50
#: The option of train.py that makes it write a statistic, where there is one.
_WRITTEN_BY = {"fisher": " fisher_images=2000"}


class Method(Controlled):
    """Base of all methods; subclasses say what is adapted and by which loss.

    Calling the method predicts a batch with the weights as they are, then updates them. ``predict``
    and ``update`` are the two halves; ``control`` predicts with the source's values in every
    adapted tensor, ``source`` with the source's normalisation statistics as well. All adapted
    tensors, optimiser moments, running state and the state of the random generator are in the state
    dict.

    The method works on the given model in place: its BatchNorm layers are replaced by ones with a
    choice of statistics (same names, same tensors), and only the adapted parameters require
    gradients.

    Args:
        model: network from images (N, channels, ...) to logits (N, C), holding the source's
            weights; for two classes one logit will do. Of a tuple or dictionary the first tensor
            (N, C) counts. Other tasks have answers of another form.
        num_classes: C of the data, or the number of findings.
        config: the method's hyperparameters.
        head: name of the module whose input counts as features; the last Linear, or the last
            convolution, by default.
        known: what is known of the source, by the names in ``uses``.
        task: what the network's answer means; None: one label an image.

    Raises:
        InputError: the method cannot do the task.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    #: Statistics of methods that fix theirs; those with an ``UpdateConfig`` take its choice.
    normalization: ClassVar[Statistics] = "batch"
    #: The paper, for the table of methods.
    paper: ClassVar[str] = ""
    #: Forward and backward passes a batch.
    passes: ClassVar[str] = "1/0"
    #: What is adapted, in a few words.
    updates: ClassVar[str] = "nothing"
    #: Fields of the source checkpoint that the method uses, always or with some hyperparameters.
    uses: ClassVar[tuple[str, ...]] = ()
    #: Whether the prediction is always the control's.
    static: ClassVar[bool] = False
    #: Whether ``update`` wants a prediction made before it; otherwise it makes its own.
    predicts_first: ClassVar[bool] = True
    #: Whether a short batch, or one of a single class, teaches the wrong thing.
    needs_mixed_batch: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        config: MethodConfig,
        head: str | None = None,
        known: Mapping[str, Any] | None = None,
        task: Task | None = None,
    ) -> None:
        why = None if task is None else self.refuses(task)
        if why is not None and task is not None:
            raise InputError(
                f"{type(self).__name__} does not do task={task.name}, since it {why}: use another "
                "method, such as tent, dsbr, sar or roid"
            )
        normalization = getattr(config, "normalization", self.normalization)
        alpha = getattr(config, "alpha", 0.1)
        super().__init__(model, num_classes, normalization, alpha, head, task)
        #: Whether what was predicted is finite, where somebody knows; for the next update.
        self.finite: bool | None = None
        self.config = config
        self._known = dict(known or {})
        self.open_for_learning(self.adapts(model), config.create_optimizer)
        self.register_state()
        self.mark_start()
        self.eval()

    # What subclasses say

    @classmethod
    def refuses(cls, task: Task) -> str | None:
        """Why the method cannot do a task, to stand behind "since it"; None: it can."""
        return None

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that updates change, by name; none unless a subclass says so."""
        return {}

    def register_state(self) -> None:
        """Register running state, here rather than in ``__init__``, so that ``reset`` knows its
        start.

        State of known shape goes into buffers, other state into ``memory``.
        """

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Loss of a batch, None where no sample is fit to learn from; may advance the method's
        running state.
        """
        raise NotImplementedError(
            f"{type(self).__name__} adapts parameters, so it must say by which loss"
        )

    def uncertainty(self, logits: Tensor) -> Tensor:
        """What entropy-minimising methods minimise, and filter by: (N,) nats."""
        return entropy(logits)

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Update on finite images, given their prediction; by gradient steps on ``objective``
        unless a subclass says else.
        """
        if not isinstance(self.config, UpdateConfig):
            return Update()
        loss = None
        for step in range(self.config.steps):
            if step:
                prediction = self.predict(images)
            loss = self.objective(images, prediction)
            if not any_of_all(loss is not None, images.device):
                return Update(skipped="all_filtered")
            if loss is None:  # other processes have samples, and wait for this one's gradient
                loss = 0 * prediction.logits.sum()
            self.descend(loss)
        assert loss is not None
        return Update(
            loss=loss.detach(), prediction=prediction.detach() if self.config.steps > 1 else None
        )

    def reweight(self, prior: Tensor) -> bool:
        """Let the objective aim at these class shares (C,), until the source is reset; False where
        it has no such aim.
        """
        return False

    # The order of things in a batch

    @as_in_fit()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) with which the batch leaves, or (N, L), or (N, C, *spatial): made before
        the update that follows, where the method allows it.
        """
        images = images_of(images)
        check_computable(images, self.model)
        images = images.clone() if images.is_inference() else images  # or nothing is learned
        self.begin_batch()
        prediction = self.predict(images) if self.predicts_first else None
        if prediction is not None and self.masks:
            with self.stepping_where(torch.isfinite(prediction.served.detach()).all()):
                self.finite = True
                update = self.update(images, prediction)
        else:
            self.finite = None
            update = self.update(images, prediction)
        served = update.prediction or prediction or self.predict(images)
        return served.served.detach()

    def begin_batch(self) -> None:
        """Restore the source where every batch is an episode of its own."""
        if isinstance(self.config, UpdateConfig) and self.config.episodic:
            self.reset()

    def predict(self, images: Tensor) -> Prediction:
        """Predict with the weights as they are; the result keeps the graph that ``update`` needs,
        if gradients are on, and images are seen at once.
        """
        learns = bool(self.adapted) and not self.in_windows(images)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            prediction = self.run(images)
        self.note_unlearned(images, prediction)
        return prediction

    @property
    def keeps_prediction(self) -> bool:
        """Whether a batch leaves with what was predicted before the update, whatever that comes
        to.
        """
        one = isinstance(self.config, UpdateConfig) and self.config.steps == 1
        return one and self.predicts_first and type(self).learn is Method.learn

    @property
    def masks(self) -> bool:
        """Whether weights and moments are all that an update changes, so that a step may be taken
        and come to nothing where values are not finite, which then nobody waits to hear of.
        """
        own = type(self)
        plain = own.learn is Method.learn and own.register_state is Method.register_state
        moves = self._averaging or self.control_moves
        fused = self.optimizer is not None and self.optimizer.defaults.get("fused")
        return bool(plain and fused and not moves) and place()[1] == 1

    def update(self, images: Tensor, prediction: Prediction | None = None) -> Update:
        """Learn from the images; a non-finite batch leaves all state as it was.

        Args:
            images: (N, channels, ...).
            prediction: what ``predict`` said of them; needed where ``predicts_first``.
        """
        finite, self.finite = self.finite, None
        if finite is None:  # to ask is to wait; a NaN would end up in weights, moments, marginals
            finite = bool(torch.isfinite(images if prediction is None else prediction.served).all())
        if any_of_all(not finite, images.device):
            return Update(skipped="non_finite")
        self.has_learned = not self.static
        self.keep_moving()
        # A method that asks for no prediction makes its own in ``learn``.
        if self.in_windows(images):
            update = self._learn_from_windows(images)
        else:
            update = self.learn(images, cast(Prediction, prediction))
        self.has_learned = not self.static  # also where it was taken back to the source on the way
        self.forget_moving()
        self._count_idle(update)
        return update

    def in_windows(self, images: Tensor) -> bool:
        """Whether images are larger than what the network sees at once, so that gradient steps are
        taken on some windows of them: the graph of all would not fit into memory.
        """
        window = getattr(self.model, "window", None)
        steps = self.predicts_first and self.optimizer is not None
        return steps and window is not None and larger(images, window)

    # What subclasses use, besides ``run``, ``descend`` and the rest beneath

    def known(self, name: str) -> Any:
        """What is known of the source by this name.

        Raises:
            InputError: nothing is.
        """
        if self._known.get(name) is None:
            writer = f"train.py{_WRITTEN_BY.get(name, '')}"
            raise InputError(
                f"{type(self).__name__} needs the source's {name}, which is missing: {writer} "
                f"writes it into source.ckpt; without a checkpoint give {name}=… to create_method"
            )
        return self._known[name]

    def run_view(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass on a random view of each image, with ``values`` in place of the tensors
        of those names; what is said of pixels is moved back to where they were.
        """
        view, back = self.viewed(images)
        return self.run(view, values, back)

    def viewed(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """A random view of each image, and what ``run`` needs to move back what is said of its
        pixels; None where nothing is.
        """
        view, move = view_with_move(images, self.generator)
        return view, (lambda maps: moved_back(maps, move)) if self.task.dense else None

    def uniform(self) -> Tensor:
        """(C,), or of groups (G·C,): an equal share for each class of a row."""
        return torch.full((self.task.cells,), 1 / self.num_classes)

    def nats(self, fraction: float) -> float:
        """A fraction of the largest entropy that C classes can have, ln C."""
        return fraction * float(torch.tensor(float(self.num_classes)).log())

    # How it works

    def _learn_from_windows(self, images: Tensor) -> Update:
        """Learn from a few windows of each image, drawn by seed; statistics have seen it once."""
        window = cast(Sequence[int], self.model.window)
        parts = drawn(images, window, WINDOWS, self.generator)
        update = self.learn(parts, self.predict(parts))
        if update.prediction is None:
            return update
        return update._replace(prediction=self.predict(images))  # what leaves is of whole images

    def _count_idle(self, update: Update) -> None:
        self.idle = self.idle + 1 if update.skipped == "all_filtered" else 0
        if self.idle == _PATIENCE:
            warnings.warn(
                f"{type(self).__name__} has found no sample to learn from in {_PATIENCE} batches: "
                "its filters reject all, so it does not adapt; loosen them (entropy_margin, "
                "redundancy_margin, plpd_threshold) or use another method",
                stacklevel=3,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._known = moved(self._known, fn)
        return self


class NormAffineMethod(Method):
    """A method that adapts weight and bias of every normalisation layer."""

    Config: ClassVar[type[MethodConfig]] = UpdateConfig
    config: UpdateConfig
    passes: ClassVar[str] = "1/1"
    updates: ClassVar[str] = "norm affine"
    #: Whether the published method leaves the last stage of the network alone.
    spares_last_stage: ClassVar[bool] = False

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Weights and biases of the normalisation layers, but the excluded ones."""
        exclude = self.config.exclude
        if exclude is None:
            exclude = last_stage(model) if self.spares_last_stage else []
        return norm_affine(model, exclude)
