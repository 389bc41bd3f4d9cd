"""The LightningDataModule of source training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import monai.data
import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler, WeightedRandomSampler

from holdfast.datamodules.augment import AUGMENTATIONS, Augmentation, plain_tensors
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.patches import Patches
from holdfast.datamodules.trainable import check_training_set
from holdfast.tta.config import closest
from holdfast.tta.distributed import objects_of_all, place
from holdfast.tta.errors import InputError
from holdfast.tta.randomness import numpy_state, random_state, restore_numpy, restore_random

#: Between the augmentations' seeds of two processes: further than seeds of two runs ever lie.
_SEEDS_APART = 1_000_003
_BATCH_VALUES = 2**25  # numbers in a batch that is only predicted: 128 MiB


class SourceData(LightningDataModule):
    """Loaders of the source's train, val and test images.

    Training images without a label teach nothing and are left out.

    Args:
        train: training images.
        val: validation images.
        test: test images; None, or an empty set: there are none.
        batch_size: images a batch.
        balanced: draw training images so that classes are equally frequent; of masks and findings,
            of which an image shows several, each image comes once.
        augment: keys of ``AUGMENTATIONS``.
        patch: sides of the patches of images and masks that are trained on, of which an epoch has
            as many as cover the images; None: whole images.
        workers: processes that prepare training batches.
        seed: of the order and of the augmentations.

    Raises:
        InputError: training images that nothing can be learned from, or an unknown augmentation.
    """

    def __init__(
        self,
        train: ImageSet,
        val: ImageSet,
        test: ImageSet | None = None,
        *,
        batch_size: int = 64,
        balanced: bool = True,
        augment: tuple[str, ...] = (),
        patch: Sequence[int] | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_training_set(train)
        train = _labelled(train)
        if not len(val):
            raise InputError(
                "the source has no validation images: call a part of the training images val"
            )
        if not val.labelled:
            raise InputError(
                f"none of the {len(val)} validation images has a {val.target.called}, and training "
                "is watched on them: give some of them one"
            )
        patches = _patches(patch, train)
        _check_augmentations(augment, train.size if patches is None else patches.sides)
        self.images = {"train": train, "val": val}
        if test is not None and len(test):
            self.images["test"] = test
        for images in self.images.values():
            _check_alike(images, train)
        self.batch_size, self.balanced = batch_size, balanced
        self.workers, self.seed = workers, seed
        self.augmentation = Augmentation(augment, train.target.of_pixels, patches)
        self.augmentation.set_random_state(seed=seed)
        self._order = torch.Generator()
        self._taken_up: Mapping[str, Any] | None = None

    @property
    def copies(self) -> int:
        """How often an epoch goes over the training images: once, or for a patch each time."""
        patches = self.augmentation.patches
        return 1 if patches is None else patches.count(self.images["train"].size)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self.images["train"]) * self.copies // self.batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented, and class-balanced where asked."""
        images = self.images["train"]
        rank, parts = place()
        if parts > 1 and (self.batch_size % parts or self.batch_size < 2 * parts):
            raise InputError(
                f"batch_size={self.batch_size} cannot be shared by {parts} processes, which need "
                "equal "
                f"shares of at least 2 images: take a multiple of {parts}, or trainer.devices=1"
            )
        if parts > 1:  # or all would turn and flip alike
            self.augmentation.set_random_state(seed=self.seed + rank * _SEEDS_APART)
        generator = self._order.manual_seed(self.seed)
        # Where an image shows several classes, no order of images makes them equally frequent.
        weights = images.target.weights() if self.balanced else None
        each = np.ones(len(images)) if weights is None else weights
        drawn = np.tile(each, self.copies).tolist()
        sampler = WeightedRandomSampler(drawn, len(drawn), weights is not None, generator)
        # MONAI's loader seeds random transforms anew in each worker and epoch; torch's would repeat
        # them. Workers end with the epoch, for what they have drawn cannot be saved.
        loader = monai.data.DataLoader(
            _Augmented(images, self.augmentation, self.copies),
            batch_size=self.batch_size // parts,
            sampler=sampler if parts == 1 else _Dealt(sampler, self.batch_size, rank, parts),
            drop_last=len(drawn) > self.batch_size,  # a last batch of one has no batch statistics
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
        if self._taken_up is not None:
            self._draw_on(self._taken_up)
            self._taken_up = None
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Where all generators stand, in each process, between two epochs."""
        own = {
            "draws": random_state(),
            "order": self._order.get_state(),
            "augmentation": [numpy_state(one.R) for one in self.augmentation.random],
        }
        return {"processes": objects_of_all(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next epoch draw on where ``state_dict`` was taken."""
        rank, parts = place()
        if len(state_dict["processes"]) != parts:
            raise InputError(
                f"the training was begun by {len(state_dict['processes'])} process(es), and goes "
                f"on with {parts}: take as many as it had"
            )
        self._taken_up = state_dict["processes"][rank]

    def _draw_on(self, state: Mapping[str, Any]) -> None:
        self._order.set_state(state["order"].cpu())
        for one, numbers in zip(self.augmentation.random, state["augmentation"], strict=True):
            restore_numpy(one.R, numbers)
        restore_random(state["draws"])

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation images in order; of several processes each gets as many batches.

        Where images do not go round evenly, one stands in twice, without its label, so that the
        figure that picks the best epoch is that of all images, each counted once.
        """
        rank, parts = place()
        if parts == 1:
            return self.in_order("val")
        count = len(self.images["val"])
        share = list(range(rank, count, parts))
        missing = -(-count // parts) - len(share)
        return self.in_order("val", [*share, *[0] * missing], unlabelled=missing)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test images in order."""
        return self.in_order("test")

    def in_order(
        self, split: str, rows: Sequence[int] | None = None, unlabelled: int = 0
    ) -> DataLoader[Any]:
        """The images of a split as they are, in order, or those of ``rows``; in batches of 256, of
        large images fewer.

        Args:
            split: train, val or test.
            rows: of the split; None: all.
            unlabelled: how many of the last rows come without their labels.
        """
        images = self.images[split]
        chosen = list(range(len(images))) if rows is None else list(rows)
        count = max(1, min(256, _BATCH_VALUES // (images.channels * math.prod(images.size))))
        if images.ragged:
            count = 1
        batches = [chosen[i : i + count] for i in range(0, len(chosen), count)]
        pinned = torch.cuda.is_available()
        return DataLoader(
            _InOrder(images, batches, len(chosen) - unlabelled),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=pinned,
        )

    def sample(self, split: str, count: int) -> DataLoader[Any]:
        """At most ``count`` images of a split, drawn without replacement, the same by seed."""
        order = np.random.default_rng(self.seed).permutation(len(self.images[split]))
        return self.in_order(split, order[:count].tolist())


def _check_alike(images: ImageSet, train: ImageSet) -> None:
    """Refuse images of another form than those that are trained on; of several sides any will
    do.
    """
    sides = images.size == train.size or train.ragged or images.ragged
    if not sides or images.channels != train.channels:
        raise InputError(
            f"training images are {train.size} with {train.channels} channel(s), others "
            f"{images.size} with {images.channels}: bring them to one form, for files with "
            "data.size and data.channels"
        )


def _check_augmentations(names: Sequence[str], sides: tuple[int, ...]) -> None:
    """Refuse augmentations that there are not, or that images of these sides cannot have."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise InputError(f"unknown augmentation {name!r}: {closest(name, AUGMENTATIONS)}")
    if "rotate" in names and sides[-1] != sides[-2]:
        raise InputError(
            "quarter turns change the sides of images, or patches, that are not square: leave "
            "rotate out of augment"
        )


def _labelled(images: ImageSet) -> ImageSet:
    """The images of which something is known, and a note on the others."""
    known = images.target.known
    if known.all():
        return images
    missing = int((~known).sum())
    note = f"{missing} training images have no {images.target.called} and are left out"
    return replace(images.subset(known), notes=(*images.notes, note))


def _patches(sides: Sequence[int] | None, images: ImageSet) -> Patches | None:
    """The patches that are asked for.

    Raises:
        InputError: images have no masks to cut with them, or are too small.
    """
    if sides is None:
        if images.ragged:
            raise InputError(
                "the training images have several sides, and a batch has one: train on patches, "
                "patch=[H,W] or [D,H,W], or bring all to one size, data.size"
            )
        return None
    if not images.target.of_pixels:
        raise InputError(
            f"patch={list(sides)} cuts images and masks, and these have a "
            f"{images.target.called}: leave it out"
        )
    patches = Patches(sides)
    if not images.ragged:
        patches.check(images.size)
    return patches


class _Augmented(Dataset[dict[str, Any]]):
    """Augmented images, each as often as an epoch has it."""

    def __init__(self, images: ImageSet, transform: Augmentation, copies: int) -> None:
        self.images, self.transform, self.copies = images, transform, copies

    def __len__(self) -> int:
        return len(self.images) * self.copies

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.images[index % len(self.images)]
        with plain_tensors():
            key, target = self.images.target.key, item[self.images.target.key]
            if self.images.target.of_pixels:
                image, mask = self.transform(item["image"], target)
                return {"image": image, key: mask}
            return {"image": self.transform(item["image"]), key: target}


class _InOrder(Dataset[dict[str, Any]]):
    """Whole batches; images from ``labelled`` on are without their labels."""

    def __init__(self, images: ImageSet, batches: list[list[int]], labelled: int) -> None:
        self.images, self.batches, self.labelled = images, batches, labelled

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.images.batch(self.batches[index])
        before = index * len(self.batches[0])  # all but the last are of one size
        target = self.images.target
        batch[target.key][max(0, self.labelled - before) :] = target.unknown
        return batch


class _Dealt(Sampler[int]):
    """Every so many-th image of an order: this process's share of each batch.

    Args:
        order: of all images, the same in each process.
        batch_size: of all processes together.
        rank: of this process.
        parts: how many there are.
    """

    def __init__(self, order: Sampler[int], batch_size: int, rank: int, parts: int) -> None:
        self.order, self.rank, self.parts = order, rank, parts
        count = len(order)  # type: ignore[arg-type]
        # As the loader of one process does: whole batches, or all images in one.
        self.count = count if count <= batch_size else count - count % batch_size

    def __len__(self) -> int:
        return len(range(self.rank, self.count, self.parts))

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.order), self.rank, self.count, self.parts)
