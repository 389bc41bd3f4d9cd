"""ChestX-ray14 (Wang et al., CVPR 2017): fourteen findings, or the radiographs that show a single
one or none, with the official test list.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.findings import Findings, from_lists
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.settings import AUTO
from holdfast.datamodules.splits import cut
from holdfast.datamodules.targets import LabelTarget, kind_of
from holdfast.datamodules.walk import image_files
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_log = logging.getLogger(__name__)
#: The findings, in the order of torchxrayvision's reader, whose names they are.
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")


@dataclass
class ChestXray14Config(PublishedConfig):
    """ChestX-ray14, fourteen findings, or images of one finding or none (data.task=single): train
    on one view, PA or AP, test on another.
    """

    root: str = option(
        "data/chestxray14", "folder of the table, the two lists and the images' folders"
    )
    findings: list[str] | None = option(
        None,
        "findings that count, null: all fourteen; with data.task=single classes, e.g. "
        "[No Finding,Effusion], null: all that occur alone",
    )


def load_chestxray14(config: ChestXray14Config, split: Split) -> ImageSet:
    """Read a split: test is the official list's, train and val are cut from the other between
    patients.
    """
    root = folder(config.root)
    wanted = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position"]
    table = columns(root, _TABLES, wanted)
    written = table["Finding Labels"]
    found: Findings | None = None
    if config.task != AUTO and kind_of(config.task) is LabelTarget:
        rows, classes = _single(written.tolist(), config.findings)
    else:
        rows, classes = np.arange(len(written)), None
        found = from_lists(written, root / _TABLES[0], _wanted(config.findings), rare=True)
    names = table["Image Index"][rows].tolist()
    place = {path.rsplit("/", 1)[-1]: path for path in image_files(root)}
    patients = table["Patient ID"][rows]
    splits = _splits(root, names, patients, config)
    kept = splits != ""
    records = Records(
        origin=root / "Data_Entry_2017.csv",
        root=root,
        paths=text(place.get(name, name) for name in names)[kept],
        labels=written[rows][kept] if found is None else repeated("", int(kept.sum())),
        domains=table["View Position"][rows][kept],
        groups=patients[kept],
        splits=splits[kept],
        class_names=classes,
        findings=None if found is None else replace(found, values=found.values[kept]),
        metadata={
            "age": text(age.rstrip("Y").lstrip("0") for age in table["Patient Age"][rows].tolist())[
                kept
            ],
            "sex": next(table[name] for name in ("Patient Gender", "Patient Sex") if name in table)[
                rows
            ][kept],
        },
    )
    return published(records, config, split)


def _splits(
    root: Path, names: Sequence[str], patients: Strings, config: ChestXray14Config
) -> Strings:
    """The split of each image; empty where it is on neither of the official lists."""
    lists = {}
    for name in ("train_val", "test"):
        path = root / f"{name}_list.txt"
        if not path.is_file():
            raise InputError(
                f"expected {path.name} in {root}: it comes with the images, and says what is for "
                "training"
            )
        lists[name] = set(path.read_text().split())
    share = (config.shares or [0.8, 0.1, 0.1])[1]
    splits = cut(patients, (1 - share - 1e-9, share, 1e-9), config.seed)
    # cut gives every split a group; the official list alone says what is for testing.
    splits[splits == "test"] = "train"
    splits[np.array([name not in lists["train_val"] for name in names])] = ""
    splits[np.array([name in lists["test"] for name in names])] = "test"
    return splits


def _wanted(names: list[str] | None) -> list[str]:
    """The findings that count."""
    for name in names or ():
        if name not in FINDINGS:
            single = ", or of data.task=single" if name == "No Finding" else ""
            raise InputError(
                f"data.findings names {name!r}, which is none of the fourteen{single}: "
                f"{closest(name, FINDINGS)}"
            )
    return list(names or FINDINGS)


def _single(
    labels: list[str], wanted: list[str] | None
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], tuple[str, ...]]:
    """Rows of a single finding, and the classes."""
    known = sorted({label for label in labels if "|" not in label})
    for name in wanted or ():
        if name not in known:
            raise InputError(
                f"data.findings names {name!r}, which never occurs alone: {closest(name, known)}"
            )
    classes = tuple(wanted or known)
    rows = np.array([row for row, label in enumerate(labels) if label in classes], dtype=np.int64)
    _log.info(
        "%d of %d radiographs show one of the classes alone; the others are left out",
        len(rows),
        len(labels),
    )
    return rows, classes
