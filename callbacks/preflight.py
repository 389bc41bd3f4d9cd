"""Before a stream starts: does it pay to adapt to these images, and what should one beware of?

The source model looks at the first images under each choice of statistics that the guard has. Its
features and predictions are held against what the source checkpoint remembers of its own validation
images; nothing is learned, and no label is needed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.settings import GuardConfig
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.marginal import chance_drift, marginal_drift
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option
from holdfast.tta.repair import largest_pixel, repaired
from holdfast.tta.separation import separation
from holdfast.tta.step import Candidate
from holdfast.tta.tasks import Task

Advice = Literal["adapt", "adapt carefully", "do not adapt"]

#: Exit status of ``adapt.py preflight=only`` by advice.
EXIT: Mapping[str, int] = {"adapt": 0, "adapt carefully": 3, "do not adapt": 4}

#: Images below which nothing can be said with confidence.
_FEW = 64
#: Share of images above the source's 95 % entropy quantile (.05 at the source) that makes a model
#: unsure, or lost.
_UNSURE, _LOST = 0.15, 0.5
#: J, as a share of the source's, below which classes have come close, or have merged.
_CLOSE, _MERGED = 0.6, 0.2
#: J, as a share of the source's, below which a strong shift and a stream of hardly more than one
#: class look alike: under batch statistics five streams of one class had .22 to .34, strong shifts
#: in random order as little, mild ones .43 or more.
_APART = 0.4
#: Total variation of predicted from expected class shares that sampling does not explain.
_SKEW = 0.2
#: Trust from which on other statistics than the source's are clearly better, and below which they
#: are out of the question.
_CLEARLY, _HARDLY = 0.8, 0.05


#: What a person may know that images do not tell.
_SAY = (
    "If you know more of the stream, say so: guard.order=mixed or correlated, "
    "guard.prevalence.CLASS=[LOW,HIGH]."
)


@dataclass
class NoPreflightConfig:
    """Start at once."""


@dataclass
class PreflightConfig:
    """Look at the first images, and say whether to adapt; its cost is that of some eight
    updates.
    """

    images: int = option(256, "images to look at, in whole batches")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError("preflight.images must be at least 1")


@dataclass
class OnlyPreflightConfig(PreflightConfig):
    """The same, and no more: exit status 0 for adapt, 3 for adapt carefully, 4 for do not adapt."""


PREFLIGHTS: dict[str, type] = {
    "off": NoPreflightConfig,
    "report": PreflightConfig,
    "only": OnlyPreflightConfig,
}


@dataclass(frozen=True)
class PreflightView:
    """What the source model says of the images under one choice of statistics.

    Attributes:
        separation: J of the features, as a share of the source's on its validation images; None
            where hardly more than one class is predicted, so that there is nothing to compare.
        unsure: share of images whose entropy is above the source's 95 % quantile; of masks and
            findings, of rows (``Task.rows``).
        marginal: (C,) predicted class shares; of findings (2·L,) absent and present for one after
            the other.
        drift: total variation between ``marginal`` and the class shares of the source's training
            images; of findings that of the one that moved most.
        share: of the guard's trust.
    """

    separation: float | None
    unsure: float
    marginal: list[float]
    drift: float
    share: float

    @property
    def fits(self) -> bool:
        """Whether the model is as sure, and its classes as far apart, as at the source."""
        return self.unsure <= _UNSURE and self.separation is not None and self.separation >= _CLOSE

    @property
    def fails(self) -> bool:
        """Whether the model can no longer tell the classes apart."""
        if self.separation is None:
            return False  # nobody knows
        return self.separation < _MERGED or (self.unsure > _LOST and self.separation < _CLOSE)


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        advice: adapt, adapt carefully, or do not adapt.
        reasons: for it, a sentence each.
        images: how many were looked at.
        broken: how many of them have broken pixels.
        statistics: the choice of statistics that suits the images best.
        views: what the source model says under each.
    """

    advice: Advice
    reasons: list[str]
    images: int
    broken: int
    statistics: Candidate
    views: dict[Candidate, PreflightView]

    def to_dict(self) -> dict[str, Any]:
        """The content of ``preflight.json``."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.advice}: {self.reasons[0]}",
            *(f"  {reason}" for reason in self.reasons[1:]),
        ]
        lines.append(f"  {'statistics':12}{'J / source':>12}{'unsure':>9}{'drift':>8}{'trust':>10}")
        for name, view in self.views.items():
            mark = " *" if name == self.statistics else ""
            separation = "-" if view.separation is None else f"{view.separation:.2f}"
            numbers = f"{separation:>12}{view.unsure:>9.0%}{view.drift:>8.2f}{view.share:>10.0%}"
            lines.append(f"  {name:12}{numbers}{mark}")
        return "\n".join(lines)


def preflight(
    checkpoint: SourceCheckpoint,
    batches: Iterable[Mapping[str, Any]],
    images: int = 256,
    device: torch.device | str = "cpu",
    guard: GuardConfig | None = None,
) -> Preflight:
    """Look at the first images of a stream.

    Args:
        checkpoint: the source.
        batches: of the stream, in order of arrival.
        images: how many to look at; the last batch is looked at whole.
        device: where to compute.
        guard: what the site knows of the stream (``order``, ``prevalence``).

    Raises:
        InputError: there is no image.
    """
    guard, task = guard or GuardConfig(), checkpoint.meaning
    candidates = _candidates(checkpoint, task).to(device)
    candidates.method.to(device)
    largest = largest_pixel(candidates.method.model)
    source = Reference(*checkpoint.features)
    names = checkpoint.class_names
    if guard.by_labels:  # which are not there yet
        guard = replace(guard, prevalence=None)
    experts = CollapseGuard(names, guard, source, checkpoint.calibration, task=task).experts
    candidates.expect_shares(experts.bounds)
    experts.heeded = True
    said: dict[Candidate, list[_BatchFacts]] = {}
    seen = broken = 0
    for batch in batches:
        shown, bad = repaired(batch["image"].to(device), largest)
        seen, broken = seen + len(shown), broken + (0 if bad is None else len(bad))
        keep = torch.ones(len(shown), dtype=torch.bool, device=device)
        keep[[] if bad is None else bad] = False
        answers = {
            name: prediction.of_images(keep).to("cpu")
            for name, prediction in candidates.predict(shown).items()
        }
        asked = experts.asks(answers)
        experts.hear(dict(zip(asked, read_back(asked.values()), strict=True)))
        for name, answer in answers.items():
            said.setdefault(name, []).append(_BatchFacts.of(answer, task))
        if seen >= images:
            break
    if not seen:
        raise InputError("the stream has no images to look at: check data.target")
    shares = experts.shares
    views = {name: view_of(parts, checkpoint, shares[name]) for name, parts in said.items()}
    chosen = max(shares, key=shares.__getitem__)
    expected = Expected.of(checkpoint, max(seen - broken, 1))
    advice, reasons = advise(views, chosen, seen, broken, expected)
    return Preflight(advice, reasons, seen, broken, chosen, views)


class _BatchFacts(NamedTuple):
    """What is kept of an answer to a batch.

    Attributes:
        rows: (m,) a bounded number of rows of each image, whose classes are compared.
        counts: (G·C,) predictions by class.
        entropy: (m,) nats, of finite rows.
    """

    rows: Prediction
    counts: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, answer: Prediction, task: Task) -> "_BatchFacts":
        """Of a prediction; rows that are not finite are left out."""
        kept = task.seen(answer) if len(answer.logits) else answer
        logits, features = kept.logits.float(), kept.features.float()
        finite = torch.isfinite(logits).all(1) & torch.isfinite(features).all(1)
        rows = Prediction(logits[finite], features[finite])
        own = answer.logits.float()
        own = own[torch.isfinite(own).all(1)]
        return cls(rows, task.counts(answer), entropy(own))


def view_of(parts: Sequence[_BatchFacts], source: SourceCheckpoint, share: float) -> PreflightView:
    """Measure what was said of some batches."""
    task = source.meaning
    logits = torch.cat([part.rows.logits for part in parts])
    features = torch.cat([part.rows.features for part in parts])
    unsure = torch.cat([part.entropy for part in parts]) > source.entropy_quantiles[95]
    counts = torch.stack([part.counts for part in parts]).sum(0)
    labels = logits.argmax(1)
    present = torch.bincount(labels, minlength=task.cells)
    ratio = None
    if int((present >= 2).sum()) >= 2:
        apart = separation(features.numpy(), labels.numpy(), task.cells)
        ratio = apart / max(source.separation, 1e-12)
    each = counts.view(task.groups, -1)
    shares = each / each.sum(1, keepdim=True).clamp(min=1e-12)
    expected = source.prevalence.float().view(task.groups, -1)
    return PreflightView(
        separation=ratio,
        unsure=float(unsure.float().mean()) if len(unsure) else 1.0,
        marginal=shares.flatten().tolist(),
        drift=max(
            float(marginal_drift(*pair).nan_to_num()) for pair in zip(each, expected, strict=True)
        ),
        share=share,
    )


class Expected(NamedTuple):
    """What the source's images lead to expect of others.

    Attributes:
        names: of what is predicted, as sentences have them.
        prevalence: (G·C,) share of each.
        chance: total variation that chance makes between them and the shares of so few images.
        unit: of what these are shares, in the plural.
        rows: what is classified, in the plural.
    """

    names: Sequence[str]
    prevalence: Tensor
    chance: float
    unit: str = "images"
    rows: str = "images"

    @classmethod
    def of(cls, source: SourceCheckpoint, images: int) -> "Expected":
        """Of a source, for so many images."""
        task, names, prevalence = source.meaning, source.class_names, source.prevalence.float()
        if task.by_image or source.share_quantiles is None:
            return cls(names, prevalence, float(chance_drift(prevalence, images)))
        # Images hold classes in shares of their own, whose mean strays by less the more there are;
        # of several findings the one that strayed most counts (a maximum of Gaussians).
        spread = float(source.share_quantiles.std(0).max()) / math.sqrt(images)
        if task.groups > 1:
            names = [said for name in names for said in (f"no {name}", name)]
            spread *= math.sqrt(2 * math.log(2 * task.groups))
            return cls(names, prevalence, spread, rows=f"{task.row}s")
        return cls(names, prevalence, spread, f"{task.row}s", f"{task.row}s")


def advise(
    views: Mapping[Candidate, PreflightView],
    chosen: Candidate,
    images: int,
    broken: int,
    expected: Expected,
) -> tuple[Advice, list[str]]:
    """What the views come to, and why.

    Args:
        views: by choice of statistics; ``source`` is among them.
        chosen: the view that suits the images best.
        images: how many were looked at.
        broken: how many of them have broken pixels.
        expected: of them, by the source's.
    """
    source, best = views["source"], views[chosen]
    fits = source.fits and (chosen == "source" or best.share < _CLEARLY)
    measured = _measured(source, expected.rows)
    cautions = _cautions(views, best, images, broken, expected)
    if 2 * broken > images:
        return "do not adapt", cautions
    if source.fails and best.fails:
        reason = (
            f"Whatever the statistics, the model cannot tell the classes apart here ({measured})."
        )
        return "do not adapt", [reason, *cautions]
    if fits and chosen == "source":
        reason = (
            f"The source model reads these images as its own ({measured}): there is nothing "
            "to adapt to."
        )
        return "do not adapt", [reason, *cautions]
    if fits:
        reason = (
            f"The source model reads these images well ({measured}): there is little to gain, "
            f"by {chosen} statistics if at all."
        )
        return "adapt carefully", [reason, *cautions]
    reason = f"These images are not like the source's ({measured})."
    if chosen != "source":
        reason += (
            f" The {chosen} statistics suit them better: {_separated(best)}, "
            f"{best.unsure:.0%} are less certain."
        )
    cautions += _doubts(chosen, best)
    return ("adapt carefully" if cautions else "adapt"), [reason, *cautions]


def _measured(source: PreflightView, rows: str) -> str:
    """What was found of the source's own statistics, in words."""
    return (
        f"{_separated(source)}, {source.unsure:.0%} of the {rows} are less certain than its 95 % "
        f"quantile, and predicted class shares lie {source.drift:.0%} from the expected ones"
    )


def _doubts(chosen: Candidate, best: PreflightView) -> list[str]:
    """What speaks against adapting to images that are not like the source's."""
    doubts = []
    if chosen == "source":
        doubts.append(
            "No other statistics suit them better, so the shift is not one that normalisation "
            "takes away."
        )
    if best.fails:
        doubts.append("Classes lie so close that entropy may tighten the wrong clusters.")
    elif best.separation is not None and best.separation < _APART:
        doubts.append(
            "Classes lie that close under a strong shift, and where a stream shows hardly more "
            "than one of them, for which the source may do better than whatever adapts. "
            f"{_SAY}"
        )
    elif best.share < _CLEARLY:
        doubts.append(f"No choice of statistics has most of the trust. {_SAY}")
    return doubts


def _separated(view: PreflightView) -> str:
    """What is known of J, in words."""
    if view.separation is None:
        return "J is undefined (hardly more than one class is predicted)"
    return f"J is {view.separation:.0%} of the source's"


def _cautions(
    views: Mapping[Candidate, PreflightView],
    best: PreflightView,
    images: int,
    broken: int,
    expected: Expected,
) -> list[str]:
    cautions = []
    if broken:
        cautions.append(f"{broken} of {images} images have broken pixels.")
    if images - broken < _FEW:
        cautions.append(
            f"Only {images - broken} sound images were there to look at; {_FEW} or more tell "
            "better."
        )
    # Batch statistics pull predictions towards equal shares, so the other views that hold up have a
    # say about skew; so does one that sees a single class, of which nobody knows whether it holds
    # up.
    near = [view for view in views.values() if view.separation is None or view.share > _HARDLY]
    sound = [view for view in near if not view.fails]
    widest = max([best, *sound], key=lambda view: view.drift)
    if widest.drift > _SKEW + expected.chance:
        most = int((torch.tensor(widest.marginal) - expected.prevalence).argmax())
        cautions.append(
            f"{widest.marginal[most]:.0%} of the {expected.unit} are predicted as "
            f"{expected.names[most]}, where the source had "
            f"{float(expected.prevalence[most]):.0%}: an objective that aims at equal shares would "
            "work against that."
        )
    return cautions


def _candidates(checkpoint: SourceCheckpoint, task: Task) -> Candidates:
    """The source model under the guard's choices of statistics; under its own alone, where it has
    no layers to choose for.
    """
    network, classes = checkpoint.build(), len(checkpoint.class_names)
    try:
        method = create_method(
            "tent", network, num_classes=classes, task=task, normalization="auto"
        )
    except InputError:
        method = create_method("source", checkpoint.build(), num_classes=classes, task=task)
    return Candidates(method, checkpoint.layer_moments)
