"""Readers of published sets, each on a small tree of the layout in which the set is handed out."""

import csv
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import nibabel
import numpy as np
import pytest
from omegaconf import OmegaConf

from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.datamodules import DATA, StreamLoader, create_stream, load_images
from holdfast.datamodules.medmnist import MEDMNIST, MedMNISTConfig
from holdfast.datamodules.published.chestxray14 import FINDINGS
from holdfast.datamodules.published.chexpert import FINDINGS as CHEXPERT
from holdfast.tta.config import CONFIGS, read_arguments, resolve
from holdfast.tta.errors import InputError
from tests.conftest import ROOT
from tests.datamodules.test_files import grey, write_picture


def write_table(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ","
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def camelyon17(root: Path) -> None:
    rows = []
    for number in range(100):
        center, patient = number // 20, f"{number // 4:03d}"
        rows.append(
            [
                number,
                patient,
                number % 3,
                10 * number,
                20,
                number % 2,
                number // 4,
                center,
                number % 2,
            ]
        )
        name = f"patient_{patient}_node_{number % 3}"
        write_picture(
            root / "patches" / name / f"patch_{name}_x_{10 * number}_y_20.png", grey(8, (12, 12, 3))
        )
    header = ["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
    write_table(root / "metadata.csv", header, rows)


def histopantum(root: Path) -> None:
    for organ in ("colon", "ovarian", "stomach", "uterus"):
        for label in ("non-tumour", "tumour"):
            for case in range(5):
                for x in (0, 512):
                    name = f"TCGA-{organ[:2].upper()}-A{case:03d}-01Z-00-DX1_{x}_1024.jpg"
                    write_picture(root / organ / label / name, grey(8, (12, 12, 3)))


def mammobench(root: Path) -> None:
    rows = []
    for site in ("cdd-cesm", "cmmd", "ddsm", "dmid", "inbreast", "kau-bcmd"):
        for number in range(12):
            path = f"Preprocessed_Dataset/{site}/{site}_{number}.jpg"
            write_picture(root / path, grey(8, (12, 10)))
            rows.append(
                [
                    site,
                    path,
                    number // 2,
                    ("Normal", "Benign", "Malignant")[number % 3],
                    "B",
                    40 + number,
                ]
            )
    header = [
        "source_dataset",
        "preprocessed_image_path",
        "source_subjectID",
        "classification",
        "density",
        "subject_age",
    ]
    write_table(root / "CSV_Files" / "mammo-bench.csv", header, rows)


def glioma(root: Path) -> None:
    def volume(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(
            nibabel.Nifti1Image(
                np.random.default_rng(0).normal(100, 9, (8, 10, 6)).astype(np.float32), np.eye(4)
            ),
            path,
        )

    def mask(path: Path) -> None:
        marked = np.zeros((8, 10, 6), np.uint8)
        marked[2:5, 3:7, 1:3] = 4
        nibabel.save(nibabel.Nifti1Image(marked, np.eye(4)), path)

    def sri(cohort: str, name: str) -> None:
        place = root / cohort / name / "preop"
        volume(place / f"sub-{name}_ses-preop_space-sri_t1c.nii.gz")
        marked = "tumormask" if cohort == "erasmus" else "seg"
        mask(place / f"sub-{name}_ses-preop_space-sri_{marked}.nii.gz")

    subjects = [
        (f"EGD-{i:04d}", *genes)
        for i, genes in enumerate([(0, -1), (1, 0), (1, 1), (-1, -1), (0, 0)] * 2)
    ]
    write_table(root / "erasmus" / "phenoData.csv", ["Subject", "IDH", "1p19q"], subjects, "\t")
    for name, *_ in subjects:
        sri("erasmus", str(name))
    names = [f"TCGA-02-{i:04d}" for i in range(8)]
    header = ["case_submitter_id", "primary_diagnosis"]
    high = [(name, "Glioblastoma") for name in names[:4]]
    low = [
        (name, ("Astrocytoma, anaplastic", "Oligodendroglioma, NOS", "Mixed glioma")[i % 3])
        for i, name in enumerate(names[4:])
    ]
    write_table(root / "tcga" / "clinical-hgg.tsv", header, high * 2, "\t")  # a row a treatment
    write_table(root / "tcga" / "clinical-lgg.tsv", header, low, "\t")
    for name in names:
        sri("tcga", name.lower())
    words = [
        "Glioblastoma, IDH-wildtype",
        "Astrocytoma, IDH-mutant",
        "Oligodendroglioma, IDH-mutant, 1p/19q-codeleted",
    ]
    cases = [(f"UCSF-PDGM-{i:03d}", words[i % 3]) for i in range(6)]
    header = ["ID", "Final pathologic diagnosis (WHO 2021)"]
    write_table(
        root / "ucsf" / "UCSF-PDGM-metadata_v5.csv",
        header,
        [*cases, ("UCSF-PDGM-000_FU003d", words[0])],
    )
    for i in range(5):  # the last case has no volume
        volume(root / "ucsf" / f"UCSF-PDGM-{i:04d}_nifti" / f"UCSF-PDGM-{i:04d}_T1c.nii.gz")
        mask(
            root
            / "ucsf"
            / f"UCSF-PDGM-{i:04d}_nifti"
            / f"UCSF-PDGM-{i:04d}_tumor_segmentation.nii.gz"
        )


def imagenet_c(root: Path) -> None:
    for corruption in ("noise/shot_noise", "weather/fog"):
        for wnid in ("n01440764", "n01443537"):
            for number in range(3):
                name = f"ILSVRC2012_val_{number:08d}.JPEG"
                write_picture(root / corruption / "5" / wnid / name, grey(8, (12, 12, 3)))


def isic(root: Path) -> None:
    classes = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    truth, known = [], []
    for number in range(24):
        name = f"ISIC_{number:07d}"
        write_picture(root / "ISIC_2019_Training_Input" / f"{name}.jpg", grey(8, (12, 16, 3)))
        truth.append([name, *(float(number % 8 == place) for place in range(9))])
        clinic = ("BCN_000", "HAM_000", "MSK4_00", "")[number % 4]
        known.append(
            [name, 20 + number, "head/neck", f"{clinic}{number // 8}" if clinic else "", "female"]
        )
    write_table(root / "ISIC_2019_Training_GroundTruth.csv", ["image", *classes], truth)
    header = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    write_table(root / "ISIC_2019_Training_Metadata.csv", header, known)


def chestxray14(root: Path) -> None:
    rows, names = [], []
    labels = ["No Finding", "Effusion", "Effusion|Mass", "Mass"]
    for number in range(64):
        name = f"{number // 2:08d}_{number % 2:03d}.png"
        names.append(name)
        write_picture(root / f"images_{1 + number % 3:03d}" / "images" / name, grey(8, (12, 12)))
        view = "PA" if number % 2 else "AP"
        rows.append(
            [
                name,
                labels[number % 4],
                0,
                number // 2,
                "058Y",
                "F",
                view,
                2682,
                2749,
                0.14,
                0.14,
                "",
            ]
        )
    header = [
        "Image Index",
        "Finding Labels",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
        "View Position",
    ]
    more = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", ""]
    write_table(root / "Data_Entry_2017.csv", [*header, *more], rows)
    (root / "train_val_list.txt").write_text("\n".join(names[:48]))
    (root / "test_list.txt").write_text("\n".join(names[48:]))


def chexpert(root: Path) -> None:
    names = [*CHEXPERT.values()]
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *names]
    for part, count in (("train", 40), ("valid", 6)):
        rows = []
        for number in range(count):
            view = ("PA", "AP", "")[number % 3]
            path = f"{part}/patient{part == 'valid'}{number // 2:05d}/study1/view{number}.jpg"
            path = path.replace("True", "6").replace("False", "0")
            write_picture(root / path, grey(8, (12, 12)))
            values = [("1.0", "0.0", "-1.0", "")[(number + place) % 4] for place in range(13)]
            healthy = "1.0" if number % 5 == 0 else ""
            facing = "Frontal" if view else "Lateral"
            rows.append([f"CheXpert-v1.0-small/{path}", "Male", 40, facing, view, healthy, *values])
        write_table(root / f"{part}.csv", header, rows)


def padchest(root: Path) -> None:
    labels = [
        "['normal']",
        "['pleural effusion', 'laminar atelectasis']",
        "['multiple nodules', 'unchanged']",
        "",
    ]
    rows = []
    for number in range(48):
        write_picture(root / str(number % 3) / f"{number}.png", grey(16, (12, 12)))
        view = ("PA", "AP")[number % 2]
        rows.append([f"{number}.png", f"p{number // 2}", view, labels[number // 2 % 4]])
    header = ["ImageID", "PatientID", "Projection", "Labels"]
    write_table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)


def nct_crc(root: Path) -> None:
    for name, count in (("NCT-CRC-HE-100K", 10), ("CRC-VAL-HE-7K", 3)):
        for label in ("ADI", "TUM"):
            for number in range(count):
                write_picture(root / name / label / f"{label}-{number}.tif", grey(8, (12, 12, 3)))


TREES: dict[str, Callable[[Path], None]] = {
    tree.__name__: tree
    for tree in (
        camelyon17,
        histopantum,
        mammobench,
        glioma,
        imagenet_c,
        isic,
        chestxray14,
        chexpert,
        padchest,
        nct_crc,
    )
}


#: Sets whose splits are of patients, whatever their domains.
SPLIT_BY_PATIENT = ("chestxray14", "chexpert", "padchest")


def load(kind: str, root: Path, split: Any = "target", **options: Any) -> Any:
    return load_images(
        kind, DATA[kind](root=str(root), size=8, channels=1, window="percentile", **options), split
    )


@pytest.mark.parametrize("kind", TREES)
def test_every_tree_is_read(kind: str, tmp_path: Path) -> None:
    TREES[kind](tmp_path)
    options = {"target": ["shot_noise", "fog"]} if kind == "imagenet_c" else {}
    images = load(kind, tmp_path, **options)
    assert images.labelled
    assert images[0]["image"].shape == (1, *(8,) * (3 if kind == "glioma" else 2))
    assert images.skipped == {}
    if kind == "imagenet_c":
        with pytest.raises(InputError, match="nothing to train on"):
            load(kind, tmp_path, "train")
        return
    splits = {split: load(kind, tmp_path, split) for split in ("train", "val", "test")}
    groups = [set(part.groups.tolist()) for part in splits.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert images.class_names == splits["train"].class_names
    if kind not in SPLIT_BY_PATIENT:
        assert not set(images.domains.tolist()) & set(splits["train"].domains.tolist())


@pytest.mark.parametrize("kind", TREES)
def test_what_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the folder absent in"):
        load(kind, tmp_path / "absent")
    with pytest.raises(InputError, match="expected"):
        load(kind, tmp_path)
    TREES[kind](tmp_path)
    tables = [
        path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".csv", ".tsv", ".txt")
    ]
    for table in tables:
        content = table.read_text()
        table.unlink()
        with pytest.raises(InputError, match=table.name):
            load(kind, tmp_path)
        if table.suffix != ".txt":
            header, *lines = content.splitlines()
            table.write_text(
                "\n".join(
                    ["strange" + "x" * header.count(","), *(line.split(",")[0] for line in lines)]
                )
            )
            with pytest.raises(InputError, match="has no column"):
                load(kind, tmp_path)
        table.write_text(content)
    for folder in sorted(path for path in tmp_path.iterdir() if path.is_dir()):
        if kind in ("mammobench", "imagenet_c", *SPLIT_BY_PATIENT) or folder.name == "patches":
            continue  # whose tables name the files: it is those that are missing then
        folder.rename(tmp_path.with_name(folder.name))
        with pytest.raises(InputError, match=f"expected the folder {folder.name}"):
            load(kind, tmp_path)
        tmp_path.with_name(folder.name).rename(folder)


@pytest.mark.parametrize("kind", ["camelyon17", "mammobench", "isic", "chestxray14"])
def test_images_that_a_table_names_and_that_are_not_there_are_named(
    kind: str, tmp_path: Path
) -> None:
    TREES[kind](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".png", ".jpg"):
            path.unlink()
    expected = "no image files|none of the .* can be read .*does not exist"
    with pytest.raises(InputError, match=expected):
        load(kind, tmp_path)


def test_organ_views_without_network_say_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("holdfast.datamodules.medmnist.download_url", refuse)
    with pytest.raises(
        InputError,
        match=r"organcmnist\.npz does not exist and could not be downloaded .*put it there",
    ):
        load_images("organ_views", DATA["organ_views"](root=str(tmp_path)), "target")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a server hands out in place of MedMNIST's."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    http = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))
    )
    Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr(
        "holdfast.datamodules.medmnist._URL",
        f"http://127.0.0.1:{http.server_port}/{{file}}?download=1",
    )
    yield folder
    http.shutdown()
    http.server_close()


def test_medmnist_is_downloaded_once_and_checked(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = (
        mirror / "pneumoniamnist.npz",
        MedMNISTConfig(name="pneumoniamnist", root=str(tmp_path / "data")),
    )
    with pytest.raises(
        InputError,
        match=r"pneumoniamnist\.npz does not exist and could not be downloaded .*put it there",
    ):
        load_images("medmnist", config, "target")  # the server does not have it
    draw = np.random.default_rng(0)
    images = {
        f"{split}_images": draw.integers(0, 256, (8, 28, 28), dtype=np.uint8)
        for split in ("train", "val", "test")
    }
    labels = {f"{split}_labels": np.arange(8)[:, None] % 2 for split in ("train", "val", "test")}
    np.savez(file, **images, **labels)
    with pytest.raises(InputError, match=r"could not be downloaded"):
        load_images("medmnist", config, "target")  # another file than the published one
    assert not (tmp_path / "data").exists()  # it would be taken for the set next time
    published = MEDMNIST["pneumoniamnist"]._replace(
        md5={28: hashlib.md5(file.read_bytes()).hexdigest()}
    )
    monkeypatch.setitem(MEDMNIST, "pneumoniamnist", published)
    first = load_images("medmnist", config, "target")
    np.testing.assert_array_equal(np.asarray(first.images).squeeze(), images["test_images"])
    file.unlink()
    assert len(load_images("medmnist", config, "train")) == 8  # from the file that now lies there


def test_the_page_has_a_command_for_every_set() -> None:
    page = (ROOT / "docs" / "howto" / "data.md").read_text()
    for kind in (*TREES, "medmnist", "organ_views"):
        assert f"| `{kind}` |" in page
        assert re.search(
            rf"^    python (train|adapt)\.py .*data={kind} ", page, flags=re.MULTILINE
        ), kind


def test_imagenet_c_in_its_four_settings(tmp_path: Path) -> None:
    imagenet_c(tmp_path)
    one, all_of_them = (
        load("imagenet_c", tmp_path, target=target) for target in ("fog", ["shot_noise", "fog"])
    )
    orders = {}
    for name, images in (("iid", one), ("blocks", one), ("mixed", all_of_them), ("window", one)):
        config = resolve(
            AdaptConfig,
            GROUPS,
            read_arguments([f"stream={name}"], GROUPS, {"data": {"kind": "phantom"}}),
        ).stream
        items = create_stream(config.options, images, 0)
        orders[name] = list(
            StreamLoader(images, items, config.options.batch_size, 0, config.options.window)
        )
    assert [len(batches) for batches in orders.values()] == [1, 1, 1, 6]
    assert set(orders["mixed"][0]["domain"]) == {"shot_noise", "fog"}
    assert orders["blocks"][0]["label"].diff().count_nonzero() == 1


def test_protocols(tmp_path: Path) -> None:
    for kind, tree in TREES.items():
        tree(tmp_path / kind)
    hospitals = load("camelyon17", tmp_path / "camelyon17")
    assert set(hospitals.domains.tolist()) == {f"hospital_{number}" for number in (2, 3, 4, 5)}
    assert (len(hospitals), hospitals.class_names) == (80, ("normal", "tumor"))
    organs = load("histopantum", tmp_path / "histopantum", source="uterus", target="colon")
    assert set(organs.groups.tolist()) == {f"TCGA-CO-A{case:03d}" for case in range(5)}
    left_out = load("mammobench", tmp_path / "mammobench", target="inbreast")
    assert (len(left_out), left_out.target.counts().tolist()) == (12, [4, 8])
    train = load("mammobench", tmp_path / "mammobench", "train", target="inbreast")
    assert set(train.domains.tolist()) == {
        "cdd-cesm",
        "ddsm",
        "dmid",
        "kau-bcmd",
    }  # no cmmd: it has no normal ones
    cohorts = {
        name: load("glioma", tmp_path / "glioma", target=name)
        for name in ("erasmus", "tcga", "ucsf")
    }
    assert {name: images.target.counts().tolist() for name, images in cohorts.items()} == {
        "erasmus": [4, 2, 2],
        "tcga": [4, 2, 1],
        "ucsf": [2, 2, 1],
    }
    fog = load("imagenet_c", tmp_path / "imagenet_c", target="fog")
    assert (fog.class_names, set(fog.domains.tolist()), len(fog)) == (
        ("n01440764", "n01443537"),
        {"fog"},
        6,
    )
    with pytest.raises(InputError, match=r"expected fog/4 .*fetch it"):
        load("imagenet_c", tmp_path / "imagenet_c", target="fog", severity=4)
    clinics = load("isic", tmp_path / "isic")
    assert set(clinics.domains.tolist()) == {"HAM", "MSK", "unknown"}
    sexes = load("isic", tmp_path / "isic", domain="sex", source=None, target="female")
    assert (len(sexes), sexes.labels[:9].tolist()) == (24, [*range(8), 0])
    chest = load(
        "chestxray14",
        tmp_path / "chestxray14",
        target="AP",
        task="single",
        findings=["No Finding", "Effusion"],
    )
    assert (len(chest), chest.class_names, chest.column("age")[0]) == (
        4,
        ("No Finding", "Effusion"),
        "58",
    )
    assert set(load("nct_crc", tmp_path / "nct_crc").domains.tolist()) == {"CRC-VAL-HE-7K"}
    shutil.rmtree(tmp_path / "nct_crc" / "CRC-VAL-HE-7K")
    with pytest.raises(InputError, match="expected the folder CRC-VAL-HE-7K"):
        load("nct_crc", tmp_path / "nct_crc")


def test_findings_of_radiographs_are_those_that_are_written(tmp_path: Path) -> None:
    for kind in SPLIT_BY_PATIENT:
        TREES[kind](tmp_path / kind)
    chest = load("chestxray14", tmp_path / "chestxray14", source="PA", target="AP")
    assert (chest.task, len(chest.class_names)) == ("multilabel", 14)
    assert chest.target.values.sum(0)[list(FINDINGS).index("Effusion")] == 4
    assert (
        chest.target.values.sum() == 4 + 4
    )  # of four images each with Effusion|Mass: no finding is 0
    few = load("chestxray14", tmp_path / "chestxray14", findings=["Mass", "Effusion"])
    assert few.class_names == ("Mass", "Effusion")
    with pytest.raises(InputError, match=r"none of the fourteen, or of data\.task=single"):
        load("chestxray14", tmp_path / "chestxray14", findings=["No Finding"])
    words = {"ignore": np.nan, "zeros": 0, "ones": 1}
    for uncertain, value in words.items():
        images = load(
            "chexpert",
            tmp_path / "chexpert",
            "train",
            source="PA",
            target="AP",
            uncertain=uncertain,
        )
        assert set(images.domains.tolist()) == {"PA"}
        rows = [int(name.split("view")[1].split(".")[0]) for name in images.ids.tolist()]
        for row, findings in zip(rows, images.target.values, strict=True):
            said = [(1, 0, value, 0)[(row + place) % 4] for place in range(13)]
            if row % 5 == 0:  # no finding, of which devices are none
                said[:-1] = [0] * 12
            assert np.array_equal(findings, said, equal_nan=True)
        assert any("uncertain findings" in note for note in images.notes)
    blank = load("chexpert", tmp_path / "chexpert", target="AP", unmentioned="ignore")
    assert np.isnan(blank.target.values).any()
    pad = load("padchest", tmp_path / "padchest", target="AP")
    found = dict(zip(pad.class_names, np.nansum(pad.target.values, 0).tolist(), strict=True))
    present = {name for name, count in found.items() if count}
    assert present <= {"Effusion", "Atelectasis", "Nodule"}
    every = [
        load("padchest", tmp_path / "padchest", split, target="AP") for split in ("train", "val")
    ]
    both = np.concatenate([part.target.values for part in every])
    assert np.isnan(both).all(1).any()  # a report without labels says nothing
    assert not (set(every[0].groups.tolist()) & set(pad.groups.tolist()))


def test_gliomas_are_cut_out_at_one_millimetre_as_published(tmp_path: Path) -> None:
    glioma(tmp_path)
    options = {
        key: value
        for key, value in OmegaConf.load(CONFIGS / "data" / "glioma.yaml").items()
        if key != "kind"
    }
    assert (options["spacing"], options["around_roi"], options["size"]) == (1.0, 0, [110, 128, 96])
    shown = {}
    for cohort in ("erasmus", "tcga", "ucsf"):
        config = DATA["glioma"](
            **{**options, "root": str(tmp_path), "target": cohort, "size": [2, 4, 3]}
        )
        shown[cohort] = load_images("glioma", config, "target")[0]["image"]
    head = nibabel.load(next(tmp_path.glob("ucsf/*/*_T1c.nii.gz"))).get_fdata()[2:5, 3:7, 1:3].T
    low, high = np.percentile(head, [0.5, 99.5])
    for image in shown.values():
        assert np.allclose(image[0], ((head - low) / (high - low)).clip(0, 1), atol=1e-4)
    next(tmp_path.glob("ucsf/*/*_tumor_segmentation.nii.gz")).unlink()
    with pytest.raises(InputError, match=r"_tumor_segmentation\.nii\.gz, that does not exist"):
        load_images(
            "glioma",
            DATA["glioma"](**{**options, "root": str(tmp_path), "target": "ucsf"}),
            "target",
        )


def medmnist(
    root: Path, name: str, shape: tuple[int, ...], labels: int = 1, size: str = ""
) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (20, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(20)[:, None] % (np.arange(labels) + 2) == 0).astype(
            np.uint8
        )
    np.savez(root / f"{name}{size}.npz", **arrays)


def test_medmnist_is_whole(tmp_path: Path) -> None:
    assert sum(known.spatial_dims == 2 for known in MEDMNIST.values()) == 12
    volumes = [name for name, known in MEDMNIST.items() if known.spatial_dims == 3]
    assert len(volumes) == 6
    for name, known in MEDMNIST.items():
        assert list(known.md5) == ([28, 64] if name in volumes else [28, 64, 128, 224])
    medmnist(tmp_path, "nodulemnist3d", (28, 28, 28))
    images = load_images(
        "medmnist", DATA["medmnist"](name="nodulemnist3d", root=str(tmp_path)), "train"
    )
    assert (images.size, images.channels) == ((28, 28, 28), 1)
    assert images[0]["image"].shape == (1, 28, 28, 28)
    medmnist(tmp_path, "chestmnist", (28, 28), labels=14)
    chest = {"name": "chestmnist", "root": str(tmp_path)}
    findings = np.arange(20)[:, None] % (np.arange(14) + 2) == 0
    images = load_images("medmnist", DATA["medmnist"](**chest), "test")
    assert images.task == "multilabel"
    assert np.array_equal(images.target.values, findings)
    assert set(images.class_names) == set(FINDINGS)
    images = load_images("medmnist", DATA["medmnist"](**chest, task="single"), "test")
    single = findings.sum(1) == 1
    assert images.labels.tolist() == findings[single].argmax(1).tolist()
    config = DATA["medmnist"](name="nodulemnist3d", root=str(tmp_path), task="multilabel")
    with pytest.raises(InputError, match=r"data\.name=chestmnist has findings"):
        load_images("medmnist", config, "test")


def test_views_of_organs(tmp_path: Path) -> None:
    for name in ("organamnist", "organcmnist", "organsmnist"):
        medmnist(tmp_path, name, (28, 28))
    config = DATA["organ_views"](root=str(tmp_path))
    train, target = (
        load_images("organ_views", config, "train"),
        load_images("organ_views", config, "target"),
    )
    assert set(train.domains.tolist()) == {"axial"}
    assert (len(target), set(target.domains.tolist())) == (40, {"coronal", "sagittal"})
    assert len(set(target.ids.tolist())) == 40
    assert target.class_names == train.class_names
    with pytest.raises(InputError, match="did you mean coronal"):
        load_images(
            "organ_views", DATA["organ_views"](root=str(tmp_path), target="cornal"), "target"
        )


def test_volumes_in_an_npz(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "heads.npz",
        images=np.zeros((4, 5, 6, 7), np.uint8),
        site=np.array(["a", "b", "a", "b"]),
    )
    config = DATA["npz"](path=str(tmp_path / "heads.npz"), spatial_dims=3)
    images = load_images("npz", config, "target")
    assert images.batch([0, 1])["image"].shape == (2, 1, 5, 6, 7)
    assert images.column("site").tolist() == ["a", "b", "a", "b"]
