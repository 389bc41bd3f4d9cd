"""The guard: watches an adapting model beside its un-updated twins, shares out what serves, and
takes the model back before it collapses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from holdfast.callbacks.base import Guard, prediction_of
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.corrections import CORRECTIONS
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.experts import Choosable, Experts, HeedsShares, hint_of
from holdfast.callbacks.guard.health import Health
from holdfast.callbacks.guard.heard import Asked, Heard, read_back
from holdfast.callbacks.guard.modes import Decision, Look, Memory, judge
from holdfast.callbacks.guard.schedule import Glance, Schedule
from holdfast.callbacks.guard.signals import Values
from holdfast.callbacks.labelled import LabelledChoice
from holdfast.callbacks.labels import LabelBook
from holdfast.callbacks.serving import CONTROL, Said, serve
from holdfast.callbacks.settings import GuardConfig
from holdfast.tta.batches import described
from holdfast.tta.distributed import counts_of_all, place, skipped_by_all, total_of_all
from holdfast.tta.errors import InputError
from holdfast.tta.marginal import predicted_counts
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Candidate, Counts, Lead, StepOutputs
from holdfast.tta.tasks import Task

#: Constants that count images.
_OF_IMAGES = ("memory", "prior", "min_count")


@dataclass
class _Saw:
    """What was seen of a batch.

    Attributes:
        said: what un-updated networks say.
        skipped: whether the module found it unfit to learn from.
        glance: at the predictions.
        look: whether more was looked at than these.
        values: of the signals; None: not known.
        leads: what a look found to lead; None: there was none, or is no choice.
    """

    said: Said
    skipped: bool
    glance: Glance = Glance()
    look: bool = False
    values: Values | None = None
    leads: Lead | None = None


class CollapseGuard(Guard):
    """Share out trust, compare, judge, correct; place it before what writes predictions.

    Where the module offers candidates (``Choosable``), each is trusted as far as its classes look
    like the source's, and serves by its share of the trust; the module adapts under the statistics
    that lead. While it adapts, its own prediction stands for those; in every other mode the
    un-updated network does, and updates wait (``callbacks.guard.modes``). On ALARM the module is
    corrected and rests. What was found is left in the step's outputs
    (``holdfast.tta.step.StepOutputs``).

    Args:
        class_names: names of the classes.
        config: settings.
        reference: the source's classes in feature space; None: nothing speaks for or against a
            candidate, and the statistics that a method is published with serve.
        calibration: of the source checkpoint, for numbers that are not set.
        labels: that come while the stream runs; None: none do.
        task: what predictions are of, where the module does not say so; None: images with one
            label.

    Raises:
        InputError: labels are to tell the classes' shares, and there are none.

    Example:
        ``Trainer(max_epochs=1, callbacks=[CollapseGuard(["benign", "malignant"])])`` for any
        LightningModule that is ``Guardable`` and whose training step returns a dictionary with
        ``logits`` and ``features``.
    """

    #: What is asked of every module.
    needs = ("control", "reset", "pause")

    def __init__(
        self,
        class_names: Sequence[str],
        config: GuardConfig | None = None,
        reference: Reference | None = None,
        calibration: Mapping[str, Any] | None = None,
        labels: LabelBook | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.config = config or GuardConfig()
        tuned, classes = self.config.tuned, len(self.class_names)
        if self.config.by_labels and labels is None:
            raise InputError(
                "guard.prevalence=labels needs labels=FILE.csv for the guard to heed, and accept "
                "keeps its labels to score by: give bounds, guard.prevalence.CLASS=[LOW,HIGH]"
            )
        self.calibration = calibration
        self.levels = levels_of(self.config, calibration)
        hint = hint_of(self.config.order)
        bounds = self.config.bounds(self.class_names)
        self.experts = Experts(classes, tuned, reference, hint, bounds)
        self.health = Health(classes, tuned, reference)
        self.labelled = LabelledChoice(labels, self.experts) if labels else None
        self.memory, self.schedule = Memory(), Schedule()
        #: Told of the classes' shares; None: nobody.
        self._tell: Callable[[Tensor | None], None] | None = None
        if task is not None:
            self.watch(task)

    def watch(self, task: Task) -> None:
        """Watch what is answered in this task, before anything was seen.

        What counts images then counts rows that are worth as much, and what moves is measured as
        the task does.

        Raises:
            InputError: labels are to come of images that have no one label.
        """
        if task.by_image:
            return
        if self.labelled is not None:
            raise InputError(
                f"labels=FILE is of one label an image, and the task is {task.name}: leave it out"
            )
        self.task = self.experts.task = self.health.task = task
        self.experts.num_classes = self.health.num_classes = task.cells
        self.experts.bounds = None
        if task.dense:  # each image has all classes: their order says nothing of a batch
            self.experts.hint = {}
        tuned = self.config.tuned
        counts = {name: getattr(tuned, name) * task.worth for name in _OF_IMAGES}
        self.experts.tuned = self.health.tuned = replace(tuned, **counts)
        self.levels = levels_of(self.config, self.calibration, task)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot be guarded, before any image is seen."""
        super().setup(trainer, pl_module, stage)
        halves = [callable(getattr(pl_module, half, None)) for half in ("candidates", "use")]
        if any(halves) and not all(halves):
            raise InputError(
                f"{self.name} chooses statistics by candidates() and use(), and "
                f"{type(pl_module).__name__} has one of them: define both, or neither"
            )

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make ready for the module."""
        self.start(pl_module)

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """What ``act`` does."""
        self.act(pl_module, outputs, batch)

    def start(self, pl_module: Any) -> None:
        """Let the module wait where the guard waits, and know its source."""
        task = getattr(pl_module, "task", None)
        if self.task is None and isinstance(task, Task):
            self.watch(task)
        pl_module.pause(self.memory.mode != "adapting")  # taken up in the middle
        features = getattr(pl_module, "source_features", None)
        if self.experts.source is None and features is not None:
            self.experts.source = self.health.source = Reference(*features)
        # What a checkpoint gave is held against what the module said just now.
        self.load_state_dict(self.state_dict())
        self._tell = pl_module.expect_shares if isinstance(pl_module, HeedsShares) else None
        self.experts.heeded = self._tell is not None
        self._inform()

    def act(self, pl_module: Any, outputs: StepOutputs, batch: Any) -> None:
        """Look if due, judge, correct, and say what serves the batch; no Trainer is needed."""
        adapted = self._adapted(outputs)
        skipped = skipped_by_all(outputs.get("skipped"), adapted.logits.device)
        saw = self._observed(pl_module, outputs, batch, adapted, skipped)
        before, working = self.memory, self.experts.working
        decision = self._judge(saw)
        outputs["events"] = self._told(before, decision)
        if skipped:
            outputs["events"].append(self._skipped(skipped, outputs, batch))
        calm = decision.correction is None and self.memory.mode == "adapting" and not skipped
        serve(outputs, adapted, saw.said, self.experts.trusted, working or CONTROL, own=calm)
        if decision.correction is not None:
            outputs["events"].append(self._correct(pl_module, decision, saw.values or {}))
        outputs["labels"] = None if self.labelled is None else self.labelled.known
        heeded = self._heeded(outputs, batch, adapted, saw.said, learning=calm)
        self._settle(pl_module, saw.leads)
        outputs.update(
            {
                "verdict": decision.verdict.state,
                "mode": self.memory.mode,
                "choice": working,
                "statistics": dict(saw.values or {}),
                "looked": saw.look,
                "leads": saw.leads,
                "stands_for": self.schedule.stands_for(self.batch),
            }
        )
        happened = self.memory.mode != before.mode or decision.correction is not None
        self._plan(saw, stirred=happened or heeded)
        self.batch, self.images = self.batch + 1, self.images + len(adapted.served)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, and nothing of the settings."""
        labelled = self.labelled and self.labelled.state_dict()
        return {**self._own_state(), "labelled": labelled}

    def marked(self) -> Callable[[], None]:
        """The way back; of many labelled images without a copy of each."""
        state = {**self._own_state(), "labelled": None}
        labels_back = None if self.labelled is None else self.labelled.marked()

        def go_back() -> None:
            self.load_state_dict(state)
            if labels_back is not None:
                labels_back()
                self._inform()

        return go_back

    def _own_state(self) -> dict[str, Any]:
        """The state but for labels, in values that nobody writes into."""
        return {
            **super().state_dict(),
            "memory": {**asdict(self.memory), "alarms": list(self.memory.alarms)},
            "schedule": asdict(self.schedule),
            "experts": self.experts.state_dict(),
            "health": self.health.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state_dict)
        memory = state_dict["memory"]
        self.memory = Memory(**{**memory, "alarms": tuple(memory["alarms"])})
        schedule = state_dict["schedule"]
        self.schedule = Schedule(**{**schedule, "mix": tuple(schedule["mix"])})
        self.experts.load_state_dict(state_dict["experts"])
        self.health.load_state_dict(state_dict["health"])
        if self.labelled and state_dict["labelled"]:
            self.labelled.load_state_dict(state_dict["labelled"])

    def _adapted(self, outputs: StepOutputs) -> Prediction:
        """What the adapted model says of the batch."""
        adapted = prediction_of(self, outputs, self.step)
        names, columns = len(self.class_names), adapted.served.shape[1]
        if names != columns:
            raise InputError(
                f"CollapseGuard has {names} class names where logits have {columns} columns: name "
                "each class"
            )
        return adapted

    def _observed(
        self,
        module: Any,
        outputs: StepOutputs,
        batch: Any,
        adapted: Prediction,
        skipped: str | None,
    ) -> _Saw:
        """See what is seen of every batch, and look where that or the schedule calls for it."""
        told = self._told_of(outputs)
        numbers = Asked() if told else self._numbers(adapted)
        # A control whose statistics move must see every batch, or it falls behind.
        due = self.schedule.due(self.batch) or getattr(module, "control_moves", False)
        glance = None if due else self._glance(told or read_back([numbers])[0])
        due = glance is None or glance.calls
        spoilt = bool(due or skipped) and self._spoilt(outputs, adapted)
        whole = due or self.labelled is not None
        known = {} if spoilt else self._ask(module, batch, whole=whole)
        saw = _Saw(Said(self, module, batch, len(adapted.served), known), skipped is not None)
        read = self._looked(saw, adapted, numbers) if due and not spoilt else None
        saw.glance = glance or self._glance(told or read or read_back([numbers])[0])
        values = {**(saw.values or {}), **saw.glance.values}
        saw.values = values if saw.look else values or None
        return saw

    def _told_of(self, outputs: StepOutputs) -> Heard | None:
        """The numbers below, where the step has brought them to the host and nobody has changed its
        prediction since. Of several processes one may have: they count anew, together.
        """
        counts = outputs.get("counts")
        if self.task is not None or place()[1] > 1 or not isinstance(counts, Counts):
            return None
        if not counts.are_of(outputs["logits"]):
            return None
        return Heard(counts=np.array([counts.broken, *counts.classes], np.float32))

    def _numbers(self, adapted: Prediction) -> Asked:
        """Of every batch, of all processes, on the device: whether it is broken by values that are
        not finite, and predictions by class (1 + C,).
        """
        if self.task is None:
            counts = predicted_counts(adapted.logits, len(self.class_names))
            broken = len(adapted.logits) - counts.sum(0, keepdim=True)
        else:
            counts = self.task.counts(adapted)
            broken = (~torch.isfinite(adapted.logits).all()).to(counts)[None]
        return Asked(counts=total_of_all(torch.cat([broken, counts])))

    def _glance(self, heard: Heard) -> Glance:
        self.schedule, glance = self.schedule.glanced(heard.counts, self.config.tuned)
        return glance

    def _spoilt(self, outputs: StepOutputs, adapted: Prediction) -> bool:
        """Whether most images are broken: they say nothing of the statistics."""
        broken, device = outputs.get("broken"), adapted.logits.device
        own = [0 if broken is None else len(broken), len(adapted.served)]
        lost, images = counts_of_all(own, device)
        return 2 * lost > images

    def _ask(self, module: Any, batch: Any, *, whole: bool) -> dict[Candidate, Prediction]:
        """What candidates say: all at a look, else those that serve."""
        if not isinstance(module, Choosable):
            return {}
        trusted = self.experts.trusted
        if whole:
            known = bool(trusted) and self.labelled is None
            unasked: set[Candidate] = {"source", "corrected"}
            partly = unasked - set(trusted) if known else set()
            return dict(module.candidates(batch, None, partly))
        own = self.experts.working if self.memory.mode == "adapting" else None
        names = [name for name in trusted if name != own]
        return dict(module.candidates(batch, names)) if names else {}

    def _looked(self, saw: _Saw, adapted: Prediction, numbers: Asked) -> Heard:
        """Weigh the candidates, and measure the adapted model against its control, with one
        read-back to the host; returns the glance's numbers, which come with it.
        """
        said, experts, health = saw.said, self.experts, self.health
        votes = experts.asks(said.known) if said.known else {}
        pair: list[Asked] = []
        if self.memory.mode == "adapting" and not saw.skipped:
            pair = health.asks(adapted, said.of(experts.working or CONTROL))
        read, *heard = read_back([numbers, *votes.values(), *pair])
        saw.look, saw.values = True, {}
        if votes:
            experts.hear(dict(zip(votes, heard, strict=False)))
            saw.leads = experts.leads()
            self._hear_out(said)
        if pair:
            saw.values = health.compare(heard[len(votes) :])
        return read

    def _hear_out(self, said: Said) -> None:
        """Ask the source about all images where it is trusted since this look, for which it was
        asked about a part of them.
        """
        if "source" in self.experts.trusted and not said.speaks("source"):
            said.hear(said.module.candidates(said.batch, ["source"]))

    def _judge(self, saw: _Saw) -> Decision:
        """The decision on a batch, which is kept."""
        working, stands_for = self.experts.working, self.schedule.stands_for(self.batch)
        look = Look(self.batch, saw.values, saw.leads, working, stands_for, saw.skipped)
        decision = judge(look, self.memory, self.levels, self.config)
        self.memory = decision.memory
        self.alarmed = list(self.memory.alarms)
        return decision

    def _correct(self, module: Any, decision: Decision, values: Values) -> dict[str, Any]:
        """The ladder's correction for this alarm."""
        assert decision.correction is not None
        correction = CORRECTIONS[decision.correction]
        message = correction.apply(module, self.health.class_shares())
        if correction.resets:
            self.resets.append(self.batch)
        self.health.forget()
        more = {"correction": decision.correction, "evidence": dict(values)}
        return self.event("correction", decision.verdict.reason, message, **more)

    def _heeded(
        self,
        outputs: StepOutputs,
        batch: Any,
        adapted: Prediction,
        said: Said,
        *,
        learning: bool,
    ) -> bool:
        """Take in what labels there are; whether they change who is trusted."""
        if self.labelled is None:
            return False
        ids = described(batch, len(adapted.served), self.images).ids
        told = self.labelled.take(
            *(ids, outputs["logits"], adapted.logits, said.known), learning=learning
        )
        outputs["events"] += [self.event("labels", *event) for event in told]
        if arrived := self.labelled.arrived:
            message = f"{len(arrived)} labels came in."
            outputs["events"].append(self.event("labels", "arrived", message, labels=arrived))
            self._inform()
        return any(reason != "warning" for reason, _ in told)

    def _inform(self) -> None:
        """Let experts and module heed what is known of the classes' shares."""
        if self.labelled is not None and self.config.by_labels:
            self.experts.bounds = self.labelled.bounds
        if self._tell is not None:
            self._tell(self.experts.bounds)

    def _plan(self, saw: _Saw, *, stirred: bool) -> None:
        """When to look next."""
        if stirred:
            self.schedule = self.schedule.stirred(self.batch)
        elif saw.look:
            again = saw.glance.startled or len(self.experts.trusted) > 1
            self.schedule = self.schedule.looked(
                self.batch, self.config.tuned, watching=self.memory.watched, again=again
            )

    def _settle(self, module: Any, leads: Lead | None) -> None:
        """Let the module work under the statistics that lead, and update or wait."""
        best = self.experts.best_to_adapt()
        if leads == "adapted leads" and best is not None and best != self.experts.working:
            self.experts.working = best
            module.use(best)
            self.health.forget()
        module.pause(self.memory.mode != "adapting")

    def _told(self, before: Memory, decision: Decision) -> list[dict[str, Any]]:
        """Events: a change of mode, and of the verdict."""
        verdict, mode, events = decision.verdict, decision.memory.mode, []
        if mode != before.mode:
            shares = {name: round(share, 4) for name, share in self.experts.shares.items()}
            reason, message = verdict.reason, verdict.message
            events.append(self.event("mode", reason, message, mode=mode, shares=shares))
        return events + self.turned(verdict)

    def _skipped(self, reason: str, outputs: StepOutputs, batch: Any) -> dict[str, Any]:
        """What tells that a batch taught nothing, and which images are to blame."""
        event = self.event("skipped", reason, f"No update: {reason.replace('_', ' ')}.")
        broken = outputs.get("broken")
        if broken is not None:
            ids = described(batch, len(outputs["logits"]), self.images).ids
            event["ids"] = [ids[index] for index in broken.tolist()]
        return event
