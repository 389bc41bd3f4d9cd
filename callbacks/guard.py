"""The guard: watches an adapting model against its un-updated twin, and takes it back before it
collapses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from callbacks.base import MIXTURE, Guard, prediction_of
from callbacks.choice import Choice, Choosable, Reference
from callbacks.comparison import Comparison
from callbacks.corrections import CORRECTIONS, Guardable
from callbacks.duty import Duty
from callbacks.judge import corrected, judge, rung_of, trace_of
from callbacks.rest import Rest
from callbacks.settings import GuardConfig
from callbacks.verdict import Decision, Memory, State, Statistics, Verdict
from tta.candidates import WARM_UP
from tta.distributed import any_of_all, skipped_by_all, total_of_all
from tta.errors import InputError
from tta.marginal import chance_drift, marginal_drift, predicted_counts
from tta.methods import Prediction

#: Change of the predicted marginal from the running one, in total variation, that calls for a look
#: at once: at least so much, and so much more than chance, which makes most of it where classes are
#: many; but one that leaves hardly anything always does (by chance as well, in batches of fewer
#: images than a fifteenth of the classes).
_STARTLING, _BY_MORE, _ALL = 0.35, 0.25, 0.98
#: Most batches between two looks while updates are held back, when there is time to look whether
#: that is still right; and where the published statistics fit badly, when the next block of classes
#: may tell why.
_HELD, _MISFIT = 2, 4


class CollapseGuard(Guard):
    """Compare the adapted model with its un-updated twins, choose, judge, correct; place it before
    what writes predictions.

    Where the module offers candidates (``Choosable``), evidence decides under which statistics it
    works; leaving those that methods are published with is an alarm of its own, since a method left
    alone would go on under them. The un-updated network under those in use is the control, against
    which the adapted model is judged. On ALARM the module is corrected and rests for a while, and
    the batch leaves with the control's logits; so do the next ones, until two checks clear what the
    correction left, and batches that the module reports as ``skipped``. In the first batches,
    unless the published statistics fit well, and after an alarm of doubt for as long as it is true,
    candidates answer together, as a ``mixture``. What was found is left in the step's outputs:
    ``verdict``, ``served_by``, ``statistics`` (J, R, drift, ...), ``checked``, ``choice``,
    ``events``, and of a mixture the ``shares`` of those in it.

    Args:
        class_names: names of the classes.
        config: settings.
        reference: of the source's features; None: evidence leaves out how far classes have moved.
        calibration: of the source checkpoint, for thresholds that are not set.

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
        self.thresholds = self.config.thresholds(calibration)
        self.reference = reference
        self.state: State = "OK"
        self.memory = Memory()
        self.duty = Duty()
        self.rest = Rest()
        self.choice = Choice(len(self.class_names), self.config.hysteresis)
        #: Whether updates are held back because the source's own statistics suit the stream.
        self.holding = False
        #: Alarms that the ladder answered; changes of statistics are not among them.
        self._climbed: list[int] = []
        self._comparison = Comparison(class_names, self.config.decay, self.config.min_count)
        self._marginal: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that cannot be guarded, before any image is seen."""
        if not isinstance(pl_module, Guardable):
            raise InputError(
                "CollapseGuard needs control(batch), reset() and pause(paused) of "
                f"{type(pl_module).__name__}: "
                "define them, or use AdaptationModule"
            )
        if self._rests:  # taken up in the middle of a rest
            pl_module.pause(True)
        self.load_state_dict(
            move_data_to_device(self.state_dict(), pl_module.device)
        )  # what a checkpoint gave is on the CPU
        if self.reference is not None:
            self.reference = Reference(*(value.to(pl_module.device) for value in self.reference))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look if due, choose, judge, correct, and say what serves the batch."""
        adapted = self._adapted(outputs)
        module = cast(
            "Guardable", pl_module
        )  # as was seen at the start: asking on every batch takes time
        outputs["events"] = events = list[dict[str, Any]]()
        healthy = not any_of_all(
            not bool(torch.isfinite(adapted.logits).all()), adapted.logits.device
        )
        skipped = skipped_by_all(outputs.get("skipped"), adapted.logits.device)
        spoilt = bool(skipped) and self._spoilt(
            outputs, adapted
        )  # then no candidate is asked, at a look or to serve along
        counts = total_of_all(predicted_counts(adapted.logits, len(self.class_names)))
        self._hurry(counts)
        doubted = (
            self.rest.doubted
        )  # then the control serves until the model is found sound, or has rested
        # A control whose statistics move with the stream must see every batch, or it falls behind
        # the adapted model's.
        due = doubted or self.duty.checks(self.batch) or getattr(pl_module, "control_moves", False)
        candidates: Mapping[str, Prediction] = {}
        control, lead, doubt, switched = None, None, None, False
        if due or skipped or not healthy:
            candidates = {} if spoilt else self._ask(pl_module, batch)
            if candidates:
                lead, switched = self._look(pl_module, candidates, events)
                doubt = self.choice.reconsidered(
                    None if switched else self.choice.doubt(candidates), self.batch
                )
                control = self._twin(pl_module, candidates, batch, adapted)
            else:
                control = prediction_of(self, module.control(batch), "control")
        if not candidates and not spoilt:
            candidates = self._along(pl_module, batch)
        statistics = Statistics(non_finite=not healthy)
        # At the start, corrected statistics take a batch in before the control predicts it: the
        # adapted model did without.
        settled = self.choice.current != "corrected" or self.choice.looks > WARM_UP
        pausing = (
            self.rest.left > 0 and self.rest.shift is not None
        )  # what raised the alarm is still there, and known
        if (
            healthy
            and control is not None
            and due
            and settled
            and not (skipped or switched or pausing)
        ):
            statistics = self._measure(adapted, control)
        statistics = replace(statistics, lead=lead, doubt=doubt)
        decision = self._judge(statistics, events)
        verdict = decision.verdict
        if skipped:
            events.append(self._skipped(skipped, outputs, batch))
        judged_under = self.choice.current
        if verdict.reason == "statistics":
            evidence = self.choice.handicapped(candidates)
            events.append(
                self._change(
                    pl_module, max(evidence, key=evidence.__getitem__), verdict, statistics
                )
            )
            control, switched = self._twin(pl_module, candidates, batch, adapted), True
        elif verdict.reason == "doubt":
            events.append(self._mistrust(pl_module, verdict, statistics))
        doubted = doubted or switched or bool(skipped) or verdict.state in ("ALARM", "FROZEN")
        self._serve(outputs, adapted, control, candidates, doubted=doubted)
        self.rest.pass_batch(None if statistics.ratio is None else verdict.state == "OK")
        climbed = verdict.state == "ALARM" and verdict.reason not in ("statistics", "doubt")
        if climbed:
            events.append(self._correct(module, verdict, statistics))
        elif not self._rests:
            module.pause(False)
            self.rest.end()
        self.state = verdict.state
        outputs.setdefault("served_by", "adapted")
        outputs.update(
            verdict=verdict.state, statistics=trace_of(statistics), checked=due, choice=judged_under
        )
        happened = (switched and self.batch > 0) or verdict.state == "ALARM"
        self._plan(
            due,
            None if statistics.drift is None else decision.room,
            climbed=climbed,
            happened=happened,
        )
        self._marginal = (
            counts if self._marginal is None else torch.lerp(self._marginal, counts, 0.3)
        )
        self.batch += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, and nothing of the settings."""
        return {
            "batch": self.batch,
            "alarmed": list(self.alarmed),
            "resets": list(self.resets),
            "climbed": list(self._climbed),
            "state": self.state,
            "rest": vars(self.rest).copy(),
            "memory": asdict(self.memory),
            "duty": asdict(self.duty),
            "choice": self.choice.state_dict(),
            "holding": self.holding,
            "comparison": self._comparison.state_dict(),
            "marginal": self._marginal,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in ("batch", "state", "holding"):
            setattr(self, name, state_dict[name])
        self.alarmed, self.resets = list(state_dict["alarmed"]), list(state_dict["resets"])
        self._climbed = list(state_dict["climbed"])
        self.rest = Rest(**state_dict["rest"])
        self.memory, self.duty = Memory(**state_dict["memory"]), Duty(**state_dict["duty"])
        self.choice.load_state_dict(state_dict["choice"])
        self._comparison.load_state_dict(state_dict["comparison"])
        self._marginal = state_dict["marginal"]

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

    def _serve(
        self,
        outputs: dict[str, Any],
        adapted: Prediction,
        control: Prediction | None,
        candidates: Mapping[str, Prediction],
        *,
        doubted: bool,
    ) -> None:
        """Say what the batch leaves with, where that is not the adapted prediction."""
        twin = "source" if self.choice.current == "source" else "control"
        own = control if control is not None and doubted else adapted
        mine = outputs.get("served_by", "adapted") if own is adapted else twin
        weights = self._weights(candidates, len(own.logits))
        if weights:
            said = {**candidates, str(self.choice.current): own}
            mean = torch.stack(
                [share * said[name].logits.softmax(1) for name, share in weights.items()]
            ).sum(0)
            outputs["logits"] = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
            outputs["features"], outputs["served_by"] = own.features, MIXTURE
            outputs["shares"] = shares = dict[str, float]()
            for name, share in weights.items():
                who = mine if name == self.choice.current else name
                shares[who] = shares.get(who, 0.0) + share
        elif control is not None and doubted:
            outputs["logits"], outputs["features"] = control
            if outputs.get("served_by") != "source":
                outputs["served_by"] = twin
        elif self.rest.left and self.rest.shift is not None:
            outputs["logits"] = adapted.logits + self.rest.shift.to(device=adapted.logits.device)
        elif (
            self.rest.idle
        ):  # nothing was updated since the reset, so adapted and control are one and the same
            outputs["served_by"] = twin

    def _weights(self, candidates: Mapping[str, Prediction], images: int) -> dict[str, float]:
        """Shares of those that serve the batch together; empty where one serves alone."""
        whole = {
            name: said
            for name, said in candidates.items()
            if name == self.choice.current or len(said.logits) == images
        }
        return self.choice.weights(whole, self.batch)

    def _look(
        self, module: Any, candidates: Mapping[str, Prediction], events: list[dict[str, Any]]
    ) -> tuple[float | None, bool]:
        """Weigh the candidates' evidence; by how much others lead the published statistics, and
        whether the choice changed.

        The published statistics are left by an alarm only; between others, and back to them, the
        guard changes by itself.
        """
        known = self.choice.scanner_changes
        self.choice.weigh(candidates, self.reference, module.scanner_change())
        if self.choice.scanner_changes and not known:
            message = (
                "Images move in ways that no mix of classes explains: the scanner changes "
                "along the stream."
            )
            events.append(self.event("scanner", "movement", message))
        if self.choice.current is not None and self.choice.current not in candidates:
            return (
                None,
                False,
            )  # a batch of one value per channel, which has no statistics, is no reason to leave
        if self.choice.at_home(candidates) and not self.memory.frozen:
            return self.choice.lead(candidates), False
        before, choice = self.choice.current, self.choice.preferred(candidates)
        if choice == before:
            return None, False
        first = before is None
        message = (
            f"Starts under {choice} statistics."
            if first
            else f"The {choice} statistics suit the stream best."
        )
        self._use(module, choice, others=len(candidates) > 1)
        events.append(self._choice_event("choice", "start" if first else "evidence", message))
        return None, True

    def _ask(self, module: Any, batch: Any) -> Mapping[str, Prediction]:
        """What candidates say at a look; none between looks, or without choice."""
        if not (self.duty.looks(self.batch) or self.choice.current is None) or not isinstance(
            module, Choosable
        ):
            return {}
        return module.candidates(
            batch, self.choice.contenders(self.batch), self.choice.partly(self.batch)
        )

    def _along(self, module: Any, batch: Any) -> Mapping[str, Prediction]:
        """What the candidates say that serve along with the model on a batch that is not looked
        at.
        """
        names = self.choice.alongside(self.batch)
        if not names or not isinstance(module, Choosable):
            return {}
        candidates = module.candidates(batch, names)
        self.choice.hear(candidates)
        return candidates

    def _spoilt(self, outputs: Mapping[str, Any], adapted: Prediction) -> bool:
        """Whether most images are broken in any process: they say nothing of the statistics."""
        broken = outputs.get("broken")
        return any_of_all(
            broken is not None and 2 * len(broken) > len(adapted.logits), adapted.logits.device
        )

    def _skipped(self, reason: str, outputs: Mapping[str, Any], batch: Any) -> dict[str, Any]:
        """What tells that a batch taught nothing, and which images are to blame."""
        event = self._event("skipped", reason, f"No update: {reason.replace('_', ' ')}.", None)
        if outputs.get("broken") is not None and isinstance(batch, Mapping):
            event["ids"] = [batch["id"][index] for index in outputs["broken"].tolist()]
        return event

    def _twin(
        self, module: Any, candidates: Mapping[str, Prediction], batch: Any, adapted: Prediction
    ) -> Prediction:
        """What the un-updated network says of the whole batch under the statistics in use."""
        known = candidates.get(self.choice.current or "")
        return (
            known
            if known is not None and len(known.logits) == len(adapted.logits)
            else module.control(batch)
        )

    def _change(
        self, module: Any, choice: str, verdict: Verdict, statistics: Statistics
    ) -> dict[str, Any]:
        """Leave the published statistics for others."""
        self.alarmed.append(self.batch)
        self._use(module, choice, others=True)
        event = self._choice_event(
            "correction", verdict.reason, f"The {choice} statistics suit the stream better."
        )
        return {**event, "correction": "statistics", "statistics": asdict(statistics)}

    def _mistrust(self, module: Any, verdict: Verdict, statistics: Statistics) -> dict[str, Any]:
        """Let all candidates serve together, and updates rest, until more is known of the mix."""
        self.alarmed.append(self.batch)
        self.choice.mistrusted = self.batch
        module.pause(True)
        event = self._choice_event("correction", verdict.reason, verdict.message)
        return {**event, "correction": "hedge", "statistics": asdict(statistics)}

    def _use(self, module: Any, choice: str, *, others: bool) -> None:
        """Work under a candidate's statistics from now on."""
        learned = self.choice.current is not None and getattr(
            module, "has_learned", not self.rest.idle
        )
        self.choice.current = choice
        module.use(choice)
        self._comparison.forget()
        self.rest.shift, self.rest.sound = (
            None,
            0,
        )  # both were of adapted model and control under other statistics
        # Where the stream looks like the source, there is nothing to adapt to, and entropy tightens
        # the wrong clusters.
        self.holding = choice == "source" and others
        if self.holding:
            module.reset()
            module.pause(True)
            self.rest.idle = True
            if learned:
                self.resets.append(self.batch)

    def _choice_event(self, kind: str, reason: str, message: str) -> dict[str, Any]:
        evidence = {name: round(value, 4) for name, value in self.choice.evidence.items()}
        if self.holding:
            undone = ", and what was learned is undone" if self.batch in self.resets[-1:] else ""
            message += f" The source serves{undone}."
        return {
            **self._event(kind, reason, message, None),
            "choice": self.choice.current,
            "evidence": evidence,
        }

    def _measure(self, adapted: Prediction, control: Prediction) -> Statistics:
        """Take a batch into the comparison of both, and compute its statistics."""
        return self._comparison.measure(
            adapted, control, self._marginal, self.duty.stands_for(self.batch)
        )

    def _judge(self, statistics: Statistics, events: list[dict[str, Any]]) -> Decision:
        """The decision on a batch, which is kept."""
        decision = judge(statistics, self.thresholds, self.memory, self.state, self.choice.current)
        verdict, self.memory = decision.verdict, decision.memory
        if verdict.state != self.state:
            events.append(
                self._event(
                    "verdict", verdict.reason, verdict.message, statistics, state=verdict.state
                )
            )
        return decision

    def _correct(
        self, module: Guardable, verdict: Verdict, statistics: Statistics
    ) -> dict[str, Any]:
        """The ladder's correction for this alarm, and rest."""
        rung = rung_of(
            self._climbed, self.batch, self.config.ladder, self.config.window, verdict.reason
        )
        self.alarmed.append(self.batch)
        self._climbed.append(self.batch)
        correction = CORRECTIONS[rung]
        adapted, control = self._comparison.shares()
        message = correction.apply(module, control)
        shift = (control / adapted).log() if correction.shifts_logits else None
        self.rest = Rest(
            self.config.rest, idle=correction.resets and self.config.rest > 0, shift=shift
        )
        if correction.resets:
            self.resets.append(self.batch)
        self._comparison.forget()
        self.memory = corrected(rung, self.memory)
        if correction.final or self.rest.left:
            module.pause(True)
        return self._event("correction", verdict.reason, message, statistics, correction=rung)

    def _hurry(self, counts: Tensor) -> None:
        """Look at once where the predicted mix jumps, or varies under statistics that take it
        badly: both are seen for free.
        """
        varies = self.choice.noticed(counts)
        if self.duty.looks(self.batch):
            return  # nothing to hurry, and no need to wait for the device
        known = counts if self._marginal is None else self._marginal
        by_chance = chance_drift(known / known.sum(), counts.sum().clamp(min=1))
        jump, varied, chance = torch.stack(
            [marginal_drift(counts, known), varies, by_chance]
        ).tolist()
        if varied > self.duty.suspect and self.choice.current == "batch":
            self.duty = self.duty.suspected(self.batch, varied)
        elif jump > min(max(_STARTLING, chance + _BY_MORE), _ALL):
            self.duty = self.duty.hurried(self.batch)

    def _plan(self, due: bool, room: float | None, *, climbed: bool, happened: bool) -> None:
        """When to look next.

        Args:
            due: whether the batch was to be checked.
            room: of the decision; None: the batch could not be measured.
            climbed: whether the ladder answered an alarm.
            happened: whether there was an alarm, or the statistics changed.
        """
        looked = due and self.duty.looks(self.batch)
        if climbed and self.choice.undisputed:
            unmoved = self.rest.idle or self.rest.shift is not None
            self.duty = self.duty.corrected(self.batch, self.rest.left, unmoved=unmoved)
        elif happened:
            self.duty = self.duty.alerted(self.batch)
        elif looked:
            longest = (
                _HELD if self.holding else _MISFIT if self.choice.misfit else self.config.longest
            )
            self.duty = self.duty.looked(
                self.batch, self.config.patience, min(longest, self.config.longest)
            )
        watching = self.state == "WATCH" or not (looked or self.duty.watched is None)
        if not due or happened:
            pass
        elif room is None:
            self.duty = self.duty.missed(self.batch) if watching else self.duty.unwatched()
        elif watching:
            self.duty = self.duty.watching(self.batch, room)
        elif self.rest.cleared or not (looked or self.rest.left):
            self.duty = self.duty.cleared()
        else:
            self.duty = self.duty.unwatched()

    @property
    def _rests(self) -> bool:
        """Whether updates rest on the next batch."""
        return (
            self.rest.left > 0
            or self.memory.frozen
            or self.holding
            or self.choice.hedging(self.batch)
        )

    def _event(
        self, kind: str, reason: str, message: str, statistics: Statistics | None, **more: Any
    ) -> dict[str, Any]:
        event = self.event(kind, reason, message, **more)
        if statistics is not None:
            event["evidence"] = asdict(statistics)
        return event
