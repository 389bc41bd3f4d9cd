"""What a published guard is: a rule that looks at each batch's prediction and says what becomes of
the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from holdfast.callbacks.guard.modes import Verdict
from holdfast.tta.methods import Prediction

_CALM = Verdict("OK", "ok", "The policy sees nothing to correct.")


class Action(NamedTuple):
    """A function of the guarded module, by name, and its argument; ``reset`` takes none."""

    name: Literal["reset", "restore", "restore_elements", "restore_last"]
    amount: float = 1.0

    def apply(self, module: Any) -> None:
        """Call the function."""
        function = getattr(module, self.name)
        function() if self.name == "reset" else function(self.amount)

    @property
    def resets(self) -> bool:
        """Whether it counts as a reset: of all of the model, or of its last layers."""
        return self.name in ("reset", "restore_last")


RESET = Action("reset")


@dataclass(frozen=True)
class Ruling:
    """What a policy says of a batch.

    Attributes:
        verdict: OK, WATCH or ALARM, with its reason.
        action: what is to be done to the module; None: nothing.
        evidence: what was measured, by name.
    """

    verdict: Verdict = _CALM
    action: Action | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)


def alarm(
    reason: str, message: str, evidence: Mapping[str, float], action: Action | None = RESET
) -> Ruling:
    """The ruling of a policy that found the model harmed."""
    return Ruling(Verdict("ALARM", reason, message), action, evidence)


class Policy(ABC):
    """Base of the policies; one says how it is configured, what it remembers, and how it judges.

    Policies correct only the model. They have no control to serve from, so a batch leaves with the
    adapted prediction.

    Args:
        config: settings, of the class's ``Config``.
        num_classes: C.
        facts: of the source, by the names in ``uses``.
    """

    Config: ClassVar[type]
    #: The paper.
    paper: ClassVar[str]
    #: Fields of the source checkpoint that are needed.
    uses: ClassVar[tuple[str, ...]] = ()
    #: Functions that the guarded module must have; with ``control`` among them, it is asked about
    #: each batch.
    needs: ClassVar[tuple[str, ...]] = ("reset",)
    #: Whether the ruling depends on the prediction: then a batch without a finite row is passed
    #: over.
    watches: ClassVar[bool] = True
    #: Attributes that the next ruling depends on.
    remembers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, config: Any, num_classes: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.config = config
        self.num_classes = num_classes
        self.facts = dict(facts or {})
        self.restart()

    def restart(self) -> None:  # noqa: B027 - a policy may remember nothing
        """Forget the stream so far; at the start, and wherever the policy restored the source."""

    @abstractmethod
    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Look at a batch, after the model was updated on it.

        Args:
            prediction: of the rows that are finite: logits (N, C), features (N, D), made before the
                update.
            control: what the un-updated network says of the same rows, where the policy ``needs``
                it.
        """

    def state_dict(self) -> dict[str, Any]:
        """What the next ruling depends on: tensors, numbers, None."""
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in self.remembers:
            setattr(self, name, state[name])
