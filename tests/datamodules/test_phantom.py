"""The phantom: deterministic by seed, with the prevalence and the domains that were asked for."""

from typing import Any

import numpy as np
import pytest

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
    assert images.counts().tolist() == [68, 4, 4, 4]


def test_several_scanners_share_the_target() -> None:
    images = load_phantom(config(target=["scanner_b", "scanner_c"]), "target")
    assert np.unique(images.domains, return_counts=True)[1].tolist() == [40, 40]
    assert len(set(images.ids.tolist())) == 80


def test_every_scanner_draws_every_class() -> None:
    for name in SCANNERS:
        assert (load_phantom(config(target=name), "target").counts() == 20).all()


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
