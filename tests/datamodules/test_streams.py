"""Streams: every image as stated, proportions as asked, the same seed the same order; shifts: deterministic, in range."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules import ImageSet, StreamLoader, create_shift, stream_order
from datamodules.shifts import CORRUPTIONS, NoShiftConfig, ShiftConfig
from datamodules.streams import PrevalenceConfig, StreamConfig, class_index
from tta.errors import InputError


def images(count: int = 300) -> ImageSet:
    rng = np.random.default_rng(0)
    names = np.arange(count).astype(str)
    return ImageSet(
        images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(count) % 3,
        ids=names,
        domains=np.full(count, "x"),
        groups=names,
        class_names=("a", "b", "c"),
    )


@pytest.mark.parametrize("passes", [1, 3])
def test_iid_shows_every_image_once_a_pass(passes: int) -> None:
    order = stream_order(StreamConfig(passes=passes), images(), seed=0)
    assert len(order) == 300 * passes
    for part in np.split(order, passes):
        assert sorted(part) == list(range(300))


@pytest.mark.parametrize(("label", "fraction"), [(0, 0.85), ("b", 0.85), (2, 0.0), (1, 1.0)])
def test_prevalence_is_exact_and_as_long_as_the_target(label: int | str, fraction: float) -> None:
    order = stream_order(PrevalenceConfig(label=label, fraction=fraction), images(), seed=0)
    assert len(order) == 300
    number = class_index(label, ("a", "b", "c"))
    assert (images().labels[order] == number).sum() == round(300 * fraction)


@pytest.mark.parametrize("config", [StreamConfig(), PrevalenceConfig()])
def test_the_seed_decides_the_order(config: StreamConfig) -> None:
    assert np.array_equal(stream_order(config, images(), 0), stream_order(config, images(), 0))
    assert not np.array_equal(stream_order(config, images(), 0), stream_order(config, images(), 1))


def test_the_loader_serves_the_order_and_resumes_exactly() -> None:
    order = stream_order(StreamConfig(), images(), 0)
    loader = StreamLoader(images(), order, 64)
    batches = list(loader)
    assert [len(batch["id"]) for batch in batches] == [64, 64, 64, 64, 44]
    assert len(loader) == 5
    assert torch.cat([batch["index"] for batch in batches]).tolist() == order.tolist()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    resumed = StreamLoader(images(), order, 64)
    resumed.load_state_dict(loader.state_dict())
    assert [batch["id"] for batch in resumed] == [batch["id"] for batch in batches[2:]]
    assert len(list(resumed)) == 5  # and the next time from the start


def test_workers_serve_the_same_batches() -> None:
    order = stream_order(StreamConfig(), images(), 0)
    alone, helped = StreamLoader(images(), order, 64), StreamLoader(images(), order, 64, workers=2)
    for first, second in zip(alone, helped, strict=True):
        assert torch.equal(first["image"], second["image"])


def test_bad_streams() -> None:
    with pytest.raises(InputError, match="no images"):
        stream_order(StreamConfig(), images(0), 0)
    with pytest.raises(InputError, match="labelled images of a"):
        stream_order(PrevalenceConfig(), replace(images(), labels=np.full(300, -1)), 0)
    with pytest.raises(InputError, match="none of the classes: a, b, c"):
        stream_order(PrevalenceConfig(label=3), images(), 0)
    for bad in ({"batch_size": 0}, {"passes": 0}):
        with pytest.raises(InputError, match="at least 1"):
            StreamConfig(**bad)
    with pytest.raises(InputError, match="outside"):
        PrevalenceConfig(fraction=1.5)
    with pytest.raises(InputError, match=r"outside 1\.\.5"):
        ShiftConfig(severity=6)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shifts_are_deterministic_in_range_and_grow_with_severity(kind: str) -> None:
    clean = images()[0]["image"]
    changes = []
    for severity in range(1, 6):
        shift = create_shift(kind, ShiftConfig(severity=severity))
        assert shift is not None
        shifted = shift(clean, "0")
        assert torch.equal(shifted, shift(clean, "0"))
        assert shifted.shape == clean.shape
        assert shifted.dtype == torch.float32
        assert 0 <= shifted.min() <= shifted.max() <= 1
        changes.append((shifted - clean).abs().mean().item())
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


def test_noise_depends_on_image_and_seed() -> None:
    clean = torch.full((1, 8, 8), 0.5)
    shift, other = create_shift("noise", ShiftConfig()), create_shift("noise", ShiftConfig(seed=1))
    assert shift is not None
    assert other is not None
    assert not torch.equal(shift(clean, "0"), shift(clean, "1"))
    assert not torch.equal(shift(clean, "0"), other(clean, "0"))
    assert create_shift("none", NoShiftConfig()) is None
