"""Shifts: deterministic by seed and image id, within the range, and the stronger the higher the
severity.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holdfast.datamodules import ImageSet, Shift, create_shift, create_stream, load_images
from holdfast.datamodules.npz import NpzConfig
from holdfast.datamodules.phantom import PhantomConfig, load_phantom
from holdfast.datamodules.shifts import (
    CORRUPTIONS,
    FAMILIES,
    NoShiftConfig,
    ShiftConfig,
    colour,
    geometry,
    members,
    optics,
    tone,
)
from holdfast.datamodules.shifts.colour import temperature
from holdfast.datamodules.streams import ContinualConfig, GradualConfig, MixedConfig, StreamConfig
from holdfast.tta.errors import InputError

#: Shifts that leave nothing to chance.
FIXED = {
    *(
        "blur",
        "resolution",
        "pixelate",
        "jpeg",
        "brightness",
        "contrast",
        "gamma",
        "window",
        "gibbs",
        "stain",
        "temperature",
    ),
}


def images(count: int) -> ImageSet:
    return load_phantom(PhantomConfig(target_images=count), "target")


def volume(channels: int, *shape: int) -> Tensor:
    """A smooth volume within 0..1."""
    coarse = torch.rand(
        1, channels, *(side // 4 for side in shape), generator=torch.Generator().manual_seed(0)
    )
    return nn.functional.interpolate(coarse, shape, mode="trilinear")[0]


def shifted(kind: str, severity: int, image: Tensor, name: str = "0", seed: int = 0) -> Tensor:
    shift = create_shift(kind, ShiftConfig(severity=severity, seed=seed))
    assert shift is not None
    return shift(image, name)


def check(kind: str, batch: list[Tensor]) -> None:
    """Whatever the images: same shape and type, in range, repeatable, and on average further off at
    each severity.
    """
    changes = []
    for severity in range(1, 6):
        distances = []
        for name, clean in enumerate(batch):
            before = clean.clone()
            result = shifted(kind, severity, clean, str(name))
            assert type(result) is Tensor
            assert (result.shape, result.dtype) == (clean.shape, torch.float32)
            assert 0 <= result.min() <= result.max() <= 1
            assert torch.equal(result, shifted(kind, severity, clean, str(name)))
            assert torch.equal(clean, before)
            distances.append((result - clean).abs().mean().item())
        changes.append(np.mean(distances))
    assert changes == sorted(changes)
    assert 0 < changes[0] < changes[-1]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shifts_are_deterministic_in_range_and_grow_with_severity(kind: str) -> None:
    clean = [images(8)[index]["image"] for index in range(8)]
    check(kind, clean)
    if not CORRUPTIONS[kind].colour:
        check(kind, [image[:1] for image in clean])


@pytest.mark.parametrize(
    "kind", [kind for kind, corruption in CORRUPTIONS.items() if not corruption.flat]
)
def test_volumes_are_shifted_too(kind: str) -> None:
    channels = 3 if CORRUPTIONS[kind].colour else 1
    check(kind, [volume(channels, 12, 40, 36), volume(channels, 32, 32, 32)])


@pytest.mark.parametrize(
    "kind", [kind for kind, corruption in CORRUPTIONS.items() if not corruption.flat]
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 4), (4, 3, 2)])
def test_thin_volumes_pass(kind: str, shape: tuple[int, ...]) -> None:
    for severity in (1, 5):
        assert shifted(kind, severity, torch.rand(3, *shape)).shape == (3, *shape)


@pytest.mark.real
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shifts_of_real_images_grow_with_severity(kind: str, data_folder: Path) -> None:
    for name in ("nuclei_patches", "pneumoniamnist"):
        real = load_images(
            "npz", NpzConfig(path=str(data_folder / f"{name}.npz"), source=None), "test"
        )
        if CORRUPTIONS[kind].fits(real.channels, 2):
            check(kind, [real[index]["image"] for index in range(0, 160, 8)])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_chance_depends_on_image_and_seed(kind: str) -> None:
    clean = images(2)[0]["image"]
    first = shifted(kind, 3, clean)
    assert torch.equal(first, shifted(kind, 3, clean, "1")) == (kind in FIXED)
    assert torch.equal(first, shifted(kind, 3, clean, seed=1)) == (kind in FIXED)


def test_measured_levels_stay() -> None:
    assert CORRUPTIONS["noise"].levels == (0.08, 0.12, 0.18, 0.26, 0.38)
    assert CORRUPTIONS["contrast"].levels == (0.4, 0.3, 0.2, 0.1, 0.05)
    assert CORRUPTIONS["blur"].levels == (1.2, 2.0, 3.0, 4.5, 6.5)
    assert CORRUPTIONS["brightness"].levels == (0.05, 0.1, 0.2, 0.35, 0.5)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_broken_images_stay_broken(kind: str) -> None:
    for value in (float("nan"), float("inf")):
        clean = images(2)[0]["image"].clone()
        clean[0, 3, 3] = value
        assert torch.equal(shifted(kind, 3, clean).nan_to_num(7.0, 8.0), clean.nan_to_num(7.0, 8.0))


@pytest.mark.parametrize("shape", [(3, 40, 50), (2, 20, 21, 22)])
def test_both_ways_of_convolving_agree(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    kernel = geometry.offsets(len(shape) - 1, 3).square().sum(0)
    kernel /= kernel.sum()
    direct = geometry.convolved(image, kernel)
    monkeypatch.setattr(geometry, "_LARGE", 0)
    assert torch.allclose(geometry.convolved(image, kernel), direct, atol=1e-5)


def test_tone_and_light_follow_their_formulas() -> None:
    rng = np.random.default_rng(0)
    ramp = torch.tensor([0.0, 0.125, 0.375, 0.625, 1.0]).reshape(1, 1, 5)
    assert tone.window(ramp, 0.5, rng).flatten().tolist() == [-0.25, 0.0, 0.5, 1.0, 1.75]
    assert torch.allclose(tone.darken(ramp, 2.0, rng), ramp.square())
    grey = torch.full((3, 2, 2), 0.4)
    assert torch.allclose(colour.stain(grey, 1.0, rng), grey, atol=1e-5)
    assert torch.allclose(temperature(grey, 6500, rng), grey)
    red, green, blue = temperature(grey, 3000, rng)[:, 0, 0].tolist()
    assert red > green > blue
    assert 0.2126 * red + 0.7152 * green + 0.0722 * blue == pytest.approx(0.4)
    assert torch.allclose(optics.motion(grey, 6, rng), grey)


def test_a_dense_stain_is_one_stains_density() -> None:
    """Pure haematoxylin, ``factor`` times as dense, is pure haematoxylin."""
    density = torch.tensor([0.65, 0.70, 0.29]).reshape(3, 1, 1)
    result = colour.stain(10 ** -(0.5 * density), 1.5, np.random.default_rng(0))
    assert torch.allclose(result, 10 ** -(0.75 * density), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "image", "message"),
    [
        (
            "stain",
            torch.zeros(1, 8, 8),
            r"stain needs colour images \(three channels\), and these are 2D with 1 channel",
        ),
        ("temperature", torch.zeros(4, 8, 8), "temperature needs colour images"),
        (
            "hair",
            torch.zeros(1, 8, 8, 8),
            "hair needs 2D images, and these are 3D with 1 channel.*choose among bias, blur",
        ),
        ("vignette", torch.zeros(3, 8, 8, 8), "vignette needs 2D images"),
    ],
)
def test_what_a_shift_needs_is_said(kind: str, image: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shifted(kind, 3, image)


def test_a_stream_refuses_shifts_that_do_not_fit_before_it_starts() -> None:
    target = images(20)
    grey = replace(target, images=target.images[..., 0])
    stain = Shift((("blur", 1), ("stain", 3)))
    create_stream(StreamConfig(), target.transformed(stain), 0)
    for config, transform in (
        (StreamConfig(), stain),
        (MixedConfig(shifts=["noise", "stain"]), None),
    ):
        with pytest.raises(InputError, match="stain needs colour images"):
            create_stream(config, grey.transformed(transform), 0)


def test_families_stand_for_their_members() -> None:
    assert not FAMILIES.keys() & CORRUPTIONS.keys()
    for family in FAMILIES.values():
        assert set(family) <= set(CORRUPTIONS)
        assert len(set(family)) == len(family)
    assert members("mr") == list(FAMILIES["mr"])
    assert members(["noise", "ct", "noise"]) == ["noise", *FAMILIES["ct"], "noise"]
    for config in (
        ContinualConfig(shifts="mr"),
        MixedConfig(shifts=["mr"]),
        GradualConfig(shifts="mr", severity=1),
    ):
        stream = create_stream(config, images(20), 0)
        assert [str(shift) for shift in stream.shifts] == [
            f"{name}{config.severity}" for name in FAMILIES["mr"]
        ]
    with pytest.raises(
        InputError, match=r"mr is a family of shifts.*stream=continual stream\.shifts=mr"
    ):
        Shift((("mr", 3),))


def test_bad_shifts() -> None:
    assert create_shift("none", NoShiftConfig()) is None
    for severity in (0, 6, 9):
        with pytest.raises(InputError, match=f"shift.severity={severity} is outside 1..5"):
            ShiftConfig(severity=severity)
