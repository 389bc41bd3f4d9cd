"""A guarded method in a loop of one's own, without a Trainer."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.evidence import Reference
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.batches import images_of
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import validated
from holdfast.tta.distributed import count_of_all
from holdfast.tta.errors import InputError
from holdfast.tta.learning import as_in_fit
from holdfast.tta.methods import Method
from holdfast.tta.source_facts import source_facts
from holdfast.tta.step import Mode, ServedBy, StepOutputs, VerdictState

#: What tells the guard of the source: a checkpoint, its file, or labelled batches of its images.
Source = str | Path | SourceCheckpoint | Iterable[tuple[Tensor, Tensor]]


class GuardedMethod:
    """A method with a guard beside it; make it with ``guard``.

    Attributes:
        events: what happened so far, in the form of ``events.jsonl``.
    """

    def __init__(self, module: AdaptationModule, watch: CollapseGuard) -> None:
        self._module, self._guard = module, watch
        self._last: StepOutputs | None = None
        self.events: list[dict[str, Any]] = []
        watch.start(module)

    def __call__(self, images: Tensor, ids: Sequence[str] | None = None) -> Tensor:
        """Predict a batch, adapt to it, and return what the guard lets out.

        Args:
            images: (N, channels, ...), as the network takes them.
            ids: (N,) names, for events; by default their positions in the stream.

        Returns:
            Logits (N, C), without gradients.

        Raises:
            InputError: the images are no tensor of floats, or have another number of ids.
        """
        images = images_of(images)
        if ids is not None and len(ids) != len(images):
            raise InputError(f"there are {len(ids)} ids for {len(images)} images: name each image")
        # The first batches say how many images one has; shorter ones at the end teach nothing.
        whole = count_of_all(len(images), images.device)
        self._module.batch_size = max(self._module.batch_size, whole)
        batch = {"image": images, **({} if ids is None else {"id": list(ids)})}
        with as_in_fit():
            outputs = self._module.training_step(batch, self._guard.batch)
            self._guard.act(self._module, outputs, batch)
        self.events += outputs["events"]
        self._last = outputs
        return outputs["logits"]

    @property
    def method(self) -> Method:
        """The method, to ask or to reset."""
        return self._module.method

    @property
    def mode(self) -> Mode:
        """adapting, hedging, resting, holding or frozen (docs/explanation/guard.md)."""
        return self._guard.memory.mode

    @property
    def verdict(self) -> VerdictState:
        """Of the last batch: OK, WATCH, ALARM or FROZEN."""
        return self._guard.state

    @property
    def served_by(self) -> ServedBy | None:
        """Who answered the last batch: adapted, control, source, batch, corrected or mixture."""
        return None if self._last is None else self._last["served_by"]

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch depends on; saved by ``torch.save``, it loads with
        ``weights_only``.
        """
        return {
            "module": self._module.state_dict(),
            "guard": self._guard.state_dict(),
            "batch_size": self._module.batch_size,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where ``state_dict`` was taken."""
        self._module.load_state_dict(state["module"])
        self._module.batch_size = state["batch_size"]
        if self._module.twins is not None and self._module.twins.batches:
            self._module.twins.use(self._module.twins.current)
        self._guard.load_state_dict(state["guard"])
        self._guard.start(self._module)


#: The guards in use, by their method, which lives as long.
_GUARDS: WeakValueDictionary[int, GuardedMethod] = WeakValueDictionary()


def guard(
    method: Method,
    source: Source | None = None,
    *,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> GuardedMethod:
    """Put a guard beside a method, for a loop of your own.

    With a source the guard knows what classes look like, and shares out trust between the adapted
    network and un-updated ones; a method made with ``normalization="auto"`` is then led to the
    statistics that suit the stream. Without one it compares the adapted network with its control.

    Args:
        method: from ``create_method``, on the device where images will be.
        source: a source checkpoint, its file or folder, or batches (images, labels) of the images
            that the network was trained or validated on, a few hundred in all.
        class_names: names of the classes; those of the checkpoint, or 0, 1, … by default.
        **options: of ``GuardConfig``, such as ``order="mixed"``.

    Raises:
        InputError: the source has other classes, or an option is unknown or out of range.

    Example:
        >>> import holdfast, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2))
        >>> batches = [(torch.randn(64, 8), torch.arange(64) % 2)]
        >>> method = holdfast.create_method("tent", model, num_classes=2)
        >>> guarded = holdfast.guard(method, source=batches)
        >>> guarded(torch.randn(32, 8)).shape
        torch.Size([32, 2])
        >>> guarded.verdict
        'OK'
    """
    if not isinstance(method, Method):
        raise InputError(
            f"guard takes a method, and this is {type(method).__name__}: make one of your network, "
            "create_method(name, network, num_classes=C)"
        )
    if id(method) in _GUARDS:
        raise InputError(
            "this method has a guard already, and two would take each other's corrections back: "
            "go on with the first, or make another method"
        )
    config = validated(GuardConfig, options)
    if isinstance(source, str | Path):
        source = SourceCheckpoint.load(source)
    reference, moments, calibration = _known(method, source)
    names = _named(method, source, class_names)
    watch = CollapseGuard(names, config, reference, calibration)
    twins = Candidates(method, moments) if reference is not None and not method.static else None
    guarded = GuardedMethod(AdaptationModule(method, 1, candidates=twins), watch)
    _GUARDS[id(method)] = guarded
    return guarded


def _named(method: Method, source: Any, given: Sequence[str] | None) -> list[str]:
    """The names of the classes, as given, as in the source checkpoint, or numbers.

    Raises:
        InputError: a class has no name of its own.
    """
    if given is None:
        plain = [str(number) for number in range(method.task.num_classes)]
        return source.class_names if isinstance(source, SourceCheckpoint) else plain
    names = [] if isinstance(given, str) else list(given)
    odd = not all(isinstance(name, str) for name in names) or len(set(names)) < len(names)
    if odd or len(names) != method.task.num_classes:
        raise InputError(
            f"class_names={given!r} must be {method.task.num_classes} different strings, a name "
            "for each class"
        )
    return names


def _check_of(method: Method, source: SourceCheckpoint) -> None:
    """Refuse the checkpoint of another network, whose features say nothing of this one's."""
    head = method.model.get_submodule(method.head_name)
    width = getattr(head, "in_features", getattr(head, "in_channels", None))
    theirs = source.feature_mean.shape[1]
    layers = {name for name, _ in method.model.named_modules()}
    strange = [name for name in source.layer_moments or {} if name not in layers]
    if strange or width not in (None, theirs):
        raise InputError(
            f"the source checkpoint is of another network ({theirs} features of an image where the "
            f"method's has {width}): take the one that the method's network was built from, or "
            "batches of (images, labels)"
        )


def _known(
    method: Method, source: SourceCheckpoint | Iterable[tuple[Tensor, Tensor]] | None
) -> tuple[Reference | None, Mapping[str, Tensor] | None, Mapping[str, Any] | None]:
    """What the source's classes look like in feature space and to each layer, and the guard's
    levels.
    """
    if source is None:
        return None, None, None
    if isinstance(source, SourceCheckpoint):
        _check_of(method, source)
        return Reference(*source.features), source.layer_moments, source.calibration
    facts = source_facts(method, source)
    return Reference(*facts.features), facts.layer_moments, None
