"""MedMNIST's own files, downloaded with a check of their published md5 where they are absent.

Names, classes and sums are those of MedMNIST v2's published index (https://medmnist.com, Yang et
al., Scientific Data 2023).
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.apps.utils import HashCheckError, check_hash, download_url

from holdfast.datamodules.arrays import Arrays, read_arrays
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.npz import images_from
from holdfast.datamodules.settings import AUTO, DataConfig, check_task
from holdfast.datamodules.targets import FindingTarget, LabelTarget, kind_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.options import option

_URL = "https://zenodo.org/records/10519652/files/{file}?download=1"
_log = logging.getLogger(__name__)


class MedMNIST(NamedTuple):
    """One set: its classes, the md5 sum of its file at each image size, and whether its images are
    volumes.
    """

    classes: tuple[str, ...]
    md5: dict[int, str]
    spatial_dims: int = 2


@dataclass
class MedMNISTConfig(DataConfig):
    """A set of MedMNIST, 2D or 3D; its test split is the target."""

    name: str = option("pneumoniamnist", "which set, e.g. pneumoniamnist, dermamnist, bloodmnist")
    size: int = option(28, "side of the images: 28, 64, 128 or 224; of volumes 28 or 64")
    root: str = option("data", "folder of the files; a missing one is downloaded into it")
    task: str = option(
        AUTO,
        "of chestmnist: multilabel, its fourteen findings, or single, the images of one of them; "
        "auto: what the set has",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_task(self.task, AUTO, asking=("label", "findings"))


@dataclass
class OrganViewsConfig(DataConfig):
    """Organs of CT seen from another side: train on one view of MedMNIST's, test on others; the
    classes are shared.
    """

    source: str = option("axial", "view to train on: axial, coronal or sagittal")
    target: str | list[str] = option(
        ["coronal", "sagittal"], "view, or views, of the target stream"
    )
    size: int = option(28, "side of the images: 28, 64, 128 or 224")
    root: str = option("data", "folder of the files; a missing one is downloaded into it")


def load_medmnist(config: MedMNISTConfig, split: Split) -> ImageSet:
    """Read a split, downloading the file first where it is absent.

    Raises:
        InputError: an unknown set or size, or no file and no network.
    """
    if config.name not in MEDMNIST:
        raise InputError(f"unknown MedMNIST set {config.name!r}: {closest(config.name, MEDMNIST)}")
    known = MEDMNIST[config.name]
    if config.size not in known.md5:
        raise InputError(
            f"MedMNIST has no size {config.size}: choose data.size from "
            f"{', '.join(map(str, known.md5))}"
        )
    name = f"{config.name}.npz" if config.size == 28 else f"{config.name}_{config.size}.npz"
    path = Path(config.root).expanduser() / name
    md5 = known.md5[config.size]
    if not path.is_file():
        _download(_URL.format(file=name), path, md5)
    elif split in ("train", "target") and not check_hash(path, md5, "md5"):
        _log.warning("%s differs from the published file (md5); it is used as it is", path)
    arrays, several = read_arrays(path), config.name == "chestmnist"
    kind = None if config.task == AUTO else kind_of(config.task)
    if kind is FindingTarget and not several:
        raise InputError(f"{config.name} has one label an image: data.name=chestmnist has findings")
    if several and kind is LabelTarget:
        arrays = _single_label(arrays)
    return images_from(
        arrays,
        path,
        None,
        None,
        split,
        known.classes,
        known.spatial_dims,
        raw_range=config.given_range(),
        task=config.task,
    )


def load_organ_views(config: OrganViewsConfig, split: Split) -> ImageSet:
    """Read a split; views show the same scans, and a scan is in the same split in all of them.

    Raises:
        InputError: an unknown view, or what ``load_medmnist`` raises.
    """
    views = (
        [config.source]
        if split != "target"
        else [config.target]
        if isinstance(config.target, str)
        else config.target
    )
    for view in views:
        if view not in _VIEWS:
            raise InputError(f"unknown view {view!r}: {closest(view, _VIEWS)}")
    name = "target" if split == "target" else split
    sets = [
        load_medmnist(
            MedMNISTConfig(
                name=_VIEWS[view], size=config.size, root=config.root, range=config.range
            ),
            name,
        )
        for view in views
    ]
    if not sets:
        raise InputError(f"data.target is empty: name one of {', '.join(_VIEWS)}")
    ids = [
        f"{view}-{image}"
        for view, images in zip(views, sets, strict=True)
        for image in images.ids.tolist()
    ]
    return replace(
        sets[0],
        images=np.concatenate([np.asarray(images.images) for images in sets]),
        target=LabelTarget(np.concatenate([part.labels for part in sets]), sets[0].class_names),
        ids=np.array(ids),
        domains=np.repeat(np.array(views), [len(images) for images in sets]),
        groups=np.array(ids),
    )


def _single_label(arrays: Arrays) -> Arrays:
    """Of a file with 0 or 1 for each of several findings, the images of exactly one, labelled by
    it.
    """
    result = dict(arrays)
    for split in ("train", "val", "test"):
        findings = arrays.get(f"{split}_labels", np.zeros((0, 0)))
        if findings.ndim == 2 and findings.shape[1] > 1:
            rows = np.flatnonzero(findings.sum(1) == 1)
            result[f"{split}_images"] = arrays[f"{split}_images"][rows]
            result[f"{split}_labels"] = findings[rows].argmax(1)
    return result


def _download(url: str, path: Path, md5: str) -> None:
    try:
        download_url(url, path, hash_val=md5, hash_type="md5")
    except (OSError, RuntimeError, HashCheckError) as error:
        raise InputError(
            f"{path} does not exist and could not be downloaded ({said(error, path)}): "
            f"fetch {url} and put it there, or set data.root to its folder"
        ) from error


_VIEWS = {"axial": "organamnist", "coronal": "organcmnist", "sagittal": "organsmnist"}

#: The classes that the axial, coronal and sagittal views share, in the order in which they are
#: numbered.
_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

MEDMNIST: dict[str, MedMNIST] = {
    "pathmnist": MedMNIST(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        {
            28: "a8b06965200029087d5bd730944a56c1",
            64: "55aa9c1e0525abe5a6b9d8343a507616",
            128: "ac42d08fb904d92c244187169d1fd1d9",
            224: "2c51a510bcdc9cf8ddb2af93af1eadec",
        },
    ),
    "dermamnist": MedMNIST(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        {
            28: "0744692d530f8e62ec473284d019b0c7",
            64: "b70a2f5635c6199aeaa28c31d7202e1f",
            128: "2defd784463fa5243564e855ed717de1",
            224: "8974907d8e169bef5f5b96bc506ae45d",
        },
    ),
    "octmnist": MedMNIST(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        {
            28: "c68d92d5b585d8d81f7112f81e2d0842",
            64: "e229e9440236b774d9f0dfef9d07bdaf",
            128: "0a97e76651ace45c5d943ee3f65b63ae",
            224: "abc493b6d529d5de7569faaef2773ba3",
        },
    ),
    "pneumoniamnist": MedMNIST(
        ("normal", "pneumonia"),
        {
            28: "28209eda62fecd6e6a2d98b1501bb15f",
            64: "8f4eceb4ccffa70c672198ea285246c6",
            128: "05b46931834c231683c68f40c47b2971",
            224: "d6a3c71de1b945ea11211b03746c1fe1",
        },
    ),
    "retinamnist": MedMNIST(
        ("0", "1", "2", "3", "4"),
        {
            28: "bd4c0672f1bba3e3a89f0e4e876791e4",
            64: "afda852cc34dcda56f86ad2b2457dbcc",
            128: "e48e916a24454daf90583d4e6efb1a18",
            224: "eae7e3b6f3fcbda4ae613ebdcbe35348",
        },
    ),
    "breastmnist": MedMNIST(
        ("malignant", "normal, benign"),
        {
            28: "750601b1f35ba3300ea97c75c52ff8f6",
            64: "742edef2a1fd1524b2efff4bd7ba9364",
            128: "363e4b3f8d712e9b5de15470a2aaadf1",
            224: "b56378a6eefa9fed602bb16d192d4c8b",
        },
    ),
    "bloodmnist": MedMNIST(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        {
            28: "7053d0359d879ad8a5505303e11de1dc",
            64: "2b94928a2ae4916078ca51e05b6b800b",
            128: "adace1e0ed228fccda1f39692059dd4c",
            224: "b718ff6835fcbdb22ba9eacccd7b2601",
        },
    ),
    "tissuemnist": MedMNIST(
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        {
            28: "ebe78ee8b05294063de985d821c1c34b",
            64: "123ece2eba09d0aa5d698fda57103344",
            128: "61b955355d7425a89687b06cca3ce0c2",
            224: "b077128c4a949f0a4eb01517f9037b9c",
        },
    ),
    "organamnist": MedMNIST(
        _ORGANS,
        {
            28: "68e3f8846a6bd62f0c9bf841c0d9eacc",
            64: "2dcccc29b88e6da5a01161ef20cda288",
            128: "eeae80d0a227a8d099027e1b3cfd3b60",
            224: "50747347e05c87dd3aaf92c49f9f3170",
        },
    ),
    "organcmnist": MedMNIST(
        _ORGANS,
        {
            28: "b9ceb9546e10131b32923c5bbeaea2b1",
            64: "3ce34a8724ea6f548e6db4744d03b6a9",
            128: "773c1f009daa3fe5d9a2a201b2a7ed94",
            224: "050f5e875dc056f6768abf94ec9995d1",
        },
    ),
    "organsmnist": MedMNIST(
        _ORGANS,
        {
            28: "9ab87b696fb54e2a387ebe992d6ed5f1",
            64: "53a6d115339d874c25e309a994ff46d3",
            128: "ded0c5fa01a95dc4978b956f613e9b8e",
            224: "b354719e553fbbb2513d5533f52a4cb1",
        },
    ),
    "chestmnist": MedMNIST(
        (
            "Atelectasis",
            "Cardiomegaly",
            "Effusion",
            "Infiltration",
            "Mass",
            "Nodule",
            "Pneumonia",
            "Pneumothorax",
            "Consolidation",
            "Edema",
            "Emphysema",
            "Fibrosis",
            "Pleural_Thickening",
            "Hernia",
        ),
        {
            28: "02c8a6516a18b556561a56cbdd36c4a8",
            64: "9de6cd0b934ebb5b7426cfba5efbae16",
            128: "db107e5590b27930b62dbaf558aebee3",
            224: "45bd33e6f06c3e8cdb481c74a89152aa",
        },
    ),
    "organmnist3d": MedMNIST(
        (
            "liver",
            "kidney-right",
            "kidney-left",
            "femur-right",
            "femur-left",
            "bladder",
            "heart",
            "lung-right",
            "lung-left",
            "spleen",
            "pancreas",
        ),
        {
            28: "a0c5a1ff56af4f155c46d46fbb45a2fe",
            64: "58a2205adf14a9d0a189cb06dc78bf10",
        },
        spatial_dims=3,
    ),
    "nodulemnist3d": MedMNIST(
        ("benign", "malignant"),
        {
            28: "8755a7e9e05a4d9ce80a24c3e7a256f3",
            64: "c47c5b7d457bf6332200d2ea6d64ecd8",
        },
        spatial_dims=3,
    ),
    "adrenalmnist3d": MedMNIST(
        ("normal", "hyperplasia"),
        {
            28: "bbd3c5a5576322bc4cdfea780653b1ce",
            64: "17721accfe9fb005146a47d33bc54b2f",
        },
        spatial_dims=3,
    ),
    "fracturemnist3d": MedMNIST(
        ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
        {
            28: "6aa7b0143a6b42da40027a9dda61302f",
            64: "f01d7e6316aedf4210da0da5b7437b42",
        },
        spatial_dims=3,
    ),
    "vesselmnist3d": MedMNIST(
        ("vessel", "aneurysm"),
        {
            28: "b41fd4f7e7e2feedddb201585ecafa1b",
            64: "6bb274a8846e1097066dcd64e2c4520f",
        },
        spatial_dims=3,
    ),
    "synapsemnist3d": MedMNIST(
        ("inhibitory synapse", "excitatory synapse"),
        {
            28: "1235b78a3cd6280881dd7850a78eadb6",
            64: "43bd14ebf3af9d3dd072446fedc14d5e",
        },
        spatial_dims=3,
    ),
}
