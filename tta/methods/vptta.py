"""VPTTA: before each image is predicted, learn a prompt that multiplies its low frequencies until
the layers' statistics lie near the source's; prompts of similar images are where it starts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import Statistics, TestTimeBatchNorm
from holdfast.tta.options import option, within
from holdfast.tta.prediction import joined

#: Of Adam, as released: how long it remembers gradients and their squares, and what keeps a step
#: finite. Its moments outlive an image.
_BETAS, _EPSILON = (0.9, 0.99), 1e-8
#: Temperature of the similarities by which remembered prompts are weighed, as released.
_TEMPERATURE = 0.2
#: Variance that a channel has at least: the root of none has no gradient that is finite.
_LEAST = 1e-12


@dataclass
class VPTTAConfig(MethodConfig):
    """Hyperparameters of VPTTA."""

    lr: float = option(0.05, "learning rate of the prompt, by Adam; published for polyps: .01")
    steps: int = option(1, "updates of the prompt for each image")
    share: float = option(0.01, "side of the prompt, as a share of the image's")
    capacity: int = option(40, "prompts that are remembered, and one more")
    neighbours: int = option(16, "remembered prompts of which a new one is the mean")
    warm_up: float = option(
        5.0,
        "the larger, the longer statistics lean to the image's own: after n images their weight is "
        "1/(√n/warm_up + 1)",
    )

    def __post_init__(self) -> None:
        if not 0 < self.lr < 100:
            raise InputError(f"method.lr={self.lr} is outside (0, 100)")
        within(self, "share", 0, 1, left=False)
        for name in ("steps", "capacity", "neighbours"):
            if getattr(self, name) < 1:
                raise InputError(f"method.{name}={getattr(self, name)} must be at least 1")
        if self.neighbours > self.capacity + 1:
            raise InputError(
                f"method.neighbours={self.neighbours} are more than the {self.capacity + 1} "
                "prompts that method.capacity lets it remember: take fewer"
            )
        if not self.warm_up > 0:
            raise InputError(f"method.warm_up={self.warm_up} must be above 0")


class VPTTA(Method):
    """How far the moments of what each BatchNorm layer sees lie from a mix of the source's and the
    image's own, under which it then predicts; the network is left alone.

    Each image is predicted after its own update. Images whose prompt has another size begin a new
    memory. Networks without running statistics, and images without sides, are predicted as they
    are.
    """

    Config: ClassVar[type[MethodConfig]] = VPTTAConfig
    config: VPTTAConfig
    normalization: ClassVar[Statistics] = "source"
    paper: ClassVar[str] = "Chen et al., CVPR 2024"
    passes: ClassVar[str] = "2/1 an image"
    updates: ClassVar[str] = "a prompt, for each image"
    predicts_first: ClassVar[bool] = False
    needs_mixed_batch: ClassVar[bool] = False

    def register_state(self) -> None:
        """Images so far, and steps of Adam; prompts and moments come with the first image."""
        self.memory = {"images": torch.zeros(()), "steps": torch.zeros(())}

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Learn the prompt of each image in turn, and predict it."""
        layers = [layer for layer in self.layers.values() if layer.running_mean is not None]
        if not layers or images.dim() < 3 or not len(images):
            with torch.no_grad():
                return Update(prediction=self.run(images))
        said, losses = zip(*(self._of_one(image) for image in torch.split(images, 1)), strict=True)
        return Update(loss=torch.stack(losses).mean(), prediction=joined(said))

    def _of_one(self, image: Tensor) -> tuple[Prediction, Tensor]:
        spectrum = _Spectrum(image, self.config.share)
        self._make_room(spectrum)
        self.memory["images"] = self.memory["images"] + 1
        key = spectrum.low.abs().flatten()
        prompt = self._remembered(key, spectrum)
        for _ in range(self.config.steps):
            prompt, loss = self._stepped(prompt, spectrum)
        with torch.no_grad(), self._mixed_statistics():
            said = self.run(spectrum.prompted(prompt))
        self._remember(key, prompt)
        return said, loss

    def _make_room(self, spectrum: "_Spectrum") -> None:
        """Memory for prompts of these sides, empty where it was of others."""
        shape = spectrum.low.shape
        if "moment" in self.memory and self.memory["moment"].shape == shape:
            return
        empty = torch.zeros(0, shape.numel(), device=spectrum.low.device)
        zeros = torch.zeros(shape, device=empty.device)
        self.memory |= {"keys": empty, "prompts": empty, "moment": zeros, "square": zeros}
        self.memory["steps"] = torch.zeros((), device=empty.device)

    def _remembered(self, key: Tensor, spectrum: "_Spectrum") -> Tensor:
        """Where a prompt starts: the mean of those of the most similar images, by the cosine of
        their low amplitudes; ones until there are enough.
        """
        keys, count = self.memory["keys"], self.config.neighbours
        if len(keys) < count:
            return torch.ones_like(self.memory["moment"])
        near, rows = F.cosine_similarity(keys, key[None]).topk(count)
        weights = (near / _TEMPERATURE).softmax(0)
        mean = (weights[:, None] * self.memory["prompts"][rows]).sum(0)
        return mean.view(spectrum.low.shape)

    def _stepped(self, prompt: Tensor, spectrum: "_Spectrum") -> tuple[Tensor, Tensor]:
        """The prompt after a step of Adam, and the loss before it."""
        with torch.enable_grad(), self._mixed_statistics() as losses:
            prompt = prompt.detach().requires_grad_(True)
            self.run(spectrum.prompted(prompt))
            if not losses:  # all layers see a single value
                return prompt.detach(), prompt.new_zeros(())
            loss = torch.stack(losses).mean()
            (gradient,) = torch.autograd.grad(loss, prompt)
        past, steps = self.memory, self.memory["steps"] + 1
        moment = past["moment"].lerp(gradient, 1 - _BETAS[0])
        square = past["square"].lerp(gradient.square(), 1 - _BETAS[1])
        self.memory |= {"steps": steps, "moment": moment, "square": square}
        mean, spread = moment / (1 - _BETAS[0] ** steps), square / (1 - _BETAS[1] ** steps)
        stepped = prompt.detach() - self.config.lr * mean / (spread.sqrt() + _EPSILON)
        return stepped, loss.detach()

    def _remember(self, key: Tensor, prompt: Tensor) -> None:
        """Keep a prompt under its image's amplitudes, in place of the oldest; the same image keeps
        its place.
        """
        keys, prompts = self.memory["keys"], self.memory["prompts"]
        if len(keys) > self.config.capacity:
            keys, prompts = keys[1:], prompts[1:]
        same = (keys == key).all(1)
        if same.any():
            prompts = torch.where(same[:, None], prompt.flatten(), prompts)
        else:
            keys, prompts = torch.cat([keys, key[None]]), torch.cat([prompts, prompt.view(1, -1)])
        self.memory |= {"keys": keys, "prompts": prompts}

    @contextmanager
    def _mixed_statistics(self) -> Iterator[list[Tensor]]:
        """Within the block layers normalise by a mix of the source's moments and the image's, and
        leave how far the image's lie from it; a layer that sees a single value goes by the
        source's.
        """
        share = float(1 / (self.memory["images"].sqrt() / self.config.warm_up + 1))
        losses: list[Tensor] = []

        def mixed(layer: TestTimeBatchNorm, args: tuple[Tensor, ...], output: Any) -> Any:
            x, (source_mean, source_var) = args[0], (layer.running_mean, layer.running_var)
            assert source_mean is not None
            assert source_var is not None
            if x[:, 0].numel() < 2:
                return None
            own_var, own_mean = torch.var_mean(x.float(), [0, *range(2, x.dim())])
            mean = source_mean.float().lerp(own_mean.detach(), share)
            var = source_var.float().lerp(own_var.detach(), share)
            deviation = own_var.clamp(min=_LEAST).sqrt()
            losses.append((mean - own_mean).abs().mean())
            losses[-1] = losses[-1] + (var.sqrt() - deviation).abs().mean()
            mean, var = mean.to(source_mean), var.to(source_var)
            said = F.batch_norm(x, mean, var, layer.weight, layer.bias, False, 0.0, layer.eps)
            for module in layer.children():
                said = module(said)
            return said

        layers = [layer for layer in self.layers.values() if layer.running_mean is not None]
        hooks = [layer.register_forward_hook(mixed) for layer in layers]
        try:
            yield losses
        finally:
            for hook in hooks:
                hook.remove()


class _Spectrum:
    """An image's frequencies, of which the low ones can be multiplied.

    Args:
        image: (1, channels, *spatial).
        share: side of what is low, as a share of the spectrum's.
    """

    def __init__(self, image: Tensor, share: float) -> None:
        self.axes = tuple(range(2, image.dim()))
        self.sides, self.dtype = image.shape[2:], image.dtype
        self.values = torch.fft.fftshift(torch.fft.fftn(image.float(), dim=self.axes), self.axes)
        low = [max(int(side * share), 1) for side in self.sides]
        self.starts = [(side - part) // 2 for side, part in zip(self.sides, low, strict=True)]
        self.low = self.values
        for axis, start, part in zip(self.axes, self.starts, low, strict=True):
            self.low = self.low.narrow(axis, start, part)

    def prompted(self, prompt: Tensor) -> Tensor:
        """The image with its low frequencies multiplied.

        Args:
            prompt: in the shape of ``low``.
        """
        ends: list[int] = []
        for axis in reversed(range(len(self.axes))):
            start = self.starts[axis]
            ends += [start, self.sides[axis] - start - prompt.shape[axis + 2]]
        values = self.values * F.pad(prompt, ends, value=1.0)
        back = torch.fft.ifftn(torch.fft.ifftshift(values, self.axes), dim=self.axes)
        return back.real.to(self.dtype)
