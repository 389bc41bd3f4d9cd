"""DeYO: entropy minimisation on samples whose prediction depends on shape."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.normalization import own_share
from holdfast.tta.options import option, within
from holdfast.tta.views import occluded, shuffled_patches, shuffled_pixels


@dataclass
class DeYOConfig(UpdateConfig):
    """Hyperparameters of DeYO."""

    entropy_margin: float | None = option(
        None, "entropy below which a sample is kept, in nats; null: 0.5 ln C"
    )
    entropy_reference: float | None = option(
        None, "E₀ of the weights e^(E₀−H), in nats; null: 0.4 ln C"
    )
    plpd_threshold: float = option(
        0.2, "drop in confidence without shape above which a sample is kept, in [-1, 1]"
    )
    transform: Literal["patch", "pixel", "occlusion"] = option(
        "patch", "what destroys shape: patch, pixel or occlusion"
    )
    patches: int = option(4, "patches a side of transform=patch")
    occlusion: list[int] | None = option(
        None, "[row, column, size] of the occluded square; null: the middle half"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "entropy_margin", 0, math.inf, left=False)
        within(self, "entropy_reference", 0, math.inf, left=False)
        within(self, "plpd_threshold", -1, 1)
        if self.patches < 1:
            raise InputError(f"method.patches={self.patches} must be at least 1")
        if self.occlusion is not None and (
            len(self.occlusion) < 3 or min(self.occlusion) < 0 or self.occlusion[-1] < 1
        ):
            raise InputError(f"method.occlusion={self.occlusion} must be [row, column, size]")


class DeYO(NormAffineMethod):
    """Entropy of the samples that are certain, and less so once shape is destroyed; weighted by
    both.
    """

    Config: ClassVar[type[MethodConfig]] = DeYOConfig
    config: DeYOConfig
    paper: ClassVar[str] = "Lee et al., ICLR 2024"
    passes: ClassVar[str] = "2/1"
    updates: ClassVar[str] = "norm affine but the last stage"
    spares_last_stage: ClassVar[bool] = True

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Weighted mean entropy of the kept samples."""
        config = self.config
        margin = self.nats(0.5) if config.entropy_margin is None else config.entropy_margin
        reference = self.nats(0.4) if config.entropy_reference is None else config.entropy_reference
        losses = self.uncertainty(prediction.logits)
        certain = losses.detach() < margin
        if not certain.any():
            return None
        # As published, the shapeless images form a batch of their own, which batch statistics
        # notice.
        with torch.no_grad(), own_share():  # where another process may have none
            if prediction.image is None:
                said = self.run(self.without_shape(images[certain])).logits
            else:
                said = self._shapeless(images).logits[certain]
            shapeless = said.softmax(1)
        confidence, labels = prediction.logits.detach()[certain].softmax(1).max(1)
        drop = confidence - shapeless.gather(1, labels[:, None]).squeeze(1)
        kept = drop > config.plpd_threshold
        if not kept.any():
            return None
        losses, drop = losses[certain][kept], drop[kept]
        return (losses * ((reference - losses.detach()).exp() + drop.exp())).mean()

    def without_shape(self, images: Tensor) -> Tensor:
        """The images with shape destroyed and texture kept."""
        if self.config.transform == "patch":
            return shuffled_patches(images, self.config.patches, self.generator)
        if self.config.transform == "pixel":
            return shuffled_pixels(images, self.generator)
        sides = images.shape[2:]
        if self.config.occlusion is None:
            return occluded(images, tuple(side // 4 for side in sides), min(sides) // 2)
        *corner, size = self.config.occlusion
        if len(corner) != len(sides) or any(
            start >= side for start, side in zip(corner, sides, strict=True)
        ):
            raise InputError(
                f"occlusion={self.config.occlusion} lies outside images of "
                f"{'x'.join(map(str, sides))}"
            )
        return occluded(images, tuple(corner), size)

    def _shapeless(self, images: Tensor) -> Prediction:
        """What is said of images without shape; of each pixel, wherever it has come to lie."""
        if not self.task.dense or self.config.transform == "occlusion":
            return self.run(self.without_shape(images))
        sides = images.shape[2:]
        patches = self.config.patches
        if self.config.transform == "patch" and any(side % patches for side in sides):
            raise InputError(
                f"patches={patches} does not divide images of {'x'.join(map(str, sides))}, whose "
                "pixels could not be found again: choose another number, or transform=pixel"
            )
        state = self.generator.get_state()
        shapeless = self.without_shape(images)
        self.generator.set_state(state)
        numbers = torch.arange(sides.numel(), device=images.device).view(1, 1, *sides)
        came_from = self.without_shape(numbers.expand(len(images), -1, *sides)).flatten(2)

        def back(maps: Tensor) -> Tensor:
            if maps.shape[2:] != sides:
                raise InputError(
                    "the network answers in another size than its images have, so pixels cannot be "
                    "found again: use transform=occlusion"
                )
            places = came_from.expand(-1, maps.shape[1], -1)
            return (
                torch.empty_like(maps)
                .flatten(2)
                .scatter_(2, places, maps.flatten(2))
                .view(maps.shape)
            )

        return self.run(shapeless, back=back)
