"""``check_shift`` and ``check_stream`` pass ours, and name what is broken in others."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.datamodules import ImageSet, Stream
from holdfast.datamodules.shifts import CORRUPTIONS, Corruption
from holdfast.datamodules.streams import STREAMS, StreamConfig
from holdfast.testing import check_shift, check_stream

#: Options without which a stream does nothing.
OPTIONS = {"continual": {"shifts": ["noise", "blur"]}, "gradual": {"shifts": ["noise"]}}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_our_shifts_keep_the_promises(name: str) -> None:
    check_shift(name)


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "replay"])
def test_our_streams_keep_the_promises(name: str) -> None:
    check_stream(name, **OPTIONS.get(name, {}))


def _doubles(image: Tensor, strength: float, rng: Any) -> Tensor:
    return image.double() * (1 - strength)


def _in_place(image: Tensor, strength: float, rng: Any) -> Tensor:
    return image.mul_(1 - strength)


def _own_chance(image: Tensor, strength: float, rng: Any) -> Tensor:
    return image + strength * torch.randn_like(image)


def _fades(image: Tensor, strength: float, rng: Any) -> Tensor:
    return image * (1 - strength)


@pytest.mark.parametrize(
    ("corruption", "message"),
    [
        (Corruption(_doubles, LEVELS), "_doubles returns something else than finite float32"),
        (Corruption(_in_place, LEVELS), "_in_place changes the image it is given .*: copy it"),
        (Corruption(_own_chance, LEVELS), "_own_chance differs between two runs .*generator"),
        (Corruption(_fades, LEVELS[::-1]), "_fades does not grow with severity"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.function.__name__,
)
def test_a_broken_shift_is_named(corruption: Corruption, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_shift(corruption)


class Chancy(StreamConfig):
    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        return Stream(np.random.default_rng().permutation(len(images)), (None,))


class Beyond(StreamConfig):
    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        return Stream(np.arange(len(images)) + 1, (None,))


class Once(StreamConfig):
    def all_passes(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        return self.one_pass(images, rng)


class Nameless(StreamConfig):
    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        return Stream(rng.permutation(len(images)), (lambda image, name: image,))


class NeedsLabels(StreamConfig):
    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        return Stream(np.bincount(images.labels).argsort(), (None,))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Chancy, "has another order under the same seed"),
        (Beyond, "names rows that there are not"),
        (Once, "has 60 items in twice the passes"),
        (Nameless, "cannot be saved"),
        (NeedsLabels, "fails on images without labels"),
    ],
)
def test_a_broken_stream_is_named(stream: type[StreamConfig], message: str) -> None:
    with pytest.raises(AssertionError, match=f"{stream.__name__} {message}"):
        check_stream(stream)
