"""The guard: watches an adapting model beside its un-updated twins, shares out what serves, and
takes the model back before it collapses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, cast

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from callbacks.base import MIXTURE, Guard, prediction_of
from callbacks.guard.calibrated import levels_of, offsets_of
from callbacks.guard.corrections import CORRECTIONS, Guardable
from callbacks.guard.evidence import Reference
from callbacks.guard.experts import Choosable, Experts
from callbacks.guard.health import Health
from callbacks.guard.modes import Decision, Memory, Plan, Trigger, judge
from callbacks.guard.schedule import Schedule
from callbacks.guard.settings import GuardConfig
from tta.distributed import any_of_all, skipped_by_all, total_of_all
from tta.errors import InputError
from tta.marginal import chance_drift, marginal_drift, predicted_counts
from tta.methods import Prediction

#: By how much a jump of the predicted mix must exceed what chance makes of so few images, and the
#: change that always calls for a look, since hardly anything is left.
_BY_MORE, _ALL = 0.25, 0.98
#: How fast the predicted mix that a jump is seen against follows the stream.
_FOLLOWS = 0.3


class Glance(NamedTuple):
    """What is seen of every batch, with one read-back to the host.

    Attributes:
        finite: whether all values of the adapted model are, in every process.
        startling: whether the predicted mix jumped.
    """

    finite: bool
    startling: bool


class CollapseGuard(Guard):
    """Share out trust, compare, judge, correct; place it before what writes predictions.

    Where the module offers candidates (``Choosable``), each is trusted as far as its classes look
    like the source's, and serves by its share of the trust; the module adapts under the statistics
    that lead. While it adapts, its own prediction stands for those; in every other mode the
    un-updated network does, and updates wait (``callbacks.guard.modes``). On ALARM the module is
    corrected and rests. What was found is left in the step's outputs: ``verdict``, ``mode``,
    ``served_by``, ``choice``, ``statistics`` (the signals), ``looked``, ``events``, and of a mixture
    the ``shares`` of those in it.

    Args:
        class_names: names of the classes.
        config: settings.
        reference: the source's classes in feature space; None: nothing speaks for or against a
            candidate, and the statistics that a method is published with serve.
        calibration: of the source checkpoint, for levels that are not set.

    Example:
        ``Trainer(max_epochs=1, callbacks=[CollapseGuard(["benign", "malignant"])])`` for any
        LightningModule that is ``Guardable`` and whose training step returns a dictionary with
        ``logits`` and ``features``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        config: GuardConfig | None = None,
        reference: Reference | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.config = config or GuardConfig()
        self.levels = levels_of(self.config, calibration)
        self.plan = Plan(self.config.ladder, self.config.window, self.config.tuned.rest)
        self.memory = Memory()
        self.schedule = Schedule()
        bounds = self.config.bounds(self.class_names)
        offsets = offsets_of(calibration, self.config.order)
        tuned, classes = self.config.tuned, len(self.class_names)
        self.experts = Experts(classes, tuned, reference, offsets, bounds)
        self.health = Health(classes, tuned, reference)
        self.state = "OK"
        self._marginal: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that cannot be guarded, before any image is seen."""
        if not isinstance(pl_module, Guardable):
            raise InputError(
                "CollapseGuard needs control(batch), reset() and pause(paused) of "
                f"{type(pl_module).__name__}: "
                "define them, or use AdaptationModule"
            )
        pl_module.pause(self.memory.mode != "adapting")  # taken up in the middle
        self.load_state_dict(move_data_to_device(self.state_dict(), pl_module.device))
        if self.experts.source is not None:
            source = Reference(*(value.to(pl_module.device) for value in self.experts.source))
            self.experts.source = self.health.source = source

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look if due, judge, correct, and say what serves the batch."""
        adapted = self._adapted(outputs)
        outputs["events"] = list[dict[str, Any]]()
        skipped = skipped_by_all(outputs.get("skipped"), adapted.logits.device)
        glance = self._glance(adapted)
        due = self.schedule.due(self.batch) or glance.startling or not glance.finite
        look = due and not self._spoilt(outputs, adapted)
        said = self._ask(pl_module, batch, len(adapted.logits), all_of_them=look)
        values, leads = None, None
        if look:
            values, leads = self._look(pl_module, batch, adapted, said, skipped)
        if not glance.finite:
            values = {**(values or {}), "non_finite": 1.0}
        before = self.memory
        decision = self._judge(values, leads)
        if skipped:
            outputs["events"].append(self._skipped(skipped, outputs, batch))
        outputs["events"] += self._told(before, decision)
        own = adapted if self._may_serve(decision, skipped) else None
        self._serve(outputs, pl_module, batch, own, said, len(adapted.logits))
        if decision.correction is not None:
            outputs["events"].append(self._correct(cast("Guardable", pl_module), decision, values))
        self._settle(pl_module, leads)
        outputs.update(
            verdict=decision.verdict.state,
            mode=self.memory.mode,
            choice=self._choice(),
            statistics=dict(values or {}),
            looked=look,
            leads=leads,
            stands_for=self.schedule.stands_for(self.batch) if look else None,
        )
        happened = self.memory.mode != before.mode or decision.correction is not None
        self._plan(look, happened=happened, startled=glance.startling)
        self.batch += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, and nothing of the settings."""
        memory = {**asdict(self.memory), "alarms": list(self.memory.alarms)}
        return {
            "batch": self.batch,
            "alarmed": list(self.alarmed),
            "resets": list(self.resets),
            "state": self.state,
            "memory": memory,
            "schedule": asdict(self.schedule),
            "experts": self.experts.state_dict(),
            "health": self.health.state_dict(),
            "marginal": self._marginal,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.batch, self.state = state_dict["batch"], state_dict["state"]
        self.alarmed, self.resets = list(state_dict["alarmed"]), list(state_dict["resets"])
        memory = state_dict["memory"]
        self.memory = Memory(**{**memory, "alarms": tuple(memory["alarms"])})
        self.schedule = Schedule(**state_dict["schedule"])
        self.experts.load_state_dict(state_dict["experts"])
        self.health.load_state_dict(state_dict["health"])
        self._marginal = state_dict["marginal"]

    # What is seen

    def _adapted(self, outputs: Any) -> Prediction:
        """What the adapted model says of the batch."""
        adapted = prediction_of(self, outputs)
        names, columns = len(self.class_names), adapted.logits.shape[1]
        if names != columns:
            raise InputError(
                f"CollapseGuard has {names} class names where logits have {columns} columns: name "
                "each class"
            )
        return adapted

    def _glance(self, adapted: Prediction) -> Glance:
        """See, of every batch, whether it is finite and whether the predicted mix jumped."""
        counts = total_of_all(predicted_counts(adapted.logits, len(self.class_names)))
        known = counts if self._marginal is None else self._marginal
        chance = chance_drift(known / known.sum(), counts.sum().clamp(min=1))
        finite = torch.isfinite(adapted.logits).all()
        jump = marginal_drift(counts, known)
        ok, change, by_chance = torch.stack([finite.float(), jump, chance]).tolist()
        if ok:
            self._marginal = torch.lerp(known, counts, _FOLLOWS)
        level = min(max(self.config.tuned.jump, by_chance + _BY_MORE), _ALL)
        broken = any_of_all(not ok, adapted.logits.device)
        return Glance(not broken, change > level)

    def _spoilt(self, outputs: Mapping[str, Any], adapted: Prediction) -> bool:
        """Whether most images are broken in any process: they say nothing of the statistics."""
        broken = outputs.get("broken")
        most = broken is not None and 2 * len(broken) > len(adapted.logits)
        return any_of_all(most, adapted.logits.device)

    def _ask(
        self, module: Any, batch: Any, images: int, *, all_of_them: bool
    ) -> dict[str, Prediction]:
        """What candidates say: all at a look, else those that serve."""
        if not isinstance(module, Choosable):
            return {}
        trusted = self.experts.trusted
        if all_of_them:
            early = self.experts.looks < self.config.tuned.looks
            partly = () if early else {"source", "corrected"} - set(trusted)
            return dict(module.candidates(batch, None, partly))
        serving = self.memory.mode == "adapting"
        names = [name for name in trusted if not (serving and name == self.experts.working)]
        return dict(module.candidates(batch, names)) if names else {}

    def _look(
        self,
        module: Any,
        batch: Any,
        adapted: Prediction,
        said: dict[str, Prediction],
        skipped: str | None,
    ) -> tuple[dict[str, float | None], Trigger | None]:
        """Weigh the candidates, and measure the adapted model against its control."""
        leads: Trigger | None = None
        if said:
            self.experts.weigh(list(said), self.experts.hear(said).tolist())
            leads = self.experts.leads()
        values: dict[str, float | None] = {}
        if self.memory.mode == "adapting" and not skipped:
            control = self._twin(module, batch, said, len(adapted.logits))
            values = self.health.measure(adapted, control)
        return values, leads

    def _twin(
        self, module: Any, batch: Any, said: dict[str, Prediction], images: int
    ) -> Prediction:
        """What the un-updated network says of the whole batch under the working statistics."""
        name = self.experts.working or "control"
        known = said.get(name)
        if known is None or len(known.logits) != images:
            known = said[name] = prediction_of(self, module.control(batch), "control")
        return known

    # What follows

    def _judge(self, values: dict[str, float | None] | None, leads: Trigger | None) -> Decision:
        """The decision on a batch, which is kept."""
        stands_for = self.schedule.stands_for(self.batch)
        decision = judge(
            *(self.batch, values, leads, self.experts.working, self.memory, self.levels, self.plan),
            stands_for,
        )
        self.memory = decision.memory
        if decision.verdict.state == "ALARM":
            self.alarmed.append(self.batch)
        return decision

    def _may_serve(self, decision: Decision, skipped: str | None) -> bool:
        """Whether the adapted model stands for the statistics that it works under."""
        calm = decision.verdict.state in ("OK", "WATCH")
        return calm and self.memory.mode == "adapting" and not skipped

    def _serve(
        self,
        outputs: dict[str, Any],
        module: Any,
        batch: Any,
        own: Prediction | None,
        said: dict[str, Prediction],
        images: int,
    ) -> None:
        """Say what the batch leaves with, where that is not the adapted prediction alone.

        Args:
            own: what stands for the working statistics; None: the un-updated network does.
        """
        working = self.experts.working or "control"
        parts = {
            name: share
            for name, share in (self.experts.trusted or {working: 1.0}).items()
            if name == working or (name in said and len(said[name].logits) == images)
        } or {working: 1.0}
        if own is not None and set(parts) == {working}:
            outputs.setdefault("served_by", "adapted")
            return
        if working in parts and own is None:
            own = self._twin(module, batch, said, images)
            said = {**said, working: own}
            mine = "source" if working == "source" else "control"
        else:
            mine = outputs.get("served_by", "adapted")
            said = said if own is None else {**said, working: own}
        names = {name: mine if name == working else name for name in parts}
        total = sum(parts.values())
        if len(parts) == 1:
            (name,) = parts
            outputs["logits"], outputs["features"] = said[name]
            outputs["served_by"] = names[name]
            return
        mean = torch.stack(
            [share / total * said[name].logits.float().softmax(1) for name, share in parts.items()]
        ).sum(0)
        outputs["logits"] = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        outputs["features"] = said[max(parts, key=parts.__getitem__)].features
        outputs["served_by"] = MIXTURE
        outputs["shares"] = {names[name]: share / total for name, share in parts.items()}

    def _correct(
        self, module: Guardable, decision: Decision, values: Mapping[str, float | None] | None
    ) -> dict[str, Any]:
        """The ladder's correction for this alarm."""
        assert decision.correction is not None
        correction = CORRECTIONS[decision.correction]
        message = correction.apply(module, self.health.class_shares())
        if correction.resets:
            self.resets.append(self.batch)
        self.health.forget()
        more = {"correction": decision.correction, "evidence": dict(values or {})}
        return self.event("correction", decision.verdict.reason, message, **more)

    def _settle(self, module: Any, leads: Trigger | None) -> None:
        """Let the module work under the statistics that lead, and update or wait."""
        if leads is not None:
            best = self.experts.best_to_adapt()
            if best is not None and best != self.experts.working and leads == "adapted leads":
                self.experts.working = best
                module.use(best)
                self.health.forget()
        module.pause(self.memory.mode != "adapting")

    def _choice(self) -> str | None:
        """The statistics that lead."""
        known = self.experts.shares
        return max(known, key=known.__getitem__) if known else None

    def _plan(self, look: bool, *, happened: bool, startled: bool) -> None:
        """When to look next."""
        if happened:
            self.schedule = self.schedule.stirred(self.batch)
        elif look:
            self.schedule = self.schedule.looked(
                self.batch, self.config.tuned, watching=self.memory.watched, startled=startled
            )

    # What is told

    def _told(self, before: Memory, decision: Decision) -> list[dict[str, Any]]:
        """Events: a change of mode, and of the verdict."""
        verdict, events = decision.verdict, []
        if decision.memory.mode != before.mode:
            shares = {name: round(share, 4) for name, share in self.experts.shares.items()}
            events.append(
                self.event(
                    *("mode", verdict.reason, verdict.message),
                    mode=decision.memory.mode,
                    shares=shares,
                )
            )
        if verdict.state != self.state:
            events.append(
                self.event("verdict", verdict.reason, verdict.message, state=verdict.state)
            )
        self.state = verdict.state
        return events

    def _skipped(self, reason: str, outputs: Mapping[str, Any], batch: Any) -> dict[str, Any]:
        """What tells that a batch taught nothing, and which images are to blame."""
        event = self.event("skipped", reason, f"No update: {reason.replace('_', ' ')}.")
        if outputs.get("broken") is not None and isinstance(batch, Mapping):
            event["ids"] = [batch["id"][index] for index in outputs["broken"].tolist()]
        return event
