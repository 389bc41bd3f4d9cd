"""Masks and findings in image sets: items, batches, shifts, training, streams."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from holdfast.callbacks.report.contact import write_sheet
from holdfast.datamodules.bootstrap import ORDERS, bootstrapped
from holdfast.datamodules.classes import in_classes_of
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.shifts import CORRUPTIONS, Corruption, Shift
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.streams import (
    BlocksConfig,
    DirichletConfig,
    PrevalenceConfig,
    StreamConfig,
    StreamLoader,
    create_stream,
    stream_order,
)
from holdfast.datamodules.summary import understood
from holdfast.datamodules.targets import FindingTarget, LabelTarget, MaskTarget
from holdfast.datamodules.trainable import check_training_set
from holdfast.tta.errors import InputError

SIDE = 8


def with_masks(count: int = 24, size: tuple[int, ...] = (SIDE, SIDE)) -> ImageSet:
    """Images that are their masks: 200 in a random part of classes 1 and 2, 0 elsewhere."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (count, *size)).astype(np.uint8)
    masks[rng.random(masks.shape) < np.linspace(0.1, 0.9, count).reshape(-1, *[1] * len(size))] = 0
    names = np.arange(count).astype(str)
    return ImageSet(
        images=masks * 100,
        target=MaskTarget(masks, ("background", "cup", "disc")),
        ids=names,
        domains=np.full(count, "x"),
        groups=np.array([f"p{n // 4}" for n in range(count)]),
        high=200,
        spatial_dims=len(size),
    )


def with_findings(count: int = 40) -> ImageSet:
    """Effusion in every second image, a mass in every tenth, of which the first is unknown."""
    names, rows = np.arange(count).astype(str), np.arange(count)
    findings = np.stack([rows % 2 == 0, rows % 10 == 1], axis=1).astype(np.float32)
    findings[1, 1] = np.nan
    return ImageSet(
        images=np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8),
        target=FindingTarget(findings, ("Effusion", "Mass")),
        ids=names,
        domains=np.full(count, "x"),
        groups=names,
    )


def without(images: ImageSet) -> ImageSet:
    """The same images, of which nothing is known."""
    if isinstance(images.target, MaskTarget):
        return replace(images, target=MaskTarget(len(images), images.class_names))
    unknown = np.full((len(images), images.num_classes), np.nan, np.float32)
    return replace(images, target=FindingTarget(unknown, images.class_names))


def masks_of(images: ImageSet) -> npt.NDArray[Any]:
    assert isinstance(images.target, MaskTarget)
    assert isinstance(images.target.masks, np.ndarray)
    return images.target.masks


def findings_of(images: ImageSet) -> npt.NDArray[np.float32]:
    assert isinstance(images.target, FindingTarget)
    return images.target.values


def of_masks(images: ImageSet, masks: npt.NDArray[Any]) -> ImageSet:
    return replace(images, target=MaskTarget(masks, images.class_names))


def of_findings(images: ImageSet, findings: npt.NDArray[np.float32]) -> ImageSet:
    return replace(images, target=FindingTarget(findings, images.class_names))


def expected_mask(image: torch.Tensor) -> torch.Tensor:
    return (image[:, 0] * 2).round().long()


@pytest.mark.parametrize("size", [(SIDE, SIDE), (4, SIDE, SIDE)])
def test_a_batch_has_the_mask_in_place_of_a_label(size: tuple[int, ...]) -> None:
    images = with_masks(size=size)
    item, batch = images[3], images.batch([3, 5])
    assert "label" not in item
    assert "label" not in batch
    assert "findings" not in batch
    assert batch["mask"].dtype == torch.int64
    assert batch["mask"].shape == (2, *size)
    assert torch.equal(item["mask"], batch["mask"][0])
    assert torch.equal(batch["mask"], expected_mask(batch["image"]))
    part = images.subset(np.array([5]))
    assert np.array_equal(masks_of(part)[0], masks_of(images)[5])
    assert torch.equal(part[0]["mask"], batch["mask"][1])


def test_a_batch_has_findings_and_nan_where_one_is_unknown() -> None:
    images = with_findings()
    batch = images.batch([0, 1])
    assert "label" not in batch
    assert batch["findings"].dtype == torch.float32
    assert batch["findings"][0].tolist() == [1, 0]
    assert batch["findings"][1, 0] == 0
    assert batch["findings"][1, 1].isnan()
    nothing = without(images)
    assert not nothing.labelled
    assert bool(nothing[0]["findings"].isnan().all())
    assert findings_of(images.subset(np.arange(4) < 2)).shape == (2, 2)


def test_images_whose_masks_are_unknown_have_masks_that_count_for_nothing() -> None:
    nothing = without(with_masks())
    assert not nothing.labelled
    assert (nothing[0]["mask"] == UNLABELLED).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": MaskTarget(np.zeros((24, 4, 4), np.uint8))}, "a class for each pixel"),
        ({"target": MaskTarget(np.zeros((24, SIDE, SIDE), np.float32))}, "whole numbers"),
        ({"target": MaskTarget(np.zeros((3, SIDE, SIDE), np.uint8))}, "differ in length"),
        ({"task": "single"}, "say task=segmentation"),
        ({"task": "regression"}, "unknown task"),
        ({"target": LabelTarget(np.zeros(24, np.int64), ("a",))}, "say task=single"),
    ],
)
def test_targets_of_another_form_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(with_masks(), **change)
    with pytest.raises(InputError, match="one value for each of 40 images and 2 findings"):
        of_findings(with_findings(), np.zeros((40, 3), np.float32))


def test_what_is_learned_from_is_checked_by_task() -> None:
    masks, findings = with_masks(), with_findings()
    check_training_set(masks)
    check_training_set(findings)
    cases = [
        (without(masks), "no training image has a mask"),
        (of_masks(masks, np.zeros_like(masks_of(masks))), r"show 1 class \(background\)"),
        (of_masks(masks, np.full_like(masks_of(masks), 7)), "holds 7, and there are 3 classes"),
        (without(findings), "finding that is known"),
        (of_findings(findings, np.ones((40, 2), np.float32)), "present in some"),
    ]
    for images, message in cases:
        with pytest.raises(InputError, match=message):
            check_training_set(images)


@pytest.mark.parametrize("augment", [("flip",), ("mirror",), ("rotate",), ("noise", "flip")])
def test_a_mask_is_turned_with_its_image_in_training(augment: tuple[str, ...]) -> None:
    images = with_masks()
    data = SourceData(images, images, batch_size=8, augment=augment)
    batches = [batch for _ in range(3) for batch in data.train_dataloader()]
    shown = torch.cat([batch["image"] for batch in batches])
    masks = torch.cat([batch["mask"] for batch in batches])
    assert masks.dtype == torch.int64
    assert len(masks) == 72
    if "noise" in augment:
        shown = (shown * 2).round().clamp(0, 2) / 2
        assert (masks == expected_mask(shown)).float().mean() > 0.9
    else:
        assert torch.equal(masks, expected_mask(shown))
    plain = {tuple(mask.flatten().tolist()) for mask in images.batch(np.arange(24))["mask"]}
    assert any(tuple(mask.flatten().tolist()) not in plain for mask in masks)


def test_training_leaves_out_what_nothing_is_known_of() -> None:
    masks = with_masks()
    some = masks_of(masks).astype(np.int16)
    some[:4] = UNLABELLED
    data = SourceData(of_masks(masks, some), masks, batch_size=4)
    assert len(data.images["train"]) == 20
    assert "4 training images have no mask" in data.images["train"].notes[-1]
    with pytest.raises(InputError, match="24 validation images has a mask"):
        SourceData(masks, without(masks))
    findings = SourceData(with_findings(), with_findings(), batch_size=10)
    batch = next(iter(findings.train_dataloader()))
    assert batch["findings"].shape == (10, 2)
    blank = next(iter(findings.in_order("val", [0, 1], unlabelled=1)))
    assert blank["findings"][0].isfinite().all()
    assert blank["findings"][1].isnan().all()


@pytest.fixture
def shove() -> Iterator[str]:
    """A shift that moves pixels, by as many as it draws."""

    def amount(level: float, rng: np.random.Generator) -> int:
        return int(level) + int(rng.integers(3))

    def image(pixels: torch.Tensor, level: float, rng: np.random.Generator) -> torch.Tensor:
        return pixels.roll(amount(level, rng), -1)

    CORRUPTIONS.register("shove", Corruption(image, (1, 2, 3, 4, 5), moved=image))
    yield "shove"
    CORRUPTIONS._entries.pop("shove")


def test_shifts_that_move_pixels_move_masks_and_others_leave_them(shove: str) -> None:
    images = with_masks()
    moved = images.transformed(Shift((("shove", 2),), seed=3))
    batch = moved.batch([0, 1, 2])
    assert torch.equal(batch["mask"], expected_mask(batch["image"]))
    assert not torch.equal(batch["mask"], images.batch([0, 1, 2])["mask"])
    both = images.transformed(Shift((("noise", 1), ("shove", 2))))
    assert not torch.equal(both[0]["mask"], images[0]["mask"])
    noisy = images.transformed(Shift((("noise", 3),)))
    assert torch.equal(noisy[0]["mask"], images[0]["mask"])
    broken = replace(moved, images=np.full((24, SIDE, SIDE), np.nan, np.float32))
    assert torch.equal(broken[0]["mask"], images[0]["mask"])
    loader = StreamLoader(moved, create_stream(StreamConfig(batch_size=8), moved, 0), 8)
    for batch in loader:
        assert torch.equal(batch["mask"], expected_mask(batch["image"]))


def test_streams_order_by_what_stands_for_a_class() -> None:
    images = with_masks()
    assert isinstance(images.target, MaskTarget)
    foreground = 1 - images.target.shares[:, 0]
    thirds = foreground[stream_order(BlocksConfig(), images, 0)].reshape(3, 8)
    spread = np.sort(thirds.mean(1))
    assert spread[0] < spread[1] - 0.1 < spread[2] - 0.2
    assert sorted(stream_order(DirichletConfig(), images, 0)) == list(range(24))
    order = stream_order(BlocksConfig(by="group"), images, 0)
    assert all(len(set(images.groups[order[i : i + 4]])) == 1 for i in range(0, 24, 4))
    with pytest.raises(InputError, match="stream=iid, blocks, dirichlet"):
        create_stream(PrevalenceConfig(), images, 0)
    with pytest.raises(InputError, match="24 of the target's 24 have no mask"):
        create_stream(BlocksConfig(), without(images), 0)
    create_stream(BlocksConfig(by="group"), without(images), 0)


def test_a_finding_can_be_frequent() -> None:
    images = with_findings()
    order = stream_order(PrevalenceConfig(label="Mass", fraction=0.5), images, 0)
    assert findings_of(images)[order, 1].mean() == 0.5
    with pytest.raises(InputError, match=r"stream\.label and stream.fraction"):
        create_stream(PrevalenceConfig(prevalence=[0.5, 0.5]), images, 0)
    kinds = images.target.kinds[stream_order(BlocksConfig(), images, 0)]
    assert (np.diff(kinds) != 0).sum() == 2  # none, effusion and mass, one block each


@pytest.mark.parametrize("images", [with_masks(), with_findings()], ids=["masks", "findings"])
def test_every_order_of_the_bootstrap_is_drawn_without_labels(images: ImageSet) -> None:
    streams = dict(bootstrapped(images, len(ORDERS), 16, 4, 0))
    assert set(streams) == set(ORDERS)
    assert all(len(stream) == 16 for stream in streams.values())


def test_a_target_is_numbered_as_the_source_numbers_its_classes() -> None:
    images, names = with_masks(), ("background", "disc", "cup")
    turned = in_classes_of(images, names, task="segmentation")
    assert np.array_equal(masks_of(turned), np.array([0, 2, 1])[masks_of(images)])
    ignored = in_classes_of(images, ("background", "disc"), {"cup": None}, "segmentation")
    assert np.array_equal(masks_of(ignored) == UNLABELLED, masks_of(images) == 1)
    with pytest.raises(InputError, match=r"cup .* cannot be mapped"):
        in_classes_of(images, ("background", "disc"), task="segmentation")
    with pytest.raises(InputError, match=r"data\.task=single"):
        in_classes_of(images, names, task="single")
    plain = replace(images, target=LabelTarget.of_nothing(24), task="single")
    assert in_classes_of(plain, names, task="segmentation").task == "segmentation"


def test_findings_that_a_set_does_not_share_are_unknown_or_left_out() -> None:
    images = with_findings()
    given = findings_of(images)
    ours = in_classes_of(images, ("Nodule", "Effusion"), task="multilabel")
    assert np.isnan(findings_of(ours)[:, 0]).all()
    assert np.array_equal(findings_of(ours)[:, 1], given[:, 0])
    assert "left out: Mass" in ours.notes[-1]
    called = in_classes_of(images, ("Lump", "Effusion"), {"Mass": "Lump"}, "multilabel")
    assert np.array_equal(findings_of(called)[:, 0], given[:, 1], equal_nan=True)


def test_what_was_understood_is_told_by_task(tmp_path: Path) -> None:
    masks, findings = with_masks(), with_findings()
    assert isinstance(masks.target, MaskTarget)
    shares = masks.target.shares.mean(0)
    lines = understood({"train": masks, "val": without(masks)})
    assert lines[0] == (
        f"classes: 3 (background: {shares[0]:.2%}, cup: {shares[1]:.2%}, disc: {shares[2]:.2%} "
        "of the pixels in train)"
    )
    assert lines[1] == "images: train 24, val 24 (24 without a mask)"
    lines = understood({"train": findings})
    assert lines[0] == "findings: 2 (Effusion: 20, Mass: 3 images in train)"
    for name, images in {"masks": masks, "findings": findings}.items():
        page = write_sheet(tmp_path / name, name, lines, {"train": images}).read_text()
        assert ("background" if name == "masks" else "Effusion; train") in page
