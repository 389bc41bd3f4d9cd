"""Images so easy that any network learns them in seconds: of four quadrants one is bright."""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.labels import LabelBook
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.correction import class_conditional_moments
from holdfast.tta.methods import create_method
from holdfast.tta.networks import MODELS, Network, create_network
from tests.callbacks.guard.test_guard import Recorder
from tests.conftest import ACCELERATOR

CLASSES = ("north", "east", "south", "west")
#: A scanner of little contrast, on whose images batch statistics do well and the source's fail.
PALE = (0.5, 0.4)
Batch = dict[str, Any]


def quadrants(
    count: int,
    size: int = 64,
    seed: int = 0,
    shares: Sequence[float] = (1, 1, 1, 1),
    scanner: tuple[float, float] = (1.0, 0.0),
) -> list[Batch]:
    """Batches of images (N, 1, 16, 16) with labels, classes drawn by their shares; the scanner
    multiplies, and adds.
    """
    rng = torch.Generator().manual_seed(seed)
    result = []
    for index in range(count):
        labels = torch.multinomial(torch.tensor(shares).float(), size, True, generator=rng)
        images = 0.3 + 0.1 * torch.randn(size, 1, 16, 16, generator=rng)
        for image, label in zip(images, labels.tolist(), strict=True):
            row, column = divmod(label, 2)
            image[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 0.25
        images = images * scanner[0] + scanner[1]
        rows = torch.arange(index * size, (index + 1) * size)
        ids = [str(row) for row in rows.tolist()]
        domain = ["x"] * size
        result.append(
            {"image": images, "label": labels, "id": ids, "domain": domain, "index": rows}
        )
    return result


@cache
def trained(kind: str, norm: str = "batch") -> Network:
    """A network that knows the four classes."""
    torch.manual_seed(0)
    network, _ = create_network(
        kind, MODELS[kind](norm=norm), num_classes=4, channels=1, size=(16, 16)
    )
    # A residual network that is left at a higher rate has moving statistics of other weights.
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3 if kind == "resnet18" else 3e-3)
    for batch in quadrants(60, seed=1):
        loss = F.cross_entropy(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def with_classes(network: Network, classes: int, bias: float) -> Network:
    """The same network with further classes that have a name and no images: their logit is
    constant.
    """
    network = copy.deepcopy(network)
    head, more = network.head, classes - 4
    network.head = torch.nn.Linear(head.in_features, classes)
    with torch.no_grad():
        weight = torch.cat([head.weight, torch.zeros(more, head.in_features)])
        network.head.weight.copy_(weight)
        network.head.bias.copy_(torch.cat([head.bias, torch.full((more,), bias)]))
    return network


@cache
def facts(
    kind: str, norm: str, classes: int, bias: float
) -> tuple[Reference, Mapping[str, Tensor]]:
    """What a checkpoint remembers of its validation images."""
    network = with_classes(trained(kind, norm), classes, bias)
    source = create_method("source", network, num_classes=classes)
    batches = quadrants(8, seed=2)
    with torch.no_grad():
        features = torch.cat([source.source(batch["image"]).features for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    mean, var = torch.zeros(2, classes, features.shape[1])
    for label in labels.unique().tolist():
        own = features[labels == label]
        mean[label], var[label] = own.mean(0), own.var(0)
    return Reference(mean, var), class_conditional_moments(source.model, batches, classes)


def guarded(
    stream: Sequence[Batch],
    *callbacks: Callback,
    kind: str = "compact",
    norm: str = "batch",
    classes: int = 4,
    config: GuardConfig | None = None,
    batch_size: int = 64,
    bias: float = -5.0,
    guard: bool = True,
    labels: LabelBook | None = None,
    hint: Mapping[Any, float] | None = None,
    precision: Any = "32-true",
    **more: Any,
) -> tuple[AdaptationModule, CollapseGuard | None, list[dict[str, Any]]]:
    """An adaptation by tent, or another method, and its outputs."""
    torch.manual_seed(0)
    network = with_classes(trained(kind, norm), classes, bias)
    options = {"name": "tent", "lr": 1e-3, "normalization": "auto" if norm == "batch" else "source"}
    options |= more
    method = create_method(options.pop("name"), network, num_classes=classes, **options)
    reference, moments = facts(kind, norm, classes, bias)
    names = [*CLASSES, "phantom", *map(str, range(1000))][:classes]
    watching = CollapseGuard(names, config, reference, labels=labels) if guard else None
    if watching is not None and hint is not None:
        watching.experts.hint = dict(hint)
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=1,
        accelerator=ACCELERATOR,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, *([watching] if watching else []), recorder],
    )
    module = AdaptationModule(method, batch_size, candidates=Candidates(method, moments))
    trainer.fit(module, torch.utils.data.DataLoader(stream, batch_size=None))
    return module, watching, recorder.outputs


def right(outputs: Sequence[Mapping[str, Any]], stream: Sequence[Batch]) -> float:
    """Share of answers that are right, in percent."""
    said = torch.cat([output["logits"].argmax(1) for output in outputs])
    labels = torch.cat([batch["label"] for batch in stream[: len(outputs)]])
    return 100 * (said == labels).float().mean().item()
