"""Gliomas in contrast-enhanced T1 MR of three cohorts, by the molecular classes of WHO 2021;
volumes.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, text
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

CLASSES = ("glioblastoma", "astrocytoma", "oligodendroglioma")
_log = logging.getLogger(__name__)


class _Case(NamedTuple):
    name: str
    path: str
    roi: str
    label: str


@dataclass
class GliomaConfig(PublishedConfig):
    """Glioma MR about the tumour, three classes: train on two of the cohorts erasmus, tcga and
    ucsf, test on the third.
    """

    root: str = option("data/GliomaMRI/Brain-Glioma-Datasets", "folder of the cohorts' folders")
    target: str | list[str] | None = option(
        "erasmus", "cohort that is left out: erasmus, tcga or ucsf"
    )


def load_glioma(config: GliomaConfig, split: Split) -> ImageSet:
    """Read a split; cases without a known class, or without a volume, are left out."""
    root = folder(config.root)
    cases: list[tuple[str, _Case]] = []
    for cohort, read in {"erasmus": _erasmus, "tcga": _tcga, "ucsf": _ucsf}.items():
        listed = {case.path: case for case in read(folder(root, cohort)) if case.label}
        here = [case for case in listed.values() if (root / cohort / case.path).is_file()]
        if len(here) < len(listed):
            _log.warning(
                "%s: %d of %d cases have no volume and are left out",
                cohort,
                len(listed) - len(here),
                len(listed),
            )
        if not here:
            example = next(iter(listed), "(no case of a known class)")
            raise InputError(
                f"{root / cohort} has no volume of its clinical table: expected files such as "
                f"{example}"
            )
        cases += [(cohort, case) for case in here]
    records = Records(
        origin=root,
        root=root,
        paths=text(f"{cohort}/{case.path}" for cohort, case in cases),
        labels=text(case.label for _, case in cases),
        domains=text(cohort for cohort, _ in cases),
        groups=text(f"{cohort}:{case.name}" for cohort, case in cases),
        class_names=CLASSES,
        rois=text(f"{cohort}/{case.roi}" for cohort, case in cases),
    )
    return published(records, config, split)


def _erasmus(root: Path) -> Iterator[_Case]:
    """The Erasmus Glioma Database: genes."""
    table = columns(root, ["phenoData.csv"], ["Subject", "IDH", "1p19q"])
    genes = {
        ("0", "0"): 0,
        ("0", "1"): 0,
        ("0", "-1"): 0,
        ("0", ""): 0,
        ("1", "0"): 1,
        ("1", "1"): 2,
    }
    for name, idh, codeleted in zip(
        *(table[key].tolist() for key in ("Subject", "IDH", "1p19q")), strict=True
    ):
        number = genes.get((idh.split(".")[0], codeleted.split(".")[0]))
        yield _Case(
            name,
            _sri(name, "t1c"),
            _sri(name, "tumormask"),
            "" if number is None else CLASSES[number],
        )


def _tcga(root: Path) -> Iterator[_Case]:
    """TCGA-GBM and TCGA-LGG: diagnoses in words."""
    for file in ("clinical-hgg.tsv", "clinical-lgg.tsv"):
        table = columns(root, [file], ["case_submitter_id", "primary_diagnosis"])
        for name, diagnosis in zip(
            table["case_submitter_id"].tolist(), table["primary_diagnosis"].tolist(), strict=True
        ):
            label = next((label for label in CLASSES if diagnosis.lower().startswith(label)), "")
            yield _Case(name.lower(), _sri(name.lower(), "t1c"), _sri(name.lower(), "seg"), label)


def _ucsf(root: Path) -> Iterator[_Case]:
    """UCSF-PDGM: diagnoses in words; follow-ups show a patient again and are left out."""
    diagnosis = "Final pathologic diagnosis (WHO 2021)"
    table = columns(root, ["UCSF-PDGM-metadata_v5.csv"], ["ID", diagnosis])
    known = {
        "Glioblastoma, IDH-wildtype": CLASSES[0],
        "Astrocytoma, IDH-mutant": CLASSES[1],
        "Oligodendroglioma, IDH-mutant, 1p/19q-codeleted": CLASSES[2],
    }
    for name, words in zip(table["ID"].tolist(), table[diagnosis].tolist(), strict=True):
        match = re.fullmatch(r"UCSF-PDGM-(\d+)", name)
        if match:
            case = (
                f"UCSF-PDGM-{int(match[1]):04d}"  # the table writes three digits, the folders four
            )
            roi = f"{case}_nifti/{case}_tumor_segmentation.nii.gz"
            yield _Case(case, f"{case}_nifti/{case}_T1c.nii.gz", roi, known.get(words, ""))


def _sri(name: str, kind: str) -> str:
    return f"{name}/preop/sub-{name}_ses-preop_space-sri_{kind}.nii.gz"
