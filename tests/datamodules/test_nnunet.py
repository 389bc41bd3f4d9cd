"""nnU-Net's raw layout, on volumes of a few voxels and of several sides."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from holdfast.callbacks.maskfiles import in_file_space, save_mask
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.nnunet import NnunetConfig, load_nnunet
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.streams import StreamLoader
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import write_picture
from tests.datamodules.test_maskfiles import discs

#: Turned against RAS: the first axis runs to the left, the last two change places.
TURNED = np.array([[-1.0, 0, 0, 30], [0, 0, 2.0, -7], [0, 1.5, 0, 4], [0, 0, 0, 1]])


def write_cases(
    root: Path,
    folder: str = "imagesTr",
    count: int = 8,
    channels: int = 1,
    affine: Any = TURNED,
    labelled: bool = True,
) -> None:
    for number in range(count):
        mask = discs(number, (14 + number % 3, 16, 20))
        for channel in range(channels):
            image = nibabel.Nifti1Image((mask * 100.0 + channel).astype(np.float32), affine)
            path = root / folder / f"case_{number}_{channel:04d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, path)
        if labelled:
            path = root / folder.replace("images", "labels") / f"case_{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(mask, affine), path)


def describe(root: Path, **more: Any) -> Path:
    about = {
        "channel_names": {"0": "T2"},
        "labels": {"background": 0, "disc": 1, "cup": 2},
        "numTraining": 8,
        "file_ending": ".nii.gz",
        **more,
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def load(root: Path, split: Any = "train", **more: Any) -> Any:
    return load_nnunet(NnunetConfig(root=str(root), **more), split)


def test_cases_are_cut_and_their_maps_named(tmp_path: Path) -> None:
    root = describe(tmp_path / "Dataset001_Eye")
    write_cases(root)
    write_cases(root, "imagesTs", 2, labelled=False)
    sets = {split: load(root, split) for split in ("train", "val", "test", "target")}
    assert sum(len(sets[split]) for split in ("train", "val", "test")) == 8
    train = sets["train"]
    assert train.class_names == ("background", "disc", "cup")
    assert train.ragged
    assert train.domains[0] == "Dataset001_Eye"
    assert sets["target"].ids.tolist() == ["case_0", "case_1"]
    assert not sets["target"].labelled
    for row in range(len(train)):
        item = train[row]
        shown = (item["image"][0] * 2).round().long()  # by its own percentiles, 0 to 200
        assert torch.equal(shown, item["mask"])


def test_a_prediction_goes_back_to_where_the_file_has_it(tmp_path: Path) -> None:
    root = describe(tmp_path)
    write_cases(root)
    images = load(root, spacing=1.0)
    item, place = images[0], images.place(0)
    assert item["mask"].shape == item["image"].shape[1:]
    assert place.shown_spacing == pytest.approx((1, 1, 1))
    assert place.turned
    number = int(str(images.ids[0]).removeprefix("case_"))
    stored = discs(number, (14 + number % 3, 16, 20))
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(stored, TURNED))
    expected = np.asarray(turned.dataobj).transpose(2, 1, 0)
    assert place.sides == expected.shape
    back = place.back(item["mask"])
    assert (back.numpy() == expected).mean() > 0.95
    assert np.allclose(place.affine, turned.affine)


def test_predictions_are_a_data_set_of_the_same_layout(tmp_path: Path) -> None:
    root, there = describe(tmp_path / "Dataset001_Here"), describe(tmp_path / "Dataset002_There")
    write_cases(root)
    images = load(root, spacing=1.0)
    for row in range(len(images)):
        place, name = images.place(row), str(images.ids[row])
        likely = torch.nn.functional.one_hot(images[row]["mask"], 3).movedim(-1, 0)
        (there / "labelsTr").mkdir(exist_ok=True)
        path = save_mask(there / "labelsTr", name, in_file_space(likely, place), place)
        assert path.name == f"{name}.nii.gz"
        stored = nibabel.load(root / "labelsTr" / path.name)
        written = nibabel.load(path)
        assert np.array_equal(written.affine, stored.affine)
        assert written.shape == stored.shape
        agreed = np.asarray(written.dataobj) == np.asarray(stored.dataobj)
        assert agreed.mean() > 0.95
    (there / "imagesTr").mkdir()
    for name in images.ids.tolist():
        image = f"{name}_0000.nii.gz"
        (there / "imagesTr" / image).write_bytes((root / "imagesTr" / image).read_bytes())
    assert load(root, "target", target=str(there)).labelled


def test_images_of_several_sides_are_trained_on_in_patches(tmp_path: Path) -> None:
    root = describe(tmp_path)
    write_cases(root)
    train, val = load(root), load(root, "val")
    with pytest.raises(InputError, match=r"train on patches, patch=\[H,W\] or \[D,H,W\]"):
        SourceData(train, val)
    data = SourceData(train, val, batch_size=2, patch=(18, 8, 16))  # longer than some images
    batches = list(data.train_dataloader())
    assert all(batch["image"].shape == (2, 1, 18, 8, 16) for batch in batches)
    assert all(batch["mask"].shape == (2, 18, 8, 16) for batch in batches)
    known = torch.cat([batch["mask"] for batch in batches]) != UNLABELLED
    shown = torch.cat([batch["image"][:, 0] for batch in batches])
    assert (shown[~known] == 0).all()
    assert [len(batch["image"]) for batch in data.in_order("val")] == [1] * len(val)
    target = load(root, "target", target=str(root))
    with pytest.raises(InputError, match=r"one by one, stream\.batch_size=1"):
        StreamLoader(target, np.arange(len(target)), 2)
    loader = StreamLoader(target, np.arange(len(target)), 1)
    assert len({batch["image"].shape for batch in loader}) > 1


def test_channels_are_scaled_each_by_itself(tmp_path: Path) -> None:
    root = describe(tmp_path, channel_names={"0": "T1", "1": "T2"})
    write_cases(root, channels=2)
    images = load(root)
    assert images.channels == 2
    item = images[0]["image"]
    assert torch.allclose(item[0], item[1])  # one more in each pixel
    (tmp_path / "imagesTr" / "case_1_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case_1 has 1 of 2 channels, case_1_0001\.nii\.gz"):
        load(root)
    other = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), TURNED)
    nibabel.save(other, tmp_path / "imagesTr" / "case_1_0001.nii.gz")
    with pytest.raises(InputError, match=r"and has a channel 1 of 4x4x4"):
        load(root, "target", target=str(root))  # all cases


def test_ct_says_which_window_nnunet_would_take(tmp_path: Path) -> None:
    root = describe(tmp_path, channel_names={"0": "CT"})
    write_cases(root)
    with pytest.raises(InputError, match=r"which nnU-Net takes, are \[100,200\]"):
        load(root)
    images = load(root, window=[0, 200])
    assert torch.equal((images[0]["image"][0] * 2).round().long(), images[0]["mask"])


def test_what_does_not_count_and_regions(tmp_path: Path) -> None:
    root = describe(tmp_path, labels={"background": 0, "disc": 1, "ignore": 2})
    write_cases(root)
    images = load(root)
    assert images.class_names == ("background", "disc")
    assert (images[0]["mask"] == UNLABELLED).any()
    regions = {"background": 0, "whole": [1, 2], "cup": 2}
    describe(tmp_path, labels=regions, regions_class_order=[1, 2])
    images = load(root)
    assert images.class_names == ("background", "whole", "cup")
    assert any("regions overlap" in note for note in images.notes)
    describe(tmp_path, labels=regions)
    with pytest.raises(InputError, match="no regions_class_order"):
        load(root)


def test_another_folder_is_a_target_whole(tmp_path: Path) -> None:
    here, there = describe(tmp_path / "Dataset001_A"), describe(tmp_path / "Dataset002_B")
    write_cases(here)
    write_cases(there, count=3)
    images = load(here, "target", target=str(there))
    assert len(images) == 3
    assert images.labelled
    assert set(images.domains.tolist()) == {"Dataset002_B"}
    assert len(load(here, "target")) == len(load(here, "test"))  # without imagesTs, the cut's test


def test_pictures_of_three_colours_are_one_file(tmp_path: Path) -> None:
    names = {"0": "R", "1": "G", "2": "B"}
    root = describe(tmp_path, channel_names=names, file_ending=".png")
    for number in range(8):
        mask = discs(number)
        picture = np.repeat(mask[..., None] * np.uint8(100), 3, axis=-1)
        write_picture(root / "imagesTr" / f"p{number}_0000.png", picture)
        write_picture(root / "labelsTr" / f"p{number}.png", mask)
    images = load(root)
    assert (images.channels, images.high) == (3, 255)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"file_ending": ".mha"}, r"no file called CASE_0000\.mha, as dataset\.json says"),
        ({"labels": {"background": 0, "disc": 1}}, r"the value\(s\) 2, and 0, 1 are known"),
    ],
)
def test_what_a_description_gets_wrong_is_said(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    root = describe(tmp_path, **more)
    write_cases(root)
    with pytest.raises(InputError, match=message):
        load(root)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected dataset\.json"):
        load(tmp_path)
    (tmp_path / "dataset.json").write_text('{"modality": {}}')
    with pytest.raises(InputError, match="has no key 'channel_names'"):
        load(tmp_path)
    for content in ("{", "[" * 100_000, "[]"):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(InputError, match=r"dataset\.json (is no readable|holds no) JSON"):
            load(tmp_path)
    with pytest.raises(InputError, match="has no cases in imagesTr"):
        load(describe(tmp_path))
    with pytest.raises(InputError, match=r"data\.root is missing"):
        load_nnunet(NnunetConfig(), "train")
