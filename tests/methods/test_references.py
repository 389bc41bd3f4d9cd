"""Whole streams against references in plain torch, formula by formula, on the golden models.

Where released code would go wrong (an empty filter, a reset that does not last) the streams do not
go.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.methods import create_method
from tests.conftest import golden, golden_network

C = 4
SGD = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}
Step = Callable[[nn.Module, Tensor], Tensor]


def batches() -> Tensor:
    return torch.from_numpy(golden("stream")["images"])


def affine(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))
        for key, value in module.named_parameters()
    }


def prepared(norm: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The golden model under batch statistics, its normalisation layers to be adapted."""
    model = golden_network(norm).train().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    parameters = affine(model)
    for p in parameters.values():
        p.requires_grad_(True)
    return model, torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9)


def shannon(logits: Tensor) -> Tensor:
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def tent(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    for images in batches():  # episodic: each batch meets the source
        model, optimizer = prepared(norm)
        logits = model(images)
        descend(optimizer, shannon(logits).mean())
        yield logits, model


def dot(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, optimizer = prepared(norm)
    q = torch.full((C,), 1 / C)
    for images in batches():
        logits = model(images)
        weights = torch.stack([1 / q[label] for label in logits.argmax(1)])
        weights = weights / weights.sum() * len(images)
        q = 0.8 * q + 0.2 * logits.detach().softmax(1).mean(0)
        descend(optimizer, (weights * shannon(logits)).mean())
        yield logits, model


def dsbr(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, _ = prepared(norm)
    optimizer = torch.optim.Adam(affine(model).values(), lr=1e-3)
    share, target = torch.full((C,), 1 / C), [0.4, 0.3, 0.2, 0.1]
    for images in batches():
        logits = model(images)
        labels = logits.argmax(1).tolist()
        share = torch.stack(
            [0.7 * share[c] + 0.3 * labels.count(c) / len(labels) for c in range(C)]
        )
        h = shannon(logits)
        descend(
            optimizer, sum(h[i] * target[c] / share[c] for i, c in enumerate(labels)) / len(labels)
        )
        yield logits, model


def eata(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, optimizer = prepared(norm)
    start = {name: p.detach().clone() for name, p in affine(model).items()}
    fisher, margin, reference = information(norm), 0.5 * math.log(C), 0.4 * math.log(C)
    mean: Tensor | None = None
    for images in batches():
        logits = model(images)
        h = shannon(logits)
        levels = h.tolist()
        rows = [i for i in range(len(images)) if levels[i] < margin]
        if mean is not None:
            rows = [
                i
                for i in rows
                if abs(float(F.cosine_similarity(mean, logits[i].detach().softmax(0), dim=0))) < 0.8
            ]
        if rows:
            p = logits.detach()[rows].softmax(1).mean(0)
            mean = p if mean is None else 0.9 * mean + 0.1 * p
            loss = sum(math.exp(reference - levels[i]) * h[i] for i in rows) / len(rows)
            for name, parameter in affine(model).items():
                loss = loss + 5.0 * (fisher[name] * (parameter - start[name]) ** 2).sum()
            descend(optimizer, loss)
        yield logits, model


def information(norm: str) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(p.shape, generator=rng)
        for name, p in golden_network(norm).named_parameters()
    }


def sar(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, optimizer = prepared(norm)
    margin = 0.6 * math.log(C)
    for images in batches():
        logits = model(images)
        first = shannon(logits)
        sure = first < margin
        optimizer.zero_grad()
        first[sure].mean().backward()
        parameters = list(affine(model).values())
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        norm_of_all = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        old = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p += 0.05 * g / norm_of_all
        second = shannon(model(images))[sure]
        optimizer.zero_grad()
        second[second < margin].mean().backward()
        with torch.no_grad():
            for p, value in zip(parameters, old, strict=True):
                p.copy_(value)
        optimizer.step()
        yield logits, model


def deyo(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, optimizer = prepared(norm)
    for images in batches():
        logits = model(images)
        h = shannon(logits)
        certain = h < 0.7 * math.log(C)
        hidden = images[certain].clone()
        hidden[:, :, 3:8, 4:9] = hidden.mean((2, 3), keepdim=True)
        with torch.no_grad():
            p = model(hidden).softmax(1)
        labels = logits[certain].argmax(1)
        rows = torch.arange(len(labels))
        drop = (logits[certain].softmax(1)[rows, labels] - p[rows, labels]).detach()
        kept = drop > 0.01
        h, drop = h[certain][kept], drop[kept]
        if len(h):
            descend(optimizer, ((0.4 * math.log(C) - h.detach()).exp() * h + drop.exp() * h).mean())
        yield logits, model


def roid(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
    model, optimizer = prepared(norm)
    start = {name: p.detach().clone() for name, p in affine(model).items()}
    mean = torch.full((C,), 1 / C)
    for images in batches():
        logits = model(images)
        p = logits.softmax(1)
        with torch.no_grad():
            diverse = 1 - F.cosine_similarity(mean[None], p, dim=1)
            diverse = (diverse - diverse.min()) / (diverse.max() - diverse.min())
            certain = -shannon(logits)
            certain = (certain - certain.min()) / (certain.max() - certain.min())
            weights = (3 * diverse * certain).exp()
            weights[diverse < diverse.mean()] = 0
            mean = 0.9 * mean + 0.1 * p.mean(0)
        clipped = p.clamp(0, 0.99)
        ratio = -(clipped * (clipped / (1 - clipped) + 1e-5).log()).sum(1)
        descend(optimizer, (ratio * weights).sum() / len(images))
        with torch.no_grad():
            for name, parameter in affine(model).items():
                parameter.copy_(0.99 * parameter + 0.01 * start[name])
            prior = p.mean(0)
            smooth = max(1 / len(images), 1 / C) / prior.max()
            yield logits * ((prior + smooth) / (1 + smooth * C)), model


def lame(affinity: str) -> Callable[[str], Iterator[tuple[Tensor, nn.Module]]]:
    @torch.no_grad()
    def stream(norm: str) -> Iterator[tuple[Tensor, nn.Module]]:
        model = golden_network(norm).eval()
        for images in batches():
            features = F.normalize(model[:-1](images), dim=1)
            unary = -(model[-1](model[:-1](images)).softmax(1) + 1e-10).log()
            distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
            if affinity == "linear":
                kernel = features @ features.T
            elif affinity == "rbf":
                kernel = (-(distance**2) / (2 * distance.sort(1).values[:, 4].mean() ** 2)).exp()
            else:
                kernel = torch.zeros(16, 16)
                for i, order in enumerate(distance.argsort(1)):
                    kernel[i, order[1:6]] = 1
            y, energies = (-unary).softmax(1), [math.inf]
            for step in range(100):
                pull = kernel @ y
                y = (pull - unary).softmax(1)
                energies.append(float((y * (unary - pull + y.clamp(min=1e-20).log())).sum()))
                if step > 1 and abs(energies[-1] - energies[-2]) <= 1e-8 * abs(energies[-2]):
                    break
            yield y, model

    return stream


CASES = {
    "tent": (tent, "tent", {**SGD, "episodic": True}),
    "dot": (dot, "dot", {**SGD, "ema": 0.8}),
    "dsbr": (
        dsbr,
        "dsbr",
        {"optimizer": "adam", "lr": 1e-3, "ema": 0.7, "target_prior": [0.4, 0.3, 0.2, 0.1]},
    ),
    "eata": (
        eata,
        "eata",
        {
            **SGD,
            "entropy_margin": 0.5 * math.log(C),
            "entropy_reference": 0.4 * math.log(C),
            "redundancy_margin": 0.8,
            "fisher_weight": 5.0,
        },
    ),
    "sar": (
        sar,
        "sar",
        {**SGD, "entropy_margin": 0.6 * math.log(C), "reset_threshold": None, "exclude": []},
    ),
    "deyo": (
        deyo,
        "deyo",
        {
            **SGD,
            "entropy_margin": 0.7 * math.log(C),
            "plpd_threshold": 0.01,
            "transform": "occlusion",
            "occlusion": [3, 4, 5],
            "exclude": [],
        },
    ),
    "roid": (roid, "roid", {**SGD, "consistency": False, "prior_correction": "multiply"}),
    **{
        f"lame {kind}": (lame(kind), "lame", {"affinity": kind, "knn": 5})
        for kind in ("knn", "rbf", "linear")
    },
}


@pytest.mark.parametrize("norm", ["bn", "gn"])
@pytest.mark.parametrize("case", CASES)
def test_a_stream_equals_the_reference(case: str, norm: str) -> None:
    reference, name, hyperparameters = CASES[case]
    facts = {"fisher": information(norm)} if name == "eata" else {}
    method = create_method(name, golden_network(norm), num_classes=C, **hyperparameters, **facts)
    source = {key: value.clone() for key, value in method.adapted_state().items()}
    for images, (logits, model) in zip(batches(), reference(norm), strict=True):
        served = method(images)
        torch.testing.assert_close(
            served.softmax(1) if name == "lame" else served, logits.detach(), atol=1e-4, rtol=0
        )
        expected = affine(model)
        for key, value in method.adapted.items():
            torch.testing.assert_close(value.detach(), expected[key].detach(), atol=1e-4, rtol=0)
    if method.adapted:  # a stream that moved nothing would show nothing
        assert (
            max(
                float((method.adapted[key].detach() - value).abs().max())
                for key, value in source.items()
            )
            > 1e-3
        )
