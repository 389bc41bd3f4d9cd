"""What every adaptation method is: a plain module that predicts, then updates itself.

A method says what it adapts and by which loss; this module holds what it may say, and the order of
things in a batch. Beneath it lie ``passes`` (running the network), ``state`` (what is learned, and
the way back), ``control`` (the un-updated twins) and ``informed`` (what is known).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from holdfast.tta.batches import check_computable, images_of
from holdfast.tta.distributed import any_of_all, place
from holdfast.tta.errors import InputError
from holdfast.tta.learning import as_in_fit
from holdfast.tta.methods.informed import Informed
from holdfast.tta.methods.prediction import Prediction, Update
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.normalization import Statistics
from holdfast.tta.objectives import entropy
from holdfast.tta.tasks import Task
from holdfast.tta.windows import WINDOWS, drawn, larger

__all__ = ["Method", "Prediction", "Update"]


class Method(Informed):
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
        if task is not None and (why := self.refuses(task)) is not None:
            raise InputError(
                f"{type(self).__name__} does not do task={task.name}, since it {why}: use another "
                "method, such as tent, dsbr, sar or roid"
            )
        normalization = getattr(config, "normalization", self.normalization)
        alpha = getattr(config, "alpha", 0.1)
        super().__init__(model, num_classes, normalization, alpha, head, task, known=known)
        #: Whether what was predicted is finite, where somebody knows; for the next update.
        self.finite: bool | None = None
        self.config = config
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
        again = prediction.detach() if self.config.steps > 1 else None
        return Update(loss=loss.detach(), prediction=again)

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
        self.count_idle(update.skipped)
        return update

    def in_windows(self, images: Tensor) -> bool:
        """Whether gradient steps are taken on some windows of images, which are larger than what
        the network sees at once: the graph of all would not fit into memory.
        """
        window = getattr(self.model, "window", None)
        steps = self.predicts_first and self.optimizer is not None
        return steps and window is not None and larger(images, window)

    def _learn_from_windows(self, images: Tensor) -> Update:
        """Learn from a few windows of each image, drawn by seed; statistics have seen it once."""
        parts = drawn(images, cast(Sequence[int], self.model.window), WINDOWS, self.generator)
        update = self.learn(parts, self.predict(parts))
        # What leaves is of whole images.
        again = None if update.prediction is None else self.predict(images)
        return update._replace(prediction=again)
