"""Both layouts of .npz files, and every way in which one can be wrong."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.datamodules import load_images
from holdfast.datamodules.arrays import read_arrays
from holdfast.datamodules.formats.decoded import Unreadable
from holdfast.datamodules.formats.memory import available_memory, refuse_beyond_memory
from holdfast.datamodules.medmnist import MedMNISTConfig, load_medmnist
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.datamodules.targets import LabelTarget
from holdfast.datamodules.trainable import check_training_set
from holdfast.tta.errors import InputError


def domain_arrays(count: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    row = np.arange(count)
    return {
        "images": rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        "labels": (row % 2).astype(np.uint8),
        "domain": np.where(row < count // 2, "here", "there"),
        "split": np.where(row < 10, "train", np.where(row < 16, "val", "test")),
        "group": (row // 2).astype(str),
        "class_names": np.array(["no", "yes"]),
    }


def medmnist_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for split, count in (("train", 40), ("val", 10), ("test", 20)):
        result[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        result[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return result


def saved(folder: Path, arrays: dict[str, Any], name: str = "set.npz") -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


def test_domain_layout(tmp_path: Path) -> None:
    path = saved(tmp_path, domain_arrays())
    config = NpzConfig(path=path, target="there")
    train, target = load_npz(config, "train"), load_npz(config, "target")
    assert (len(train), len(target)) == (
        10,
        20,
    )  # the only domain with training images is the source
    item = target[0]
    assert item["image"].shape == (3, 8, 8)
    assert item["image"].max() <= 1
    assert (item["label"], item["id"], item["domain"], item["group"]) == (0, "20", "there", "10")
    np.testing.assert_allclose(
        item["image"].permute(1, 2, 0) * 255, domain_arrays()["images"][20], atol=1e-4
    )
    batch = target.batch([0, 3])
    assert batch["image"].shape == (2, 3, 8, 8)
    assert batch["id"] == ["20", "23"]
    assert batch["label"].tolist() == [0, 1]


def test_medmnist_layout(tmp_path: Path) -> None:
    config = NpzConfig(path=saved(tmp_path, medmnist_arrays()))
    assert [len(load_npz(config, split)) for split in ("train", "val", "test", "target")] == [
        40,
        10,
        20,
        20,
    ]
    assert load_npz(config, "train")[0]["image"].shape == (1, 28, 28)


def test_without_val_every_tenth_training_image_of_a_class_validates(tmp_path: Path) -> None:
    arrays = {key: value for key, value in medmnist_arrays().items() if not key.startswith("val")}
    config = NpzConfig(path=saved(tmp_path, arrays))
    train, val = load_npz(config, "train"), load_npz(config, "val")
    assert (len(train), len(val)) == (36, 4)
    assert not set(train.ids) & set(val.ids)


def test_an_unlabelled_target(tmp_path: Path) -> None:
    arrays = domain_arrays()
    del arrays["labels"]
    target = load_npz(NpzConfig(path=saved(tmp_path, arrays), target="there"), "target")
    assert target[0]["label"] is None
    assert not target.labelled


def test_medmnist_reads_its_own_file(tmp_path: Path) -> None:
    saved(tmp_path, medmnist_arrays(), "pneumoniamnist.npz")
    images = load_medmnist(MedMNISTConfig(root=str(tmp_path)), "target")
    assert images.class_names == ("normal", "pneumonia")
    assert len(images) == 20


def broken(**changes: Any) -> dict[str, Any]:
    return {
        key: value for key, value in {**domain_arrays(), **changes}.items() if value is not None
    }


@pytest.mark.parametrize(
    ("arrays", "split", "message"),
    [
        ({"pictures": np.zeros(3)}, "target", "keys pictures: expected images"),
        (broken(labels=np.full(40, 7)), "target", "label 7 is out of range"),
        (broken(labels=np.zeros(3, int)), "target", "expected one number or name for each of 40"),
        (broken(labels=np.full(40, 0.5)), "target", "has the label '0.5'"),
        (broken(group=np.arange(40) // 3), "train", "2 group.* 3 is in train and val"),
        (broken(group=None, patient_id=np.arange(40) // 3), "train", r"data\.group=patient_id"),
        (broken(images=np.zeros((40, 8), np.uint8)), "target", "must be numbers of shape"),
        (broken(domain=np.full(3, "there")), "target", "has not one value"),
        (broken(split=None), "train", "no key split"),
        (broken(split=np.full(40, "test")), "train", "data.source is missing"),
        (broken(split=np.zeros(40, int)), "train", "has the split '0'"),
        (broken(split=np.full(40, "train")), "target", "no images for the target"),
        (
            broken(images=np.zeros((0, 8, 8), np.uint8)),
            "target",
            "holds no images: images is 0x8x8",
        ),
        (broken(class_names=np.array(["a", "a"])), "target", "a name to two classes: a, a"),
        (broken(group=np.array(["p"] * 10 + ["p "] * 30)), "train", r"1 group.* p is in train and"),
        (broken(images=np.array([object()] * 40)), "target", "holds Python objects"),
        (
            broken(images=np.zeros((40, 3, 16, 8), np.uint8)),
            "target",
            r"\(40x3x16x8\) have their channels first: put them last, numpy.moveaxis",
        ),
    ],
)
def test_wrong_files_are_refused_in_a_sentence(
    tmp_path: Path, arrays: dict[str, Any], split: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_npz(NpzConfig(path=saved(tmp_path, arrays), target="there"), split)


def test_bytes_blanks_and_another_byte_order_change_nothing(tmp_path: Path) -> None:
    plain = domain_arrays() | {"images": np.arange(40 * 64, dtype=np.uint16).reshape(40, 8, 8)}
    config = NpzConfig(path=saved(tmp_path, plain), target="there")
    expected = load_npz(config, "target")
    other = {
        name: np.strings.add(values, " ").astype("S") if values.dtype.kind == "U" else values
        for name, values in plain.items()
    }
    other["images"] = other["images"].astype(">u2")
    found = load_npz(NpzConfig(path=saved(tmp_path, other, "o.npz"), target="there"), "target")
    assert (found.low, found.high) == (expected.low, expected.high) == (0, 65535)
    assert found.batch([0, 1])["image"].equal(expected.batch([0, 1])["image"])
    for column in ("ids", "labels", "domains", "groups", "class_names"):
        assert list(getattr(found, column)) == list(getattr(expected, column))


def test_many_channels_may_be_volumes_which_is_said(tmp_path: Path) -> None:
    arrays = broken(images=np.zeros((40, 9, 8, 7), np.uint8))
    config = NpzConfig(path=saved(tmp_path, arrays), target="there")
    images = load_npz(config, "target")
    assert images.channels == 7
    assert "7 channels each; if they are volumes, say data.spatial_dims=3" in images.notes[0]
    volumes = load_npz(replace(config, spatial_dims=3), "target")
    assert (volumes.size, volumes.notes) == ((9, 8, 7), ())
    arrays = broken(images=np.zeros((40, 2, 9, 8, 7), np.uint8))
    with pytest.raises(InputError, match="have their channels first"):
        load_npz(replace(config, path=saved(tmp_path, arrays), spatial_dims=3), "target")


def test_ids_that_images_share_are_told(tmp_path: Path) -> None:
    arrays = broken(id=np.arange(40) // 3)
    (note,) = load_npz(NpzConfig(path=saved(tmp_path, arrays), target="there"), "target").notes
    assert note.startswith("18 images share an id with another, as 10: labels by id")


def test_no_file_no_path_no_archive_no_domain(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    for config, message in (
        (NpzConfig(path=str(tmp_path / "absent.npz")), "does not exist"),
        (NpzConfig(), "data.path is missing"),
        (NpzConfig(path=str(tmp_path / "text.npz")), "not a readable"),
        (NpzConfig(path=saved(tmp_path, domain_arrays()), target="ther"), "did you mean there"),
        (NpzConfig(path=saved(tmp_path, domain_arrays())), "data.target is missing.*here, there"),
    ):
        with pytest.raises(InputError, match=message):
            load_npz(config, "target")


def test_medmnist_unknown_set_or_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean bloodmnist"):
        load_medmnist(MedMNISTConfig(name="bloodmist"), "train")
    with pytest.raises(InputError, match="no size 32"):
        load_medmnist(MedMNISTConfig(size=32), "train")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_on_broken_images_is_refused(tmp_path: Path, value: float) -> None:
    arrays = domain_arrays()
    arrays["images"] = arrays["images"].astype(np.float32) / 255
    arrays["images"][3, 1, 1, 0] = value
    with pytest.raises(InputError, match=r"1 training images hold NaN.*id 3"):
        check_training_set(load_npz(NpzConfig(path=saved(tmp_path, arrays)), "train"))


def test_training_on_one_class_or_none_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, broken(labels=np.zeros(40, np.uint8)))
    with pytest.raises(InputError, match=r"show 1 class \(no\)"):
        check_training_set(load_npz(NpzConfig(path=path), "train"))
    images = load_npz(NpzConfig(path=path), "train")
    with pytest.raises(InputError, match=r"no training image has a label: .* each class"):
        check_training_set(replace(images, target=LabelTarget.of_nothing(len(images))))
    with pytest.raises(InputError, match="no training images"):
        check_training_set(load_npz(NpzConfig(path=path, source="there"), "train"))


def test_channels_of_every_data_set(tmp_path: Path) -> None:
    saved(tmp_path, medmnist_arrays(), "pneumoniamnist.npz")
    grey = MedMNISTConfig(root=str(tmp_path), channels=3)
    shown = load_images("medmnist", grey, "train")
    assert (shown.channels, shown[0]["image"].shape) == (3, (3, 28, 28))
    one = load_images("medmnist", MedMNISTConfig(root=str(tmp_path)), "train")
    assert (shown.batch([1, 5])["image"] == one.batch([1, 5])["image"]).all()
    arrays = domain_arrays()
    path = saved(tmp_path, arrays)
    image = load_images("npz", NpzConfig(path=path, target="there", channels=1), "target")[0][
        "image"
    ]
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_array_equal(255 * image[0], np.round(arrays["images"][20] @ weights))
    volumes = np.zeros((2, 4, 4, 4), np.uint8)
    path = saved(tmp_path, {"images": volumes})
    config = NpzConfig(path=path, spatial_dims=3, channels=3)
    assert load_images("npz", config, "target")[1]["image"].shape == (3, 4, 4, 4)
    path = saved(tmp_path, {"images": np.zeros((2, 4, 4, 2), np.uint8)})
    with pytest.raises(InputError, match=r"has 2 channels.*leave data\.channels out"):
        load_images("npz", NpzConfig(path=path, channels=1), "target")
    assert load_images("phantom", PhantomConfig(train_images=4, channels=1), "train").channels == 1


@pytest.mark.real
def test_the_real_files(data_folder: Path) -> None:
    nuclei = NpzConfig(
        path=str(data_folder / "nuclei_patches.npz"), target=["fluor_360", "he_white"]
    )
    assert len(load_images("npz", nuclei, "target")) == 2160 + 2056
    assert load_images("npz", nuclei, "train").target.counts().tolist() == [1864, 1848, 1864]
    chest = load_images("npz", NpzConfig(path=str(data_folder / "pneumoniamnist.npz")), "target")
    assert (len(chest), chest.channels, chest.size) == (624, 1, (28, 28))


def with_header(folder: Path, shape: str, data: bytes = b"\0" * 64, kind: int = 0) -> Path:
    """An archive of one array whose header says that shape, whatever it holds."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data
    path = folder / "lies.npz"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("images.npy", member)
    return path


def test_a_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    path = with_header(tmp_path, "(1000, 1000, 1000, 3000)")
    with pytest.raises(
        InputError, match=r"is damaged: images has 192 bytes, and its header says 3"
    ):
        read_arrays(path)
    assert read_arrays(with_header(tmp_path, "(4, 4, 4)"))["images"].shape == (4, 4, 4)
    # A member that says of itself in the archive's directory that it unpacks to 3 TiB.
    content = bytearray(with_header(tmp_path, "(4, 4, 4)", kind=zipfile.ZIP_DEFLATED).read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    place = content.rindex(size, content.rindex(b"PK\x01\x02"))
    content[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"unpacks to|header says 192"):
        read_arrays(path)


def test_arrays_larger_than_the_memory_are_refused(tmp_path: Path) -> None:
    assert 2**28 < available_memory() < 2**50
    with pytest.raises(Unreadable, match=r"unpacks to .* GiB of memory are free"):
        refuse_beyond_memory(2 * available_memory())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (broken(id=np.arange(3)), r"id \(3\) has not one value for each of 40 images"),
        (broken(group=np.arange(41)), r"group \(41\) has not one value for each of 40"),
        (broken(domain=np.array("there")), "domain .a single value. has not one"),
        (broken(images=np.array(3)), "images is a single number"),
        (broken(class_names=np.array("no")), "class_names is no list"),
        ({**medmnist_arrays(), "val_labels": np.zeros(3)}, r"val_labels \(3 values\) has not one"),
        (
            {**medmnist_arrays(), "val_images": np.zeros((10, 14, 14), np.uint8)},
            "val_images has other sides or channels than train_images",
        ),
        (
            {**medmnist_arrays(), "test_images": np.zeros((20, 28, 28), np.uint16)},
            "test_images are uint16 and train_images uint8, which span other ranges",
        ),
    ],
)
def test_columns_of_another_length_are_refused_in_a_sentence(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    config = NpzConfig(path=saved(tmp_path, arrays), target="there")
    with pytest.raises(InputError, match=message):
        load_npz(config, "target")


def test_a_column_of_another_length_is_left_out_and_said(tmp_path: Path) -> None:
    path = saved(tmp_path, broken(time=np.arange(39), age=np.arange(40)))
    images = load_npz(NpzConfig(path=path, target="there"), "target")
    assert images.metadata.keys() == {"age"}
    assert images.notes == ("the key time (39) is left out: it has not one value an image",)


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, domain_arrays()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    with pytest.raises(InputError, match=r"holds README\.txt, which is no array"):
        read_arrays(path)
    with pytest.raises(InputError, match=r"holds Python objects \(images\).*could be any program"):
        read_arrays(Path(saved(tmp_path, broken(images=np.array([object()] * 40)))))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"not a readable \.npz file .*np\.savez"):
        read_arrays(tmp_path / "one.npy")


def test_masks_in_place_of_labels(tmp_path: Path) -> None:
    arrays = {**domain_arrays(), "masks": np.zeros((40, 8, 8), np.int16)}
    arrays["masks"][:, 2:4] = 1
    arrays["masks"][:, 0, 0] = -1
    del arrays["labels"]
    images = load_npz(NpzConfig(path=saved(tmp_path, arrays), source="here"), "train")
    assert images.task == "segmentation"
    assert images.class_names == ("no", "yes")
    mask = images[3]["mask"]
    assert (mask == 1).sum() == 16
    assert mask[0, 0] == -1
    del arrays["class_names"]
    named = load_npz(NpzConfig(path=saved(tmp_path, arrays), source="here"), "train")
    assert named.class_names == ("background", "foreground")
