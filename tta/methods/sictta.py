"""SicTTA: mix what an image shows at the network's bottleneck with what similar images that the
source was sure of showed there; nothing is learned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import BatchStatisticsError, Statistics, statistics
from holdfast.tta.options import option, within
from holdfast.tta.prediction import joined
from holdfast.tta.windows import larger

#: Keeps the logarithm of a share finite, as released.
_LEAST = 1e-5


@dataclass
class SicTTAConfig(MethodConfig):
    """Hyperparameters of SicTTA."""

    capacity: int = option(40, "images that are remembered, and one more")
    neighbours: int = option(5, "remembered images that each one is mixed with")
    pixels: int = option(200, "pixels by which an image is judged, drawn by seed")
    sure: float = option(0.1, "share of the last images that are sure enough to be remembered")

    def __post_init__(self) -> None:
        for name in ("capacity", "neighbours", "pixels"):
            if getattr(self, name) < 1:
                raise InputError(f"method.{name}={getattr(self, name)} must be at least 1")
        within(self, "sure", 0, 1, left=False)


class SicTTA(Method):
    """Each image decoded from a mix of its own map at the bottleneck and those of remembered ones,
    under statistics of them all; by the source until one is remembered.

    The bottleneck is the coarsest map of the network. Networks without one, and images in windows,
    are predicted by the source. Images of other sides begin a new memory.
    """

    Config: ClassVar[type[MethodConfig]] = SicTTAConfig
    config: SicTTAConfig
    normalization: ClassVar[Statistics] = "source"
    paper: ClassVar[str] = "Wu et al., Medical Image Analysis 2026"
    passes: ClassVar[str] = "4/0 an image"
    updates: ClassVar[str] = "predictions"
    needs_mixed_batch: ClassVar[bool] = False

    def register_state(self) -> None:
        """Doubts of the last images; maps and images that are remembered."""
        none = torch.zeros(0)
        self.memory = {"doubts": none, "maps": none, "images": none}
        self._place: list[nn.Module] | None = None  # not known yet; empty: there is none

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Each image by itself."""
        return joined([self._of_one(image) for image in torch.split(images, 1)])

    @torch.no_grad()
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Remember the images that the source is sure of."""
        if len(images) and self._bottleneck(images):
            for image in torch.split(images, 1):
                self._remember(image)
        return Update()

    def _of_one(self, image: Tensor) -> Prediction:
        maps, known = self.memory["maps"], self.memory["images"]
        own = None
        if len(maps) and known.shape[1:] == image.shape[1:] and self._bottleneck(image):
            own = self._map(image)
        if own is None:
            return self.run(image)
        near = F.cosine_similarity(maps, own.flatten()[None])
        near, rows = near.topk(min(self.config.neighbours, len(maps)))
        rate = near.mean()
        others = (rate * near.softmax(0))[:, None] * maps[rows]
        mixed = (1 - rate) * own + others.sum(0).reshape(own.shape)
        with self._at_bottleneck(lambda said: torch.cat([mixed, said[1:]])):
            said = self.run(torch.cat([image, known[rows]]))
        return said.of_images(torch.arange(len(said.served), device=image.device) == 0)

    def _remember(self, image: Tensor) -> None:
        """Keep an image, in place of the oldest, if it is among those with least doubt."""
        if self.memory["images"].shape[1:] != image.shape[1:]:
            none = image.new_zeros(0)
            self.memory = {"doubts": none, "maps": none, "images": image[:0]}
        doubt, maps = self._doubt(image), self.memory["maps"]
        doubts = torch.cat([self.memory["doubts"], doubt[None]])[-self.config.capacity :]
        self.memory["doubts"] = doubts
        enough = self.config.neighbours
        share = len(maps) / enough if len(maps) < enough else 1 - self.config.sure
        few = int(len(doubts) * (1 - share))
        if not few or not doubt <= doubts.sort().values[few - 1]:
            return
        own = self._map(image)
        if own is None:
            return
        kept = slice(-self.config.capacity, None)
        before = maps[kept] if len(maps) else own.new_zeros(0, own.numel())
        self.memory["maps"] = torch.cat([before, own.reshape(1, -1)])
        self.memory["images"] = torch.cat([self.memory["images"][kept], image])

    def _doubt(self, image: Tensor) -> Tensor:
        """Mean entropy, over classes, of how the source's answers of a class go with those of each
        (class-correlation entropy): low where each pixel has one class.
        """
        p = self.run(image).logits.float().softmax(1)
        drawn = torch.randperm(len(p), generator=self.generator)[: self.config.pixels]
        p = F.normalize(p[drawn.to(p.device)])
        q = (p.T @ p).softmax(1)
        return -(q * (q + _LEAST).log()).sum(1).mean()

    def _map(self, image: Tensor) -> Tensor | None:
        """What an image shows at the bottleneck under its own statistics; None where a layer sees a
        single value.
        """
        seen: list[Tensor] = []

        def note(said: Tensor) -> Tensor:
            seen.append(said)
            return said

        try:
            with self._at_bottleneck(note):
                self.run(image)
        except BatchStatisticsError:
            return None
        return seen[0].float()

    @contextmanager
    def _at_bottleneck(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the block layers normalise by the batch, and the bottleneck's map is changed."""
        assert self._place, "images are remembered where there is a bottleneck"
        hook = self._place[0].register_forward_hook(lambda module, args, said: change(said))
        try:
            with statistics(self.model, "batch"):
                yield
        finally:
            hook.remove()

    def _bottleneck(self, images: Tensor) -> list[nn.Module]:
        """The module that leaves the coarsest map last, looked for once; none where no map is
        coarser than the images, or these come in windows.
        """
        window = getattr(self.model, "window", None)
        if window is not None and larger(images, window):
            return []
        if self._place is None:
            self._place = _coarsest(self.model, lambda: self.run(images[:1]), images)
        return self._place


def _coarsest(model: nn.Module, run: Callable[[], Any], images: Tensor) -> list[nn.Module]:
    """The module of a network whose map has fewest pixels, the last of these to answer."""
    found: list[tuple[int, nn.Module]] = []

    def note(module: nn.Module, args: Any, said: Any) -> None:
        if isinstance(said, Tensor) and said.dim() == images.dim() > 2:
            found.append((said.shape[2:].numel(), module))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    fewest = min((pixels for pixels, _ in found), default=0)
    if not fewest or fewest >= images.shape[2:].numel():
        return []
    return [[module for pixels, module in found if pixels == fewest][-1]]
