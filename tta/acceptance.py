"""Which model to deploy at a site, by a small sample of its images that have labels; pure functions
of what each way of serving said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.intervals import intervals, paired
from holdfast.tta.metrics import balanced_accuracy

Advice = Literal["adapt", "not settled", "do not adapt"]
Column = npt.NDArray[Any]

#: Exit status of ``adapt.py accept`` by advice.
EXIT: Mapping[str, int] = {"adapt": 0, "not settled": 3, "do not adapt": 4}
#: Points of balanced accuracy that nobody would notice: adapting may cost no more, for sure, and
#: has to promise more.
MARGIN = 1.0
#: Labelled images below which nothing can be said, and from which on more tell little new.
FEWEST, ENOUGH = 16, 500
#: The two models that adapt; all others learn nothing.
GUARDED, UNGUARDED = "guarded", "unguarded"
#: Resamples of groups: the ends of an interval then vary by a tenth of its width at most.
_RESAMPLES = 2000


@dataclass(frozen=True)
class Way:
    """What one way of serving is worth, in percent and points of balanced accuracy.

    Attributes:
        accuracy: balanced.
        accuracy_interval: its 95 % interval; None where there are no two groups.
        gain: over the source.
        gain_interval: its 95 % interval; None for the source.
    """

    accuracy: float
    accuracy_interval: list[float] | None
    gain: float
    gain_interval: list[float] | None


@dataclass(frozen=True)
class Acceptance:
    """What was found.

    Attributes:
        advice: adapt, do not adapt, or not settled.
        deploy: the way of serving that is advised, until more is known where it is not settled.
        reason: a sentence.
        notes: what else to know, a sentence each.
        more: about how many labels more would settle it; None where it is settled.
        unit: what is scored and counted once, image or group.
        labels: how many have one.
        groups: patients or slides among them.
        ways: by name, the source first and the guarded method last.
    """

    advice: Advice
    deploy: str
    reason: str
    notes: list[str]
    more: int | None
    unit: str
    labels: int
    groups: int
    ways: dict[str, Way]

    def to_dict(self) -> dict[str, Any]:
        """The content of ``acceptance.json``."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.advice}: {self.reason}", *(f"  {note}" for note in self.notes)]
        lines.append(f"  {'':12}{'balanced acc.':>14}{'95 %':>16}{'gain':>8}{'95 %':>18}")
        for name, way in self.ways.items():
            gain = f"{way.gain:+.1f}" if name != "source" else ""
            accuracy, points = _ends(way.accuracy_interval, ".1f"), _ends(way.gain_interval, "+.1f")
            mark = " *" if name == self.deploy and self.more is None else ""
            row = f"{name:12}{way.accuracy:>14.1f}{accuracy:>16}{gain:>8}{points:>18}{mark}"
            lines.append(f"  {row}")
        return "\n".join(lines)


def check_sample(labels: Tensor, rows: Column, unit: str = "image") -> None:
    """Refuse a sample that nothing can be said of.

    Args:
        labels: (N,) true classes of what the stream shows, -1 where unknown.
        rows: (N,) which image, or group, each is, for one may come twice.
        unit: image or group.

    Raises:
        InputError: too few images have a label, or all labels are of one class.
    """
    known = (labels >= 0).numpy()
    count = len(np.unique(rows[known]))
    if count < FEWEST:
        raise InputError(
            f"accept needs labels of {FEWEST} {unit}s or more, and the stream has {count}: label "
            f"100 to {ENOUGH} images of the stream, taken at random, in a file with the columns id "
            "and label, and name it, labels=FILE.csv"
        )
    if len(torch.unique(labels[known])) < 2:
        raise InputError(
            "all labels of the stream's images are of one class, which tells no model from one "
            "that always says so: label images of two classes or more"
        )


def compared(
    probabilities: Mapping[str, Tensor], labels: Tensor, groups: Column, classes: int
) -> dict[str, Way]:
    """Each way of serving against the source.

    Args:
        probabilities: (N, C) by name, ``source`` among them.
        labels: (N,), -1 where unknown.
        groups: (N,), which are resampled whole.
        classes: C.
    """
    said = {name: values.argmax(1) for name, values in probabilities.items()}
    source = balanced_accuracy(said["source"], labels, classes)
    ways = {}
    for name, predictions in said.items():
        accuracy = balanced_accuracy(predictions, labels, classes)
        ends = intervals(probabilities[name], labels, groups, _RESAMPLES, areas=False)
        gain_ends = None
        if name != "source":
            gain_ends = paired(predictions, said["source"], labels, groups, classes, _RESAMPLES)
        ways[name] = Way(accuracy, ends.get("balanced_accuracy"), accuracy - source, gain_ends)
    return ways


def accepted(
    probabilities: Mapping[str, Tensor],
    labels: Tensor,
    groups: Column,
    rows: Column,
    class_names: Sequence[str],
    unit: str = "image",
) -> Acceptance:
    """Say which way of serving to deploy.

    - Adapt, guarded, where the interval of its gain over the source lies above -1 point and it
      gains, unless a fixed choice of statistics is shown to be better, by more than a point.
    - Do not adapt where a fixed choice is, or where the interval lies below +1 point.
    - Otherwise it is not settled.

    Args:
        probabilities: (N, C) by name: ``source``, fixed choices of statistics, ``unguarded`` and
            ``guarded``.
        labels: (N,), -1 where unknown.
        groups: (N,).
        rows: (N,) which image, or group, each is.
        class_names: names of the C classes.
        unit: image or group.

    Raises:
        InputError: the sample is too small.
    """
    check_sample(labels, rows, unit)
    known = (labels >= 0).numpy()
    classes, units = len(class_names), len(np.unique(rows[known]))
    ways = compared(probabilities, labels, groups, classes)
    fixed = {name: way for name, way in ways.items() if name not in (GUARDED, UNGUARDED)}
    best = max(fixed, key=lambda name: fixed[name].accuracy)
    said = {name: probabilities[name].argmax(1) for name in (best, GUARDED)}
    over = paired(said[best], said[GUARDED], labels, groups, classes, _RESAMPLES)
    advice, deploy, reason = advised(ways[GUARDED], best, fixed[best], over)
    more = more_labels(ways[GUARDED], units) if advice == "not settled" else None
    if more is not None:
        reason += f" About {more} labels more would settle it."
    notes = _notes(labels, class_names)
    if units > ENOUGH and more is None:
        notes.append(f"{units} {unit}s have labels: a random sample of {ENOUGH} is enough.")
    count = len(np.unique(groups[known]))
    return Acceptance(advice, deploy, reason, notes, more, unit, units, count, ways)


def advised(guarded: Way, best: str, fixed: Way, over: Sequence[float]) -> tuple[Advice, str, str]:
    """The advice, what to deploy, and why.

    Args:
        guarded: what the guarded method is worth.
        best: name of the best choice among those that learn nothing.
        fixed: what it is worth.
        over: interval of its difference to the guarded method, in points.
    """
    assert guarded.gain_interval is not None
    low, high = guarded.gain_interval
    told = f"{guarded.gain:+.1f} points against the source, 95 % from {low:+.1f} to {high:+.1f}"
    sure = fixed.gain_interval is None or fixed.gain_interval[0] > -MARGIN
    better = over[0] > 0 and fixed.gain - guarded.gain > MARGIN
    if best != "source" and better and sure:
        return (
            "do not adapt",
            best,
            f"{_called(best).capitalize()}, without updates, is better than the guarded "
            f"method by {over[0]:.1f} points or more ({fixed.gain:+.1f} against the source).",
        )
    if low > -MARGIN and guarded.gain >= 0:
        reason = f"The guarded method serves these images better, or as well ({told})."
        return "adapt", GUARDED, reason
    if high < MARGIN:
        deploy = best if fixed.gain > 0 and sure else "source"
        reason = (
            f"The guarded method gains less than {MARGIN:g} point here ({told}): deploy "
            f"{_called(deploy)}."
        )
        return "do not adapt", deploy, reason
    deploy = best if fixed.gain_interval and fixed.gain_interval[0] > 0 else "source"
    reason = (
        f"The labels do not tell yet whether the guarded method pays here ({told}): until they do, "
        f"deploy {_called(deploy)}."
    )
    return "not settled", deploy, reason


def more_labels(guarded: Way, labels: int) -> int:
    """About how many labels more would settle it, if the gain stays what it is: an interval shrinks
    with the root of their number.

    >>> more_labels(Way(90.0, None, 4.0, [-6.0, 14.0]), 50)
    150

    Args:
        guarded: what the guarded method is worth.
        labels: how many there are.
    """
    assert guarded.gain_interval is not None
    low, high = guarded.gain_interval
    needed = []
    if guarded.gain >= 0:
        needed.append(((guarded.gain - low) / (guarded.gain + MARGIN)) ** 2)
    if guarded.gain < MARGIN:
        needed.append(((high - guarded.gain) / (MARGIN - guarded.gain)) ** 2)
    return max(1, round(float(f"{labels * (min(needed) - 1):.2g}")))  # it is no exact number


def _notes(labels: Tensor, class_names: Sequence[str]) -> list[str]:
    counts = torch.bincount(labels[labels >= 0], minlength=len(class_names)).tolist()
    gone = [name for name, count in zip(class_names, counts, strict=True) if not count]
    return [f"No label is of {', '.join(gone)}, so of these nothing is known."] if gone else []


def _called(fixed: str) -> str:
    """A way of serving that learns nothing, in a sentence."""
    return "the source" if fixed == "source" else f"the source under {fixed} statistics"


def _ends(pair: Sequence[float] | None, form: str) -> str:
    return "" if pair is None else f"{pair[0]:{form}} to {pair[1]:{form}}"
