"""PadChest (Bustos et al., Medical Image Analysis 2020): findings of reports; views are domains."""

import ast
from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.findings import Findings
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, text
from holdfast.datamodules.splits import cut
from holdfast.datamodules.walk import image_files
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Words of PadChest's labels by torchxrayvision's name of the finding: of the label itself, or
#: within it, as laminar atelectasis has.
FINDINGS: dict[str, tuple[str, ...]] = {
    "Aortic Elongation": ("aortic elongation",),
    "Atelectasis": ("atelectasis",),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Costophrenic Angle Blunting": ("costophrenic angle blunting",),
    "Edema": ("pulmonary edema",),
    "Effusion": ("pleural effusion",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Fracture": ("fracture",),
    "Hernia": ("hernia",),
    "Infiltration": (
        *("infiltrates", "interstitial pattern", "ground glass pattern", "alveolar pattern"),
        *("reticulonodular interstitial pattern", "reticular interstitial pattern"),
    ),
    "Mass": ("mass",),
    "Nodule": ("nodule", "nodules"),
    "Pleural_Thickening": ("pleural thickening",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Scoliosis": ("scoliosis",),
    "Tuberculosis": ("tuberculosis",),
}
_TABLES = ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",)


@dataclass
class PadChestConfig(PublishedConfig):
    """PadChest, findings of chest radiographs: train on one projection (PA, AP, L, …), test on
    another; labels come from reports.
    """

    root: str = option("data/padchest", "folder of the table and of the images, at any depth")
    findings: list[str] | None = option(None, "findings that count; null: those that are mapped")


def load_padchest(config: PadChestConfig, split: Split) -> ImageSet:
    """Read a split; patients are cut whatever their projections, for the set has no splits of its
    own.
    """
    root = folder(config.root)
    wanted = ["ImageID", "PatientID", "Projection", "Labels"]
    table = columns(root, _TABLES, wanted)
    place = {path.rsplit("/", 1)[-1]: path for path in image_files(root)}
    rows = np.flatnonzero([name in place for name in table["ImageID"].tolist()])
    if not len(rows):
        raise InputError(
            f"{root} has none of the images that {_TABLES[0]} names, as {table['ImageID'][0]}: put "
            "them below it"
        )
    patients = table["PatientID"][rows]
    records = Records(
        origin=root / _TABLES[0],
        root=root,
        paths=text(place[name] for name in table["ImageID"][rows].tolist()),
        labels=text([""] * len(rows)),
        domains=table["Projection"][rows],
        groups=patients,
        splits=cut(patients, config.shares or [0.8, 0.1, 0.1], config.seed),
        findings=_findings(table["Labels"][rows], config.findings),
        metadata={
            called: table[name][rows]
            for name, called in {
                "PatientBirth": "birth",
                "PatientSex_DICOM": "sex",
                "Manufacturer_DICOM": "manufacturer",
                "MethodLabel": "labelled_by",
            }.items()
            if name in table
        },
    )
    return published(records, config, split)


def _findings(labels: Strings, names: list[str] | None) -> Findings:
    """Which findings the labels of a report, a list in Python's form, come to."""
    for name in names or ():
        if name not in FINDINGS:
            raise InputError(
                f"data.findings names {name!r}, which is not mapped: {closest(name, FINDINGS)}"
            )
    chosen = list(names or FINDINGS)
    written, of_row = np.unique(labels, return_inverse=True)
    table = np.full((len(written), len(chosen)), np.nan, np.float32)
    for row, words in enumerate(written.tolist()):
        said = _listed(str(words))
        if said is not None:
            table[row] = [float(_has(said, FINDINGS[name])) for name in chosen]
    return Findings(tuple(chosen), table[of_row])


def _listed(words: str) -> list[str] | None:
    """The labels of a report; None where there are none, which says nothing."""
    try:
        found = ast.literal_eval(words) if words.startswith("[") else None
    except (SyntaxError, ValueError):
        return None
    if not found:
        return None
    return [str(label).strip().lower() for label in found]


def _has(said: list[str], labels: tuple[str, ...]) -> bool:
    """Whether a label is one of these words, or ends or begins with them as words."""
    return any(f" {word} " in f" {label} " for label in said for word in labels)
