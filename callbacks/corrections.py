"""What can be done about an alarm, mildest first: each correction is a small function of the
guarded module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from holdfast.tta.methods import Prediction


@runtime_checkable
class Guardable(Protocol):
    """What the guard asks of a LightningModule, besides ``logits`` and ``features`` in its step's
    outputs.
    """

    def control(self, batch: Any) -> Prediction:
        """What the un-updated twin says of the batch."""

    def reset(self) -> None:
        """Restore the source's weights, with optimiser moments and running state."""

    def pause(self, paused: bool = True) -> None:
        """Stop updating, or go on."""


@runtime_checkable
class Correctable(Guardable, Protocol):
    """A module that also knows the milder corrections; others are reset in their place."""

    def restore(self, fraction: float) -> None:
        """Move the adapted weights by ``fraction`` of their distance to the source's."""

    def reweight(self, prior: Tensor) -> bool:
        """Let the objective aim at these class shares (C,); False where it has no such aim."""

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate, until the next reset."""


@dataclass(frozen=True)
class Correction:
    """A rung of the ladder.

    Attributes:
        apply: changes the module, given the control's class shares (C,), and says in a sentence
            what it did.
        resets: whether the source's weights come back whole.
        final: whether updates stop for good.
    """

    apply: Callable[[Guardable, Tensor], str]
    resets: bool = False
    final: bool = False


def reset(module: Guardable, prior: Tensor) -> str:
    """The source's weights, moments and running state."""
    module.reset()
    return "Restored the source's weights, moments and running state."


def restore(module: Guardable, prior: Tensor) -> str:
    """Half-way back to the source's weights."""
    if not isinstance(module, Correctable):
        return reset(module, prior)
    module.restore(0.5)
    return "Took the adapted weights half-way back to the source's."


def slow(module: Guardable, prior: Tensor) -> str:
    """A tenth of the learning rate, from the source's weights half restored."""
    if not isinstance(module, Correctable):
        return reset(module, prior)
    module.restore(0.5)
    module.scale_lr(0.1)
    return (
        "Took the adapted weights half-way back to the source's, and the learning rate to a tenth."
    )


def reweight(module: Guardable, prior: Tensor) -> str:
    """The control's class shares as the objective's aim, from the source's weights; a plain reset
    where there is no aim.
    """
    message = reset(module, prior)
    if isinstance(module, Correctable) and module.reweight(prior):
        return f"{message} The objective now aims at the control's class shares."
    return message


def pause(module: Guardable, prior: Tensor) -> str:
    """No updates for the time of the rest, and nothing else."""
    return "Updates rest."


def freeze(module: Guardable, prior: Tensor) -> str:
    """Back to the source for good."""
    module.reset()
    return "Restored the source's weights; updates stop for good, and the control serves."


#: Corrections by name: the one place where one is added.
CORRECTIONS: Mapping[str, Correction] = {
    "reweight": Correction(reweight, resets=True),
    "slow": Correction(slow),
    "restore": Correction(restore),
    "pause": Correction(pause),
    "reset": Correction(reset, resets=True),
    "freeze": Correction(freeze, resets=True, final=True),
}


def rung_of(
    alarms: Sequence[int], batch: int, ladder: Sequence[str], window: int, reason: str
) -> str:
    """The correction of an alarm: the further up, the more alarms the window had.

    Where the adapted model is lost, values not finite or a class gone, the rungs that would keep
    some of it are skipped; but not on to the one that is final.

    Args:
        alarms: numbers of the batches with earlier alarms.
        batch: number of this one.
        ladder: names of corrections; the last repeats.
        window: batches over which alarms are counted.
        reason: name of the signal.
    """
    recent = sum(earlier > batch - window for earlier in alarms)
    left = ladder[min(recent, len(ladder) - 1) :]
    if reason in ("non_finite", "vanished") and not CORRECTIONS[left[0]].resets:
        whole = (rung for rung in left if CORRECTIONS[rung].resets and not CORRECTIONS[rung].final)
        return next(whole, "reset")
    return left[0]
