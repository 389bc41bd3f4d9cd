"""Source training's loaders."""

from dataclasses import replace
from typing import Any

import monai.data
import numpy as np
import pytest
import torch

from holdfast.datamodules import ImageSet
from holdfast.datamodules.augment import AUGMENTATIONS
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta.errors import InputError


def same_images(count: int = 24, size: tuple[int, ...] = (6, 6)) -> ImageSet:
    names = np.arange(count).astype(str)
    return ImageSet(
        images=np.full((count, *size), 128, np.uint8),
        target=LabelTarget(np.arange(count) % 2, ("a", "b")),
        ids=names,
        domains=np.full(count, "x"),
        groups=names,
        spatial_dims=len(size),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_no_augmentation_is_repeated_across_workers_and_epochs(workers: int) -> None:
    images = same_images()
    data = SourceData(images, images, images, batch_size=4, augment=("noise",), workers=workers)
    loader = data.train_dataloader()
    shown = torch.cat([batch["image"] for _ in range(2) for batch in loader]).flatten(1)
    noisy = shown[shown.std(1) > 0]
    assert len(noisy) > 10
    assert len(torch.unique(noisy, dim=0)) == len(noisy)


def test_augmented_images_are_plain_and_those_that_monai_makes_with_its_account() -> None:
    images = replace(
        same_images(), images=np.random.default_rng(0).integers(0, 256, (24, 6, 6), dtype=np.uint8)
    )
    for name in AUGMENTATIONS:
        data = SourceData(images, images, images, augment=(name,), seed=3)
        augmented = data.train_dataloader().dataset
        data.augmentation.set_random_state(seed=3)  # the loader seeds anew
        shown = [augmented[index]["image"] for index in range(24)]
        assert monai.data.get_track_meta()  # as it was: readers of files need it
        data.augmentation.set_random_state(seed=3)
        expected = [data.augmentation(images[index]["image"]) for index in range(24)]
        assert {type(image) for image in shown} == {torch.Tensor}
        assert torch.equal(
            torch.stack(shown), torch.stack([image.as_tensor() for image in expected])
        )
        assert not torch.equal(
            torch.stack(shown), torch.stack([images[index]["image"] for index in range(24)])
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_order_are_the_same_with_workers(workers: int) -> None:
    images = same_images()
    data = SourceData(images, images, images, workers=workers)
    assert torch.cat([batch["index"] for batch in data.in_order("test")]).tolist() == list(
        range(24)
    )


def test_large_volumes_come_in_small_batches() -> None:
    images = same_images(2, (320, 320, 320))
    data = SourceData(images, images, images)
    assert len(data.in_order("test")) == 2


def test_images_of_another_form_are_refused() -> None:
    cases: list[tuple[Any, Any, str]] = [
        ((6, 6), (8, 6), "bring them to one form"),
        ((6, 8), (6, 8), "not square"),
    ]
    for train, val, message in cases:
        with pytest.raises(InputError, match=message):
            SourceData(
                same_images(size=train),
                same_images(size=val),
                same_images(size=val),
                augment=("rotate",),
            )
