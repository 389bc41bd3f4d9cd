"""The networks and images of the speed benchmark, and what runs on them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lightning import Callback
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from holdfast.benchmarks.rounds import seconds_now
from holdfast.callbacks import CollapseGuard
from holdfast.datamodules import ImageSet, StreamLoader
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta import entry
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.methods import METHODS, Method, create_method
from holdfast.tta.methods.settings import UpdateConfig
from holdfast.tta.networks import MODELS, Network, SplitNetwork, create_network
from holdfast.tta.selection import norm_affine
from holdfast.tta.separation import separation
from holdfast.tta.tasks import create_task

Run = Callable[[Sequence[Tensor]], Any]
_CLASSES = tuple("abcd")
#: Spread of the logits: most predictions then have an entropy below a tenth of what they may have.
_SURE = 8.0


@dataclass(frozen=True)
class Case:
    """A network with images of a size.

    Attributes:
        name: what it is called.
        sides: of the images.
        batch: images of one on CPUs.
        gpu_batch: images of one on a GPU, which is kept busy by more.
        task: what is predicted.
        rate: learning rate, at which noise teaches next to nothing.
        kind: of the network, a name of ``MODELS``; None: the case's own.
        options: of the network, in place of its defaults.
    """

    name: str
    sides: tuple[int, ...]
    batch: int
    gpu_batch: int
    task: str = "single"
    rate: float = 1e-6
    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def on(self, device: torch.device) -> "Case":
        """The case with batches for a device."""
        return self if device.type == "cpu" else replace(self, batch=self.gpu_batch)

    def does(self, method: str) -> bool:
        """Whether a method can be measured on it."""
        made = METHODS[method]
        unknown = set(made.uses) & {"feature_mean"}  # of a trained source
        return not unknown and made.refuses(create_task(self.task, len(_CLASSES))) is None

    def batches(self, count: int, device: torch.device) -> list[Tensor]:
        """Random images, laid out as images usually are: channels last is part of what is
        measured.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, 3, *self.sides)
        return [torch.rand(shape, generator=generator).to(device) for _ in range(count)]

    def network(self, device: torch.device) -> nn.Module:
        """The network, its weights random, but the same each time."""
        torch.manual_seed(0)
        network = self.architecture()
        if isinstance(network, SplitNetwork):
            self._tell_apart(network)
        return network.to(device)

    def architecture(self) -> Network:
        """The network, with weights as they are drawn."""
        kind = self.kind or self.name
        geometry: dict[str, Any] = {"num_classes": len(_CLASSES), "channels": 3}
        options = MODELS[kind](**self.options)
        return create_network(kind, options, **geometry, size=self.sides)[0]

    @torch.no_grad()
    def _tell_apart(self, network: SplitNetwork) -> None:
        """Give a network a head that tells noise apart, and is sure of it: filters of samples would
        leave out all of it, and there would be nothing to measure.
        """
        features = network.train().features(torch.cat(self.batches(1, torch.device("cpu"))))
        mean, weight = features.mean(0), torch.randn_like(network.head.weight)
        weight *= _SURE / ((features - mean) @ weight.mT).std().clamp(min=1e-6)
        network.head.weight.copy_(weight)
        network.head.bias.copy_(-weight @ mean)

    def forward(self, device: torch.device) -> Run:
        """Forward passes of the network as it is, and nothing else."""
        network = self.network(device).eval()

        @torch.no_grad()
        def run(batches: Sequence[Tensor]) -> None:
            for batch in batches:
                network(batch)

        return run

    def created(self, name: str, device: torch.device) -> Method:
        """A method on it; what it must know of a source is made up."""
        made, network = METHODS[name], self.network(device)
        learns = issubclass(made.Config, UpdateConfig)
        given: dict[str, Any] = {"optimizer": "adam", "lr": self.rate} if learns else {}
        if "fisher" in made.uses:
            given["fisher"] = {key: torch.ones_like(p) for key, p in norm_affine(network).items()}
        if "entropy_quantiles" in made.uses:
            given["entropy_quantiles"] = torch.linspace(0, math.log(len(_CLASSES)), 101)
        return create_method(name, network, num_classes=len(_CLASSES), task=self.task, **given)

    def method(self, name: str, device: torch.device) -> Run:
        """Steps of a method."""
        method = self.created(name, device)
        return lambda batches: [method(batch) for batch in batches]


#: As in configs/model/vit_b16.yaml.
_VIT_B16 = {"patch_size": 16, "hidden_size": 768, "layers": 12, "heads": 12, "qkv_bias": True}

CASES = {
    case.name: case
    for case in (
        Case("compact", (28, 28), 64, 64),
        Case("resnet18", (64, 64), 64, 64),
        Case("resnet50", (224, 224), 8, 64),
        Case("vit_b16", (224, 224), 4, 64, kind="vit", options=_VIT_B16),
        Case("resnet10", (64, 64, 64), 2, 16),
        Case("basicunet", (256, 256), 2, 16, "segmentation"),
        Case("basicunet-3d", (64, 64, 64), 1, 4, "segmentation", kind="basicunet"),
    )
}


def of_pixels(case: Case, device: torch.device) -> dict[str, Run]:
    """What networks of pixels do besides: see twice as wide images in windows, beside MONAI's own
    inferer, and the statistics that a guard takes of an answer; none of other cases.
    """
    if case.task != "segmentation":
        return {}
    network, method = case.network(device).eval(), case.created("tent", device)
    task = method.task
    said: list[Any] = []

    @torch.no_grad()
    def windows(batches: Sequence[Tensor]) -> list[Tensor]:
        return [network(torch.cat([batch, batch], -1)) for batch in batches]

    @torch.no_grad()
    def monai(batches: Sequence[Tensor]) -> list[Any]:
        wide, given = [torch.cat([batch, batch], -1) for batch in batches], (case.sides, case.batch)
        return [sliding_window_inference(one, *given, network, mode="gaussian") for one in wide]

    @torch.no_grad()
    def statistics(batches: Sequence[Tensor]) -> None:
        for batch in batches:
            said[:] = said or [method.predict(batch).detach()]  # once, and not timed
            task.counts(said[0])
            rows = task.seen(said[0])
            labels = rows.logits.argmax(1).cpu().numpy()
            separation(rows.features.float().cpu().numpy(), labels, task.cells)

    return {"plain: windows": monai, "windows": windows, "statistics: tent": statistics}


def passes(case: Case, steps: int, device: torch.device) -> dict[str, Run]:
    """Whole passes of a Trainer with Tent over a stream of 2D images with one label, loader
    included, without guard and with it; none of other cases.

    Each tells its seconds from the end of a first batch on, for a Trainer takes a moment to start.
    """
    if case.task != "single" or len(case.sides) != 2:
        return {}
    loader = _loader(case, steps + 1)

    def passed(*callbacks: Callback) -> Run:
        module = AdaptationModule(case.created("tent", device), case.batch, bool(callbacks))
        quiet = {"enable_progress_bar": False, "accelerator": device.type}
        given = entry.trainer_arguments(quiet, max_epochs=1, enable_checkpointing=False)
        clock = _Clock()
        given |= {"callbacks": [*callbacks, clock], "logger": False}

        def run(batches: Sequence[Tensor]) -> float:
            entry.create_trainer(given).fit(module, loader)
            return clock.seconds

        return run

    return {"pass: tent": passed(), "guarded pass: tent": passed(CollapseGuard(_CLASSES))}


class _Clock(Callback):
    """Times the batches of a pass behind the first one."""

    start = seconds = 0.0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.start = seconds_now(pl_module.device)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds = seconds_now(pl_module.device) - self.start


def _loader(case: Case, steps: int) -> StreamLoader:
    count = case.batch * steps
    rng = np.random.default_rng(0)
    images = ImageSet(
        images=rng.integers(0, 256, (count, *case.sides, 3), dtype=np.uint8),
        target=LabelTarget(np.zeros(count, dtype=np.int64), _CLASSES),
        ids=np.arange(count).astype(str),
        domains=np.full(count, "noise"),
        groups=np.arange(count).astype(str),
    )
    return StreamLoader(images, np.arange(count), case.batch)
