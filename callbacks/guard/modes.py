"""What the guard does: its modes, what leads from one to another, and the verdict on each batch.

    adapting   the adapted model serves, and learns
    hedging    no model is trusted alone: all serve together, and updates wait
    holding    the source's own statistics suit the stream best: they serve, and updates wait
    resting    after an alarm: the un-updated network serves, and updates wait for some batches
    frozen     after alarm upon alarm: the un-updated network serves for good

``judge`` is a pure function of what was measured and remembered; live guard and replay share it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from holdfast.callbacks.corrections import CORRECTIONS, rung_of
from holdfast.callbacks.guard.signals import BY_NAME, SIGNALS, History, Values
from holdfast.callbacks.settings import GuardConfig
from holdfast.tta.step import Candidate, Lead, Mode, VerdictState

#: What may happen: what a look found, an alarm, one too many, or the end of a rest.
Trigger = Literal[Lead, "alarm", "last alarm", "rested"]

_ALARMS: Mapping[Trigger, Mode] = {"alarm": "resting", "last alarm": "frozen"}
#: Where each mode leads, by what happens; what is not listed leaves the mode as it is.
TRANSITIONS: Mapping[Mode, Mapping[Trigger, Mode]] = {
    "adapting": {"source leads": "holding", "none leads": "hedging", **_ALARMS},
    "hedging": {"source leads": "holding", "adapted leads": "adapting", **_ALARMS},
    "holding": {"none leads": "hedging", "adapted leads": "adapting", **_ALARMS},
    "resting": {"rested": "adapting", "last alarm": "frozen"},
    "frozen": {},
}
#: What is said of a batch on which updates wait.
_WAITING: Mapping[Mode, str] = {
    "hedging": "No model is trusted alone: all serve together, and updates wait.",
    "holding": "The source's own statistics suit the stream best: they serve, and updates wait.",
    "resting": "Updates rest after an alarm; the un-updated network serves.",
}


@dataclass(frozen=True)
class Levels:
    """Where trust ends, by the signals' names: level of each, and limit of its sum."""

    levels: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def shown(self) -> dict[str, float]:
        """Levels to mark in curves of R and drift, by column of the trace."""
        return {"R": 1 - self.levels["R"], "drift": self.levels["drift"]}


@dataclass(frozen=True)
class Memory:
    """What a verdict needs to know of the past.

    Attributes:
        mode: in which the batch before ended.
        choice: the statistics in use; None: not known yet.
        sums: of each signal, never below 0.
        peak: the largest R under these statistics since the last correction, at least 1.
        alarms: numbers of the batches that raised one.
        resting: batches of rest that are left.
        watched: whether the last look called for a watch.
        idle: how many of the last batches in a row were unfit to learn from.
    """

    mode: Mode = "adapting"
    choice: Candidate | None = None
    sums: Mapping[str, float] = field(default_factory=dict)
    peak: float = 1.0
    alarms: tuple[int, ...] = ()
    resting: int = 0
    watched: bool = False
    idle: int = 0


class Verdict(NamedTuple):
    """A state, the reason in a word, and the sentence that tells a person."""

    state: VerdictState
    reason: str
    message: str


class Decision(NamedTuple):
    """A verdict, the memory that the next needs, and the correction where there was an alarm."""

    verdict: Verdict
    memory: Memory
    correction: str | None = None


class Look(NamedTuple):
    """What the verdict on a batch follows from, besides what is remembered.

    Attributes:
        batch: its number.
        values: of the signals; None: it was not looked at.
        leads: what the look found to lead; None: there was no look, or is no choice.
        choice: the statistics in use.
        stands_for: batches that the look stands for, by which its sums grow (the CUSUM chart of
            variable sampling intervals: Reynolds, Amin and Arnold, 1990).
        skipped: whether the module found the batch unfit to learn from.
    """

    batch: int
    values: Values | None = None
    leads: Lead | None = None
    choice: Candidate | None = None
    stands_for: int = 1
    skipped: bool = False


def judge(look: Look, memory: Memory, levels: Levels, config: GuardConfig) -> Decision:
    """The verdict on a batch.

    Args:
        look: at it.
        memory: of the decision before.
        levels: where trust ends.
        config: what follows an alarm: the ladder, its window, and the rest.
    """
    memory = replace(memory, idle=memory.idle + 1 if look.skipped else 0)
    if memory.choice != look.choice:  # what was measured under others says nothing of these
        memory = replace(memory, choice=look.choice, sums={}, peak=1.0, watched=False)
    if memory.mode == "resting":
        memory = replace(memory, resting=memory.resting - 1)
        if memory.resting < 0:
            memory = moved(memory, "rested")
    if look.values is not None:
        memory = summed(look.values, levels, memory, look.stands_for)
    alarm = None if memory.mode == "frozen" else _alarm(levels, memory)
    if alarm is not None:
        return _alarmed(look.batch, alarm, look.values or {}, memory, config)
    if look.leads is not None:
        memory = moved(memory, look.leads)
    return Decision(_calm(memory), memory)


def moved(memory: Memory, trigger: Trigger) -> Memory:
    """The memory after something happened, by the table of transitions."""
    return replace(memory, mode=TRANSITIONS[memory.mode].get(trigger, memory.mode))


def against(values: Values, levels: Levels, peak: float) -> dict[str, float | None]:
    """How much each signal that has a level speaks against the adapted model."""
    drift, level = values.get("drift"), levels.levels["drift"]
    drifted = None if drift is None or level / 2 < drift <= level else drift > level
    history = History(values, peak, drifted)
    known = [signal for signal in SIGNALS if signal.name in levels.levels]
    return {signal.name: signal.against(history) for signal in known}


def summed(values: Values, levels: Levels, memory: Memory, stands_for: int) -> Memory:
    """The memory with what a look adds to its sums, or takes off; what is not known changes
    nothing.
    """
    ratio = values.get("R")
    peak = memory.peak if ratio is None else max(memory.peak, ratio)
    sums, watched = dict(memory.sums), False
    for name, amount in against(values, levels, peak).items():
        if amount is None or name not in levels.limits:
            continue
        excess = amount - levels.levels[name]
        sums[name] = max(0.0, sums.get(name, 0.0) + excess * stands_for)
        watched = watched or excess > 0
    if ratio is None and memory.watched:  # the classes could not be compared: the watch goes on
        watched = True
    return replace(memory, sums=sums, peak=peak, watched=watched)


def _alarm(levels: Levels, memory: Memory) -> str | None:
    """The gravest signal whose sum is above its limit."""
    over = (name for name in BY_NAME if memory.sums.get(name, 0.0) > levels.limits.get(name, 1e9))
    return next(over, None)


def _alarmed(
    batch: int, name: str, values: Values, memory: Memory, config: GuardConfig
) -> Decision:
    """The decision where a signal raises the alarm."""
    rung = rung_of(memory.alarms, batch, config.ladder, config.window, name)
    final = CORRECTIONS[rung].final
    after = replace(memory, sums={}, peak=1.0, watched=False, alarms=(*memory.alarms, batch))
    after = replace(moved(after, "last alarm" if final else "alarm"), resting=config.tuned.rest)
    known = {key: value or 0.0 for key, value in values.items()}
    verdict = Verdict("ALARM", name, BY_NAME[name].message.format(**known))
    return Decision(verdict, after, rung)


def _calm(memory: Memory) -> Verdict:
    """The verdict where nothing raises an alarm."""
    if memory.mode == "frozen":
        return Verdict(
            "FROZEN", "frozen", "Updates were stopped for good; the un-updated network serves."
        )
    if memory.mode != "adapting":
        return Verdict("WATCH", memory.mode, _WAITING[memory.mode])
    if memory.watched:
        return Verdict("WATCH", "signals", "The adapted model departs from its control.")
    if memory.idle > 1:  # one batch may be unfit by chance
        return Verdict("WATCH", "skipped", "Batch after batch is unfit to learn from.")
    return Verdict("OK", "ok", "Nothing speaks against the adapted model.")
