"""CheXpert (Irvin et al., AAAI 2019): thirteen findings, some uncertain; views are domains."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.findings import from_columns
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, text
from holdfast.datamodules.splits import cut
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Columns of the tables by torchxrayvision's name of the finding.
FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Fracture": "Fracture",
    "Lung Lesion": "Lung Lesion",
    "Lung Opacity": "Lung Opacity",
    "Effusion": "Pleural Effusion",
    "Pleural Other": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Support Devices": "Support Devices",
}
#: Says that there is no pathology; devices it does not speak of.
_NONE, _DEVICES = "No Finding", "Support Devices"
_TABLES = {"train": "train.csv", "test": "valid.csv"}


@dataclass
class CheXpertConfig(PublishedConfig):
    """CheXpert, thirteen findings: train on one view (PA, AP or L), test on another."""

    root: str = option("data/CheXpert-v1.0-small", "folder of train.csv, valid.csv and the images")
    findings: list[str] | None = option(None, "findings that count; null: all thirteen")
    unmentioned: Literal["ignore", "zeros"] = option(
        "zeros", "what a finding is that a report does not mention: zeros, absent, or ignore"
    )


def load_chexpert(config: CheXpertConfig, split: Split) -> ImageSet:
    """Read a split: train.csv is cut between patients, for a view's are seen in others too; all of
    valid.csv is test.
    """
    root = folder(config.root)
    names = _wanted(config.findings)
    used = [FINDINGS[name] for name in names]
    wanted = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", _NONE, *used]
    tables = {part: columns(root, [name], wanted) for part, name in _TABLES.items()}
    table = {name: np.concatenate([part[name] for part in tables.values()]) for name in wanted}
    paths = text(_below(path, root) for path in table["Path"].tolist())
    patients = text(_patient(path) for path in paths.tolist())
    count = len(tables["train"]["Path"])
    splits = text(["test"] * len(paths))
    splits[:count] = cut(patients[:count], config.shares or [0.8, 0.1, 0.1], config.seed)
    findings = from_columns(
        [_cleared(table, name) for name in used],
        names,
        root / _TABLES["train"],
        config.uncertain,
        config.unmentioned,
    )
    frontal = table["Frontal/Lateral"] == "Frontal"
    records = Records(
        origin=root / _TABLES["train"],
        root=root,
        paths=paths,
        labels=text([""] * len(paths)),
        domains=np.where(frontal, table["AP/PA"], "L").astype(np.dtypes.StringDType()),
        groups=patients,
        splits=splits,
        findings=findings,
        metadata={
            "age": table["Age"],
            "sex": table["Sex"],
            "labelled_by": text(
                "report" if row < count else "radiologists" for row in range(len(paths))
            ),
        },
    )
    return published(records, config, split)


def _wanted(names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in FINDINGS:
            raise InputError(
                f"data.findings names {name!r}, which CheXpert has not: {closest(name, FINDINGS)}"
            )
    return list(names or FINDINGS)


def _below(path: str, root: Path) -> str:
    """A path as written, from the folder of the tables: the tables begin with the set's name."""
    first, _, rest = path.partition("/")
    return rest if first.startswith("CheXpert") or first == root.name else path


def _patient(path: str) -> str:
    found = re.search(r"patient\d+", path)
    return found[0] if found else path


def _cleared(table: dict[str, Strings], name: str) -> Strings:
    """A column, with 0 where the report says that there is no finding."""
    values = table[name].copy()
    if name != _DEVICES:
        healthy = (table[_NONE] == "1.0") | (table[_NONE] == "1")
        values[healthy] = "0"
    return values
