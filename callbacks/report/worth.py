"""The first sentence of a run's page: whether adapting was worth it, and what to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from holdfast.callbacks.report import page
from holdfast.tta.acceptance import ENOUGH, MARGIN, Way, more_labels
from holdfast.tta.intervals import FEW

_ACCEPT = "holdfast adapt accept source=DIR data.target=NAME labels=FILE.csv"
#: Figures by which runs are judged, one by the task, and their names in a sentence.
_FIGURES = {"balanced_accuracy": "balanced accuracy", "dice": "mean Dice"}
#: Labels with which it is worth to ask.
_SOME = 100


class Worth(NamedTuple):
    """To the question whether adapting was worth it.

    Attributes:
        verdict: a word or two.
        told: figures that it rests upon, in sentences.
        advice: what to do, in sentences.
    """

    verdict: str
    told: str
    advice: str

    def html(self) -> str:
        """As it stands at the top of a page."""
        asked = f"Was adapting worth it? {self.verdict}."
        return page.box([(asked, self.told), ("What to do.", self.advice)])


class _Gain(NamedTuple):
    """Points over another model, with the ends of their 95 % interval."""

    points: float
    low: float
    high: float

    @classmethod
    def over(cls, metrics: Mapping[str, Any], name: str) -> "_Gain":
        found = metrics["against"][name]
        return cls(found["difference"], *found["interval"])

    @property
    def harm(self) -> bool:
        """Surely worse, by more than anybody would overlook."""
        return self.high < 0 and self.points <= -MARGIN


def answer(metrics: Mapping[str, Any], method: str) -> Worth:
    """What the labels of a stream say of adapting to it.

    What was served is worth it where it is surely better than the source, by a point or more, and
    not surely worse than the control by as much. A difference of less than a point, nobody would
    notice.

    Args:
        metrics: of the run, held against source and control.
        method: its name.
    """
    if method == "source":
        return Worth(
            "Nothing was adapted",
            "The source answered as it is.",
            f"Whether adapting would pay here, {_SOME} labels or more tell: {_ACCEPT}.",
        )
    if "against" not in metrics:
        return Worth(
            "Not known",
            "No image of this stream has a label.",
            f"Label {_SOME} to {ENOUGH} images, taken at random, and ask: {_ACCEPT}.",
        )
    told = _told(metrics)
    if metrics["groups"] < FEW:
        few = f"{_units(metrics, metrics['groups'])} with a label are too few to tell."
        advice = f"Label {_SOME} images or more, taken at random, and ask: {_ACCEPT}."
        return Worth("Not settled", f"{told} But {few}", advice)
    source, control = (_Gain.over(metrics, name) for name in ("source", "control"))
    verdict, advice = _judged(metrics, source, control, learns=method != "norm")
    return Worth(verdict, told, advice)


def _judged(
    metrics: Mapping[str, Any], source: _Gain, control: _Gain, *, learns: bool
) -> tuple[str, str]:
    """Verdict and advice."""
    if source.harm or control.harm:
        return _harmed(source, control, learns)
    if source.low > 0 and source.points >= MARGIN:
        return "Yes", _kept(control, learns)
    if source.low > -MARGIN and (source.high < MARGIN or source.low > 0):
        return (
            "Hardly",
            f"The difference to the source is less than {MARGIN:g} point, which nobody would "
            "notice. The source as it is, method=source, is simpler and cannot collapse.",
        )
    if source.high < MARGIN:
        return "No", f"It gains less than {MARGIN:g} point: serve the source, method=source."
    way = Way(0.0, None, source.points, [source.low, source.high])
    more = _units(metrics, more_labels(way, metrics["groups"]))
    return (
        "Not settled",
        f"About {more} more with a label would settle it, if the gain stays what it is. Until then "
        "the source, method=source, is the safe choice.",
    )


def _harmed(source: _Gain, control: _Gain, learns: bool) -> tuple[str, str]:
    """Verdict and advice where another model was surely better."""
    verdict = "In part" if source.low > 0 else "No"
    if source.points <= control.points:
        return "No", "Serve the source as it is: method=source."
    if learns:
        return verdict, "Take the statistics without the updates: method=norm."
    return verdict, f"Ask which way of serving to deploy: {_ACCEPT}."


def _kept(control: _Gain, learns: bool) -> str:
    """Advice where adapting paid."""
    if control.low > 0 or not learns:
        return "Go on with it."
    return (
        "Go on with it. Of its updates alone no gain is sure: method=norm, which learns nothing, "
        "may do as well."
    )


def _told(metrics: Mapping[str, Any]) -> str:
    """The figures in a sentence."""
    source, control = (_compared(metrics, name) for name in ("source", "control"))
    figure = next(name for name in _FIGURES if name in metrics)
    return (
        f"What was served has a {_FIGURES[figure]} of {metrics[figure]:.1f} %: "
        f"{source}, and {control}, the same network without updates."
    )


def _compared(metrics: Mapping[str, Any], name: str) -> str:
    """How much more or less than another model's that is, with its interval where groups are no
    few.
    """
    found = _Gain.over(metrics, name)
    points = page.signed(found.points)
    word = "less" if points.startswith("-") else "more"
    told = f"{points[1:]} points {word} than the {name}"
    if points == "+0.0":
        told = f"as much as the {name}"
    if metrics["groups"] < FEW:
        return told
    return f"{told} (95 %: {page.signed(found.low)} to {page.signed(found.high)})"


def _units(metrics: Mapping[str, Any], number: int) -> str:
    """A number of what is resampled."""
    if metrics["groups"] == metrics["images"] and metrics["level"] == "image":
        return page.counted(number, "image")
    return f"{number:,} patients or slides"
