"""Whether adopted weights are the network that they were trained as: what shapes can't tell,
labelled images do.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from holdfast.tta.errors import InputError
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.networks import Network, lookalikes, network_from
from holdfast.tta.source import evaluate

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
) -> list[str]:
    """What validation images say of adopted weights, a sentence each.

    Args:
        network: with the weights.
        description: of the network, from ``create_network``.
        class_names: of the C classes.
        batches: validation images, ``image`` (N, channels, ...) and ``label`` (N,), -1 where
            unknown; gone through several times.
        stated: balanced accuracy, in percent, that the weights' owner measured; None: not known.

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
        f"(chance is {chance:.1f} %){told}"
    ]
    ordered, hints = _orders(logits, labels, class_names, score)
    # A stem that does no better than chance, or than another order does, is no explanation.
    least = max(score + _CLEARLY, chance + _CLEARLY, ordered)
    hints += _stems(network, description, batches, classes, least)
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
