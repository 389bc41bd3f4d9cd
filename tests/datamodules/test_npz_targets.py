"""Masks and findings in .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.tta.errors import InputError
from tests.datamodules.test_npz import saved


def arrays(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "masks": rng.integers(0, 3, (12, 8, 8), dtype=np.uint8),
        "domain": np.repeat(np.array([0, 1], np.uint8), 6),
        "domain_names": np.array(["here", "there"]),
        "names": np.array([f"case{n}" for n in range(12)]),
        **more,
    }


def load(folder: Path, given: dict[str, Any], split: Any = "target", **more: Any) -> Any:
    return load_npz(NpzConfig(path=saved(folder, given), **more), split)


def test_masks_of_a_file_without_splits_are_cut_where_asked(tmp_path: Path) -> None:
    given = arrays()
    more = {"source": "here", "target": "there", "shares": [0.5, 0.25, 0.25]}
    sets = {s: load(tmp_path, given, s, **more) for s in ("train", "val", "test", "target")}
    assert [len(images) for images in sets.values()] == [3, 1, 2, 6]
    target = sets["target"]
    assert (target.task, target.class_names) == ("segmentation", ("background", "1", "2"))
    assert target.domains.tolist() == ["there"] * 6
    assert target.ids.tolist() == [f"case{n}" for n in range(6, 12)]
    assert np.array_equal(target.batch(range(6))["mask"], given["masks"][6:])
    ids = [name for images in sets.values() for name in images.ids.tolist()]
    assert sorted(ids) == sorted(given["names"].tolist())


def test_values_of_masks_are_named_or_refused(tmp_path: Path) -> None:
    given = arrays(masks=np.array([0, 128, 255], np.uint8)[arrays()["masks"]])
    with pytest.raises(InputError, match=r"hold the values 0, 128, 255"):
        load(tmp_path, given, target="here")
    labels = {0: "cup", 128: "disc", 255: None}
    images = load(tmp_path, given, target="here", labels=labels)
    assert np.array_equal(images.target.masks, np.array([1, 2, 0])[arrays()["masks"][:6]])
    with pytest.raises(InputError, match=r"with the value\(s\) 128"):
        load(tmp_path, given, target="here", labels={0: "cup", 255: None})
    named = arrays(class_names=np.array(["field", "cell", "nucleus"]))
    assert load(tmp_path, named, target="here").class_names == ("field", "cell", "nucleus")
    broken = arrays(masks=arrays()["masks"] / 3)
    with pytest.raises(InputError, match="masks hold fractions"):
        load(tmp_path, broken, target="here")
    with pytest.raises(InputError, match="a class for each pixel"):
        load(tmp_path, arrays(masks=np.zeros((12, 4, 4), np.uint8)), target="here")


def test_pixels_outside_of_the_field_of_view_do_not_count(tmp_path: Path) -> None:
    field = np.ones((12, 8, 8), np.uint8)
    field[:, :2] = 0
    images = load(tmp_path, arrays(fov=field), target="here", within="fov")
    assert (images.target.masks[:, :2] == UNLABELLED).all()
    assert np.array_equal(images.target.masks[:, 2:], arrays()["masks"][:6, 2:])
    assert images.target.shares.sum(1) == pytest.approx(np.ones(6))
    with pytest.raises(InputError, match="has no key 'fow'"):
        load(tmp_path, arrays(fov=field), target="here", within="fow")


def test_labels_of_several_columns_are_findings(tmp_path: Path) -> None:
    labels = np.zeros((10, 3), np.int64)
    labels[::2, 0], labels[3, 1], labels[4, 2] = 1, 1, -1
    given = {
        "images": np.zeros((10, 8, 8), np.uint8),
        "labels": labels,
        "class_names": np.array(["Effusion", "Mass", "Nodule"]),
    }
    images = load(tmp_path, given)
    assert (images.task, images.class_names) == ("multilabel", ("Effusion", "Mass", "Nodule"))
    assert images.target.counts().tolist() == [5, 1, 0]
    assert np.isnan(images.target.values[4, 2])
    unfolded = {
        f"{split}_{name}": values
        for split in ("train", "val", "test")
        for name, values in (("images", given["images"]), ("labels", np.abs(labels)))
    }
    train = load(tmp_path, unfolded, "train")
    assert train.target.values.shape == (10, 3)
    with pytest.raises(InputError, match="labels hold 7"):
        load(tmp_path, {**given, "labels": labels * 7})
    with pytest.raises(InputError, match="2 names for 3 findings"):
        load(tmp_path, {**given, "class_names": np.array(["a", "b"])})


@pytest.mark.real
@pytest.mark.parametrize("name", ["nuclei_segmentation", "vessel_segmentation_hrf"])
def test_real_images_with_masks(data_folder: Path, name: str) -> None:
    more: dict[str, Any] = {"shares": [0.6, 0.2, 0.2]}
    more |= {"source": "fluor_256"} if name.startswith("nuclei") else {"within": "fov"}
    train = load_npz(NpzConfig(path=str(data_folder / f"{name}.npz"), **more), "train")
    assert train.class_names == ("background", "foreground")
    assert 0.03 < train.target.shares[:, 1].mean() < 0.2


@pytest.mark.parametrize("name", ["masks", "findings"])
def test_targets_of_another_number_of_images_are_refused(name: str, tmp_path: Path) -> None:
    split = np.array(["train"] * 4 + ["val"] * 2)
    arrays: dict[str, Any] = {"images": np.zeros((6, 8, 8), np.uint8), "split": split}
    arrays[name] = np.zeros((5, 8, 8) if name == "masks" else (5, 2), np.uint8)
    with pytest.raises(InputError, match=f"{name} are not of as many images as the 6 in images"):
        load_npz(NpzConfig(path=str(saved(tmp_path, arrays))), "train")
