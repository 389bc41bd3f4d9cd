"""The phantom: deterministic by seed, with the prevalence and the domains that were asked for."""

from typing import Any

import numpy as np
import pytest

from holdfast.datamodules import load_images
from holdfast.datamodules.fields import FINDINGS, PARTS
from holdfast.datamodules.phantom import CLASSES, SCANNERS, PhantomConfig, load_phantom
from holdfast.tta.errors import InputError


def config(**more: Any) -> PhantomConfig:
    return PhantomConfig(train_images=80, val_images=40, test_images=40, target_images=80, **more)


def test_the_same_seed_draws_the_same_images() -> None:
    first, second = load_phantom(config(), "train"), load_phantom(config(), "train")
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert not np.array_equal(first.images, load_phantom(config(seed=1), "train").images)
    assert not np.array_equal(first.images[:40], load_phantom(config(), "val").images)


def test_images_are_coloured_and_use_the_range() -> None:
    images = load_phantom(config(), "train")
    assert images.images.shape == (80, 32, 32, 3)
    assert images.images.dtype == np.uint8
    assert images.images.std() > 20


@pytest.mark.parametrize("split", ["train", "target"])
def test_prevalence_is_exact(split: Any) -> None:
    shares = [0.85, 0.05, 0.05, 0.05]
    images = load_phantom(config(source_prevalence=shares, target_prevalence=shares), split)
    assert images.target.counts().tolist() == [68, 4, 4, 4]


def test_several_scanners_share_the_target() -> None:
    images = load_phantom(config(target=["scanner_b", "scanner_c"]), "target")
    assert np.unique(images.domains, return_counts=True)[1].tolist() == [40, 40]
    assert len(set(images.ids.tolist())) == 80


def test_every_scanner_draws_every_class() -> None:
    for name in SCANNERS:
        assert (load_phantom(config(target=name), "target").target.counts() == 20).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"target": "scaner_b"}, "did you mean scanner_b"), ({"target": []}, "name one of")],
)
def test_unknown_scanners(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_phantom(config(**bad), "target")


@pytest.mark.parametrize("shares", [[0.5, 0.5], [1.0, 0.5, -0.5, 0.0], [0.1, 0.1, 0.1, 0.1]])
def test_bad_prevalence(shares: list[float]) -> None:
    with pytest.raises(InputError, match=f"{len(CLASSES)} shares"):
        config(target_prevalence=shares)


@pytest.mark.parametrize("split", ["train", "target"])
def test_fields_have_masks_of_cells_where_the_image_is_stained(split: Any) -> None:
    fields = load_images("phantom", config(task="segmentation"), split)
    again = load_images("phantom", config(task="segmentation"), split)
    assert np.array_equal(fields.images, again.images)
    assert fields.target.masks is not None
    assert fields.class_names == PARTS
    assert fields.images.shape == (80, 64, 64, 3)
    batch = fields.batch(range(80))
    dark = batch["image"].mean(1)
    means = [float(dark[batch["mask"] == part].mean()) for part in range(3)]
    assert means[0] > means[1] + 0.05
    assert means[1] > means[2] + 0.02
    share = fields.target.shares.mean(0)
    assert 0.05 < share[1] < 0.2
    assert 0.005 < share[2] < 0.04
    assert (fields.target.shares[:, 0] == 1).any()  # a field without a cell
    assert len(set(fields.groups.tolist())) == 10


def test_crowded_fields_have_more_cells() -> None:
    few, many = (
        load_images("phantom", config(task="segmentation", target_density=density), "target")
        for density in (0.2, 0.9)
    )
    assert many.target.shares[:, 1:].sum() > 2 * few.target.shares[:, 1:].sum()


def test_fields_have_findings_the_last_of_them_rare() -> None:
    fields = load_images(
        "phantom", config(task="multilabel", target=["scanner_b", "scanner_d"]), "train"
    )
    assert fields.class_names == FINDINGS
    assert fields.target.values is not None
    shares = load_images(
        "phantom", PhantomConfig(task="multilabel", val_images=400), "val"
    ).target.counts()
    assert shares[0] > shares[1] > shares[2] > 0
    assert shares[2] < 0.1 * 400
    assert (fields.target.values.sum(1) == 0).any()
    assert (fields.target.values.sum(1) > 1).any()


def test_shares_of_classes_are_of_single_cells() -> None:
    with pytest.raises(InputError, match="fields have source_density"):
        config(task="segmentation", source_prevalence=[0.25] * 4)
    with pytest.raises(InputError, match="above 0"):
        config(target_density=0.0)
