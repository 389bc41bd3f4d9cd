"""What a method is checked on: small networks, images, made-up facts of the source."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.methods import Method, create_method
from holdfast.tta.tasks import Single, Task

CLASSES = 4
#: Side of the images, and how many are in a batch.
_SIDE, _COUNT = 12, 8
#: D, of all the networks.
_WIDTH = 16


class _Tokens(nn.Module):
    """A transformer's parts: patches, LayerNorm before and behind a mixing layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, _WIDTH, 4, stride=4)
        self.first = nn.LayerNorm(_WIDTH)
        self.mix = nn.Linear(_WIDTH, _WIDTH)
        self.last = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(self.first(tokens)).relu()
        return self.head(self.last(tokens.mean(1)))


def _normalised(norm: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    half = _WIDTH // 2
    if norm is nn.GroupNorm:
        return norm(4, half), norm(4, _WIDTH)
    more = {"affine": True} if norm is nn.InstanceNorm2d else {}
    return norm(half, **more), norm(_WIDTH, **more)


def _answering_for_pixels(norm: type[nn.Module]) -> nn.Module:
    half = _WIDTH // 2
    first, second = _normalised(norm)
    return nn.Sequential(
        *(nn.Conv2d(1, half, 3, padding=1, bias=False), first, nn.ReLU()),
        *(nn.Conv2d(half, _WIDTH, 3, padding=1, bias=False), second, nn.ReLU()),
        nn.Conv2d(_WIDTH, CLASSES, 1),
    )


def _convolutional(norm: type[nn.Module]) -> nn.Module:
    half = _WIDTH // 2
    first, second = _normalised(norm)
    return nn.Sequential(
        *(nn.Conv2d(1, half, 3, padding=1, bias=False), first, nn.ReLU()),
        *(nn.Conv2d(half, _WIDTH, 3, stride=2, padding=1, bias=False), second, nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTH, CLASSES)),
    )


#: Networks by their normalisation; each has new weights, the same every time.
NETWORKS = ("BatchNorm", "GroupNorm", "LayerNorm")


def network(norm: str, dense: bool = False) -> nn.Module:
    """The network of this normalisation; one that answers for each pixel has InstanceNorm where
    another has LayerNorm.
    """
    torch.manual_seed(0)
    if norm == "LayerNorm" and not dense:
        return _Tokens()
    other = nn.InstanceNorm2d if norm == "LayerNorm" else nn.BatchNorm2d
    kind = nn.GroupNorm if norm == "GroupNorm" else other
    return _answering_for_pixels(kind) if dense else _convolutional(kind)


def images(seed: int = 0, count: int = _COUNT) -> Tensor:
    """A batch (N, 1, H, W)."""
    return torch.randn(count, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(seed))


def made_up(model: nn.Module, classes: int = CLASSES, width: int = _WIDTH) -> dict[str, Any]:
    """All that a method may ask to know of a source, of a source that there is not."""
    return {
        "fisher": {name: torch.ones_like(p) for name, p in model.named_parameters()},
        "entropy_quantiles": torch.linspace(0, 0.5 * math.log(classes), 101),
        "feature_mean": torch.zeros(classes, width),
        "feature_var": torch.ones(classes, width),
        "prevalence": torch.full((classes,), 1 / classes),
    }


@dataclass(frozen=True)
class Subject:
    """A method with the options that it is checked under."""

    method: type[Method]
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task = field(default_factory=lambda: Single(CLASSES))

    def create(self, norm: str = "BatchNorm", **more: Any) -> Method:
        """The method on a new network, the same every time."""
        model = self.network(norm)
        facts = made_up(model, self.task.cells)
        known = {name: facts[name] for name in self.method.uses if name in facts}
        given = {**known, **self.options, **more}
        return create_method(self.method, model, num_classes=CLASSES, task=self.task, **given)

    def network(self, norm: str = "BatchNorm") -> nn.Module:
        """A new network for the task, the same every time."""
        return network(norm, self.task.dense)

    def shape(self, count: int) -> tuple[int, ...]:
        """Of what is served of so many images."""
        return (count, CLASSES, *([_SIDE, _SIDE] if self.task.dense else []))

    def having_learned(self, batches: int = 3, **more: Any) -> Method:
        """The same behind some batches."""
        method = self.create(**more)
        for seed in range(batches):
            method(images(seed))
        return method

    def require(self, holds: bool, wrong: str, remedy: str) -> None:
        """Fail, in a sentence, where something does not hold."""
        if not holds:
            raise AssertionError(f"{self.method.__name__} {wrong}: {remedy}")


def tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Copies of all tensors in nested dictionaries, by their path."""
    return {where: tensor.detach().clone() for where, tensor in _walk(value, path)}


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Paths of the tensors that are not the same bit for bit, or are on one side only."""
    lost = before.keys() ^ after.keys()
    return sorted(lost) + [
        path
        for path in before
        if path in after
        and not torch.equal(before[path].nan_to_num(7.0), after[path].nan_to_num(7.0))
    ]


def _walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{path}/{key}".lstrip("/"))
