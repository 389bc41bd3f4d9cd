"""The guard on masks and findings: units, what serves, and the two faces of collapse."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import holdfast
from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.health import Health
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.settings import Tuned
from holdfast.loop import GuardedMethod
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.tasks import Multilabel, Segmentation, Task


def blobs(count: int = 4, seed: int = 0, contrast: float = 1.0) -> tuple[Tensor, Tensor]:
    """Images with a bright square each, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, 24, 24, generator=generator)
    masks = torch.zeros(count, 24, 24, dtype=torch.long)
    for index, corner in enumerate(torch.randint(2, 12, (count, 2), generator=generator).tolist()):
        rows, columns = (slice(start, start + 8) for start in corner)
        masks[index, rows, columns] = 1
    return images + contrast * 2 * masks[:, None], masks


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, padding=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 5, padding=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Conv2d(8, 2, 1),
    )


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """To find the squares."""
    torch.manual_seed(0)
    model = network()
    task, optimizer = Segmentation(2), torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(30):
        images, masks = blobs(8, step)
        loss = task.loss(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_a_look_at_a_part_of_a_batch_doubts_that_part(trained: nn.Module) -> None:
    watched = guarded(trained, normalization="auto")
    images, _ = blobs(32)
    twins = watched._module.twins
    assert twins is not None
    whole, part = twins.predict(images), twins.predict(images, None, {"source"})["source"]
    assert part.doubt is not None
    assert len(part.served) == len(part.doubt) == 16
    torch.testing.assert_close(part.served, whole["source"].served[::2])


def guarded(trained: nn.Module, name: Any = "tent", **more: Any) -> GuardedMethod:
    model = _copy(trained)
    options = {"optimizer": "adam", "lr": 1e-3, **more}
    method = holdfast.create_method(name, model, num_classes=2, task="segmentation", **options)
    return holdfast.guard(method, source=[blobs(8, 100 + index) for index in range(4)])


def _copy(trained: nn.Module) -> nn.Module:
    fresh = network()
    fresh.load_state_dict(trained.state_dict())
    return fresh.eval()


def stream(batches: int, size: int, contrast: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    for index in range(batches):
        yield blobs(size, 1000 + index, contrast)


def dice(served: list[Tensor], masks: list[Tensor]) -> float:
    scorer = Segmentation(2).scorer()
    scorer.add(torch.cat(served), torch.cat(masks))
    return scorer.scores()["dice"]


@pytest.mark.parametrize("size", [1, 4])
def test_a_calm_stream_of_cases_is_served_in_masks(trained: nn.Module, size: int) -> None:
    watched = guarded(trained)
    served, truth = [], []
    for images, masks in stream(12, size):
        served.append(watched(images))
        truth.append(masks)
        assert served[-1].shape == (size, 2, 24, 24)
    assert dice(served, truth) > 85
    assert watched.verdict != "ALARM"


class Erodes(NormAffineMethod):
    """Drives towards nothing but background."""

    way = 1.0

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        return self.way * prediction.logits.softmax(1)[:, 1].mean()


class Inflates(Erodes):
    """Drives towards nothing but foreground."""

    way = -1.0


@pytest.mark.parametrize("method", [Erodes, Inflates])
def test_erosion_and_inflation_are_caught(
    trained: nn.Module, method: type[NormAffineMethod]
) -> None:
    options = {"optimizer": "adam", "lr": 0.1}
    alone = holdfast.create_method(
        method, _copy(trained), num_classes=2, task="segmentation", **options
    )
    watched = guarded(trained, method, **options)
    left: dict[str, list[Tensor]] = {"alone": [], "guarded": []}
    truth = []
    for images, masks in stream(30, 1, contrast=0.6):
        left["alone"].append(alone(images))
        left["guarded"].append(watched(images))
        truth.append(masks)
    reasons = {event["reason"] for event in watched.events}
    assert dice(left["alone"], truth) < 50
    assert dice(left["guarded"], truth) > 85
    assert reasons & {"drift", "gain"}


def test_a_mixture_is_one_of_masks(trained: nn.Module) -> None:
    watched = guarded(trained)
    experts = watched._guard.experts
    for images, _ in stream(2, 2):
        watched(images)
    experts.tuned = Tuned(alone=1.0)
    experts._doubts = {name: np.array([8.0, 0.1, 0.1]) for name in ("source", "batch")}
    experts.looks = 0.0
    images, _ = blobs(2, 5)
    assert watched(images).shape == (2, 2, 24, 24)
    assert watched.served_by == "mixture"


def test_a_guard_of_masks_goes_on_from_its_state(trained: nn.Module) -> None:
    first = guarded(trained)
    batches = list(stream(6, 2))
    for images, _ in batches[:3]:
        first(images)
    second = guarded(trained)
    second.load_state_dict(first.state_dict())
    for images, _ in batches[3:]:
        assert torch.equal(first(images), second(images))
    assert first.events[-1:] == second.events[-1:] or not second.events


def test_findings_are_guarded_and_one_that_vanishes_is_told() -> None:
    task, tuned = Multilabel(3), Tuned()
    health = Health(task.cells, tuned, None, task)
    generator = torch.Generator().manual_seed(0)
    values: dict[str, float | None] = {}
    for _ in range(6):
        features = torch.randn(16, 5, generator=generator)
        output = torch.randn(16, 3, generator=generator)
        gone = output.clone()
        gone[:, 1] = -3.0
        asked = health.asks(task.rows(gone, features), task.rows(output, features))
        values = health.compare(read_back(asked))
    assert values["vanished"] == 1
    drift = values["drift"]
    assert drift is not None
    assert 0.2 < drift < 0.6


def test_findings_in_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 3))
    method = holdfast.create_method("tent", model, num_classes=3, task="multilabel")
    images = torch.randn(40, 6)
    watched = holdfast.guard(method, source=[(images, (images[:, :3] > 0).float())])
    for _ in range(3):
        assert watched(torch.randn(8, 6)).shape == (8, 3)


def test_labels_of_images_are_refused_for_masks() -> None:
    guard = holdfast.CollapseGuard(["a", "b"])
    guard.labelled = object()  # type: ignore[assignment]
    with pytest.raises(InputError, match="task is segmentation: leave it out"):
        guard.watch(Segmentation(2))


@pytest.mark.parametrize("task", [Segmentation(3), Multilabel(3)])
def test_of_no_images_nothing_is_seen_or_found(task: Segmentation | Multilabel) -> None:
    sides = (8, 8) if task.dense else ()
    every = task.rows(torch.rand(2, 3, *sides), torch.rand(2, 4, *sides))
    none = every.of_images(torch.zeros(2, dtype=torch.bool))
    assert len(task.seen(none).logits) == len(task.found(none)) == 0


@pytest.mark.parametrize(("task", "heeded"), [(Segmentation(2), False), (Multilabel(2), True)])
def test_the_order_of_cases_says_nothing_of_masks(task: Task, heeded: bool) -> None:
    """Each image has all classes, so no batch is of one."""
    guard = CollapseGuard(["a", "b"], GuardConfig(order="correlated"))
    guard.watch(task)
    assert bool(guard.experts.hint) == heeded
