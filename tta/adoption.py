"""Adopting weights, and whether they are of the network that they were trained as: what shapes
can't tell, labelled images do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from holdfast.tta.errors import InputError
from holdfast.tta.libraries import IMAGENET, scaling_of
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.networks import Network, lookalikes, network_from
from holdfast.tta.saying import say, warn
from holdfast.tta.source import evaluate
from holdfast.tta.tasks import Task
from holdfast.tta.weights import adopt

#: Points of balanced accuracy by which another network, another order or the owner's figure must
#: differ to be worth a word.
_CLEARLY = 10.0
#: Share of the way from chance to right below which weights look as if they did not belong to the
#: data.
_DOUBTFUL = 0.5
#: Images that are predicted together: few, since a network without a stride takes sixteen times the
#: memory.
_TOGETHER = 16

Batches = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Weights:
    """What a user says of weights that were trained elsewhere.

    Attributes:
        file: as ``read_weights`` takes it.
        mean: of each channel, which is subtracted from images in 0..1; None: the file's own, what
            is usual in the network's library, or 0.
        std: by what it is then divided, likewise.
        classes: of the outputs in their order, as ``output_names`` takes them; None: the data's.
        accuracy: balanced accuracy, in percent, that their owner measured; None: not known.
    """

    file: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Any = None
    accuracy: float | None = None


def take(
    network: Network,
    description: dict[str, Any],
    weights: Weights,
    class_names: Sequence[str],
    batches: Batches,
    task: Task | None = None,
) -> None:
    """Put weights and input scaling into a network, and say what matched and what images say.

    Args:
        network: with weights of its own.
        description: of the network, from ``create_network``; it learns where the weights came from.
        weights: what is given of them.
        class_names: of the C classes.
        batches: validation images, as ``judged`` takes them; of masks and findings with these.
        task: what the network's answer means; None: one label an image.

    Raises:
        InputError: the weights do not fit, or the images contradict their owner's figure.
    """
    named: dict[str, Any] = {}
    if weights.classes is not None:
        names = output_names(weights.classes)
        named = {"order": output_order(names, class_names), "outputs": len(names)}
    before = _score(network, batches, len(class_names), task)
    result = adopt(network, weights.file, description=description, **named)
    description["origin"] = result.origin
    say(f"{weights.file}: {result}\n{result.table()}")
    whose = _scale(network, description, weights, "mean" in result.found)
    say(
        f"images, scaled to [0, 1], are standardised by mean {_rounded(network.mean)} and std "
        f"{_rounded(network.std)}{whose}"
    )
    if task is not None and not task.by_image:
        after = _score(network, batches, len(class_names), task)
        sentences = _judged_by_task(task, before, after, weights.accuracy)
    else:
        sentences = judged(network, description, class_names, batches, weights.accuracy, before)
    for sentence in sentences:
        (warn if sentence.startswith("WARNING") else say)(sentence)


def _score(network: Network, batches: Batches, classes: int, task: Task | None) -> float | None:
    """Balanced accuracy, or what else the task watches, in percent; None where nothing is known."""
    if task is None or task.by_image:
        logits, labels = _asked(network, batches, classes)
        return balanced_accuracy(logits.argmax(1), labels, classes)
    scorer, device = task.scorer(), network.mean.device
    network.eval()
    with torch.no_grad():
        for batch in batches:
            # One after the other, for a volume may be all that fits into memory.
            for image, truth in zip(batch["image"], batch[task.target], strict=True):
                scorer.add(task.output(network(image[None].to(device))).cpu(), truth[None])
    return scorer.scores().get(task.watch)


def _judged_by_task(
    task: Task, before: float | None, after: float | None, stated: float | None
) -> list[str]:
    """What validation images say of adopted weights by the figure that a task watches.

    Raises:
        InputError: they contradict the owner's figure.
    """
    if after is None:
        return [
            f"WARNING: no validation image has a {task.target}, so nothing tells whether the "
            "weights fit"
        ]
    known = "" if before is None else f" ({before:.1f} % without the weights)"
    told = "" if stated is None else f"; its owner states {stated:.1f} %"
    sentence = f"before adaptation, validation images have {task.watch} {after:.1f} %{known}{told}"
    if stated is not None and after < stated - _CLEARLY:
        raise InputError(
            f"weights= are not what their owner measured: {sentence}: see to {_SUSPECTS}"
        )
    if before is not None and after < before + _CLEARLY:
        return [
            sentence,
            "WARNING: that is hardly more than without them: if its owner measured more, see to "
            + _SUSPECTS,
        ]
    return [sentence]


def _scale(network: Network, description: Mapping[str, Any], weights: Weights, own: bool) -> str:
    """Set the input scaling that was given, or else that of the file or the library; returns whose
    it is, where nobody said so.
    """
    name = str(description["options"].get("name"))
    usual = scaling_of(description["kind"], name, description["channels"])
    if usual is not None and not own:
        network.mean.copy_(usual[0])
        network.std.copy_(usual[1])
    given = {"mean": weights.mean, "std": weights.std}
    for key, values in given.items():
        buffer = getattr(network, key)
        if values is not None and len(values) != len(buffer):
            raise InputError(
                f"weights_{key} has {len(values)} values for {len(buffer)} channel(s): give one "
                "for each"
            )
        if values is not None:
            buffer.copy_(torch.tensor(values))
    open_ = [f"weights_{key}" for key, values in given.items() if values is None]
    if usual is None or own or not open_:
        return ""
    return f", as is usual for {name}: give {' and '.join(open_)} where it was trained otherwise"


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def output_names(given: Any) -> list[str]:
    """The classes of a file's outputs, in their order.

    Args:
        given: a list of names, or the path of a text file with one a line.

    Raises:
        InputError: no such file, or names that occur twice.
    """
    if isinstance(given, str):
        path = Path(given).expanduser()
        if not path.is_file():
            raise InputError(
                f"weights_classes={given} does not exist: give a list of names, or a file with one "
                "a line"
            )
        given = path.read_text(encoding="utf-8-sig").splitlines()
    names = [str(name).strip() for name in given if str(name).strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise InputError(
            f"weights_classes names {', '.join(twice) or 'nothing'}{' twice' if twice else ''}: "
            "name each output once"
        )
    return names


def output_order(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Which output each class is.

    Raises:
        InputError: a class is not among the names.
    """
    absent = [name for name in class_names if name not in names]
    if absent:
        raise InputError(
            f"weights_classes has no {', '.join(absent[:5])}: name the outputs as the data names "
            "its classes "
            f"({', '.join(class_names[:20])})"
        )
    return [list(names).index(name) for name in class_names]


def fitting_order(logits: Tensor, labels: Tensor) -> list[int] | None:
    """The class that each output stands for by the labels, where each stands for one of its own;
    else None.

    Args:
        logits: (N, C).
        labels: (N,) true classes; -1, for unlabelled images, is left out.
    """
    known, classes = labels >= 0, logits.shape[1]
    confusion = multiclass_confusion_matrix(logits.argmax(1)[known], labels[known], classes)
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    meant: list[int] = shares.argmax(0).tolist()
    return meant if sorted(meant) == list(range(classes)) else None


def judged(
    network: Network,
    description: Mapping[str, Any],
    class_names: Sequence[str],
    batches: Batches,
    stated: float | None = None,
    before: float | None = None,
) -> list[str]:
    """What validation images say of adopted weights, a sentence each.

    Args:
        network: with the weights.
        description: of the network, from ``create_network``.
        class_names: of the C classes.
        batches: validation images, ``image`` (N, channels, ...) and ``label`` (N,), -1 where
            unknown; gone through several times.
        stated: balanced accuracy, in percent, that the weights' owner measured; None: not known.
        before: that of the network before it had the weights; None: not asked.

    Raises:
        InputError: the images contradict the owner's figure.
    """
    classes = len(class_names)
    logits, labels = _asked(network, batches, classes)
    count = int((labels >= 0).sum())
    if not count:
        return [
            "WARNING: no validation image has a label, so nothing tells whether the weights fit"
        ]
    score, chance = balanced_accuracy(logits.argmax(1), labels, classes), 100 / classes
    told = "" if stated is None else f"; its owner states {stated:.1f} %"
    sentences = [
        f"before adaptation, {count} validation images have a balanced accuracy of {score:.1f} % "
        f"({'' if before is None else f'{before:.1f} % without the weights, '}"
        f"chance is {chance:.1f} %){told}"
    ]
    ordered, hints = _orders(logits, labels, class_names, score)
    # A stem that does no better than chance, or than another order does, is no explanation.
    least = max(score + _CLEARLY, chance + _CLEARLY, ordered)
    hints += _stems(network, description, batches, classes, least)
    hints += _scalings(network, batches, classes, least)
    if stated is not None and score < stated - _CLEARLY:
        reasons = "; ".join(hints) or f"see to {_SUSPECTS}"
        raise InputError(f"weights= are not what their owner measured: {sentences[0]}: {reasons}")
    if (score - chance) / (100 - chance) < _DOUBTFUL and not hints:
        hints = [
            "that is nearer to chance than to right: if its owner measured more, see to "
            + _SUSPECTS
        ]
    return sentences + [f"WARNING: {hint}" for hint in hints]


def _asked(network: Network, batches: Batches, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,) of all images."""
    parts = (
        {"image": image, "label": label}
        for batch in batches
        for image, label in zip(
            batch["image"].split(_TOGETHER), batch["label"].split(_TOGETHER), strict=True
        )
    )
    answer = evaluate(network, parts, num_classes)
    return answer.logits, answer.labels


#: What can be wrong with weights whose shapes fit.
_SUSPECTS = (
    "weights_mean and weights_std, the order of its outputs (weights_classes), "
    "data.window, and the network's options"
)


def _orders(
    logits: Tensor, labels: Tensor, class_names: Sequence[str], score: float
) -> tuple[float, list[str]]:
    """A word on another order of the outputs, where one clearly fits better, and the accuracy under
    the better order.
    """
    meant = fitting_order(logits, labels)
    if meant is None:
        return score, []
    better = balanced_accuracy(torch.tensor(meant)[logits.argmax(1)], labels, len(class_names))
    if better < score + _CLEARLY:
        return score, []
    names = ",".join(class_names[index] for index in meant)
    return better, [
        f"with its outputs in another order it has {better:.1f} %: if it was trained so, "
        f"weights_classes=[{names}]"
    ]


def _stems(
    network: Network, description: Mapping[str, Any], batches: Batches, classes: int, least: float
) -> list[str]:
    """A word on the network of the same shapes with which the weights do best, where that is
    ``least`` percent or more.

    None is tried where none can.
    """
    found: list[tuple[float, str]] = []
    for changed in lookalikes(description) if least < 100 else []:
        options = {**description["options"], **changed}
        other = network_from({**description, "options": options})
        other.load_state_dict(network.state_dict())
        try:
            logits, labels = _asked(other, batches, classes)
        except (
            ValueError
        ):  # instance normalisation of one pixel: images of this size are not for it
            continue
        better = balanced_accuracy(logits.argmax(1), labels, classes)
        words = " ".join(f"model.{name}={str(value).lower()}" for name, value in changed.items())
        if better >= least:
            found.append((better, words))
    if not found:
        return []
    better, words = max(found)
    return [f"with {words}, which changes no shape, it has {better:.1f} %"]


#: How images are standardised elsewhere: as ImageNet's, to [-1, 1], or not at all.
_SCALINGS = (IMAGENET, ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3))


def _scalings(network: Network, batches: Batches, classes: int, least: float) -> list[str]:
    """A word on the usual standardisation with which the weights do best, where that is ``least``
    percent or more; the network's own stays.
    """
    own = network.mean.clone(), network.std.clone()
    found: list[tuple[float, str]] = []
    for scaling in _SCALINGS if least < 100 else ():
        mean, std = (torch.tensor(values) for values in scaling)
        if len(mean) != len(own[0]):
            mean, std = (values.mean().expand(len(own[0])) for values in (mean, std))
        if torch.allclose(mean, own[0]) and torch.allclose(std, own[1]):
            continue
        network.mean.copy_(mean)
        network.std.copy_(std)
        logits, labels = _asked(network, batches, classes)
        better = balanced_accuracy(logits.argmax(1), labels, classes)
        words = f"weights_mean={_rounded(mean)} weights_std={_rounded(std)}".replace(", ", ",")
        if better >= least:
            found.append((better, words))
    network.mean.copy_(own[0])
    network.std.copy_(own[1])
    if not found:
        return []
    better, words = max(found)
    return [f"with {words} it has {better:.1f} %"]
