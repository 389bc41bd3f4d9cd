"""The callback that runs a published guard where ours would run."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer

from holdfast.callbacks.base import Guard, prediction_of
from holdfast.callbacks.policies.base import Action, Policy, Ruling
from holdfast.tta.distributed import rows_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.step import StepOutputs

_SAYS = {
    "reset": "Restored the source's weights, moments and running state.",
    "restore_last": "Restored the last {:.0%} of the adapted tensors.",
}


class PolicyGuard(Guard):
    """Judge each batch by a policy, and correct the module as that was published.

    Only the model is corrected: the batch leaves with the adapted prediction, also where it raised
    the alarm or is not finite. What was found is left in the step's outputs: ``verdict``,
    ``served_by``, ``statistics`` (the policy's evidence) and ``events``. Corrections that a policy
    makes on every batch are no events.

    Args:
        policy: of ``POLICIES``.

    Example:
        ``PolicyGuard(Periodic(PeriodicConfig(every=500), num_classes=2))``
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    @property
    def name(self) -> str:
        """The policy's."""
        return type(self.policy).__name__

    @property
    def needs(self) -> Sequence[str]:
        """What the policy does."""
        return self.policy.needs

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Judge, and correct."""
        ruling = self._judge(pl_module, prediction_of(self, outputs, self.step), batch)
        verdict, action = ruling.verdict, ruling.action
        events = self.turned(verdict, evidence=dict(ruling.evidence))
        if verdict.state == "ALARM":
            self.alarmed.append(self.batch)
        if action is not None:
            action.apply(pl_module)
            if action.resets:
                self.resets.append(self.batch)
                events.append(self._correction(ruling, action))
        outputs["verdict"] = verdict.state
        outputs["statistics"] = dict(ruling.evidence)
        outputs["events"] = events
        outputs.setdefault("served_by", "adapted")
        self.batch, self.images = self.batch + 1, self.images + len(outputs["logits"])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next ruling depends on, and nothing of the settings."""
        return {**super().state_dict(), "policy": self.policy.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state_dict)
        self.policy.load_state_dict(state_dict["policy"])

    def _judge(self, module: Any, adapted: Prediction, batch: Any) -> Ruling:
        """The policy's ruling on the finite rows of all processes; a NaN would stay in its running
        means for good.
        """
        adapted = _of_all(adapted)
        rows = torch.isfinite(adapted.logits).all(1) & torch.isfinite(adapted.features).all(1)
        control = None
        if "control" in self.policy.needs:
            control = _of_all(prediction_of(self, module.control(batch), "control"))
        if self.policy.watches and not rows.any():
            return Ruling()
        return self.policy.judge(_rows(adapted, rows), control and _rows(control, rows))

    def _correction(self, ruling: Ruling, action: Action) -> dict[str, Any]:
        reason = ruling.verdict.reason if ruling.verdict.state == "ALARM" else "period"
        message = _SAYS[action.name].format(action.amount)
        return self.event(
            "correction", reason, message, correction=action.name, evidence=dict(ruling.evidence)
        )


def _of_all(prediction: Prediction) -> Prediction:
    return Prediction(rows_of_all(prediction.logits), rows_of_all(prediction.features))


def _rows(prediction: Prediction, rows: torch.Tensor) -> Prediction:
    return Prediction(prediction.logits[rows], prediction.features[rows])
