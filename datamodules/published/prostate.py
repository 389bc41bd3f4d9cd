"""Prostate in T2-weighted MR of six sites, as SAML (Liu et al., MICCAI 2020) hands them out."""

from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.published.common import PublishedConfig, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.walk import image_files
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Some sites tell zones apart, which are all prostate.
_VALUES = {0: None, "1-255": "prostate"}
_ENDING, _MASK = ".nii.gz", "_segmentation.nii.gz"


@dataclass
class ProstateConfig(PublishedConfig):
    """Prostate in MR: train on one of BIDMC, BMC, HK, I2CVB, RUNMC and UCL, test on others."""

    root: str = option("data/prostate", "folder of the sites' folders")


def load_prostate(config: ProstateConfig, split: Split) -> ImageSet:
    """Read a split; a site's folder has CaseNN.nii.gz and CaseNN_segmentation.nii.gz."""
    root = folder(config.root)
    files = image_files(root)
    masks = {file.lower(): file for file in files if file.lower().endswith(_MASK)}
    cases = [file for file in files if file not in masks.values() and "/" in file]
    cases = [file for file in cases if file.endswith(_ENDING)]
    if not cases:
        raise InputError(
            f"expected SITE/CaseNN.nii.gz in {root}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    empty = repeated("", len(cases))
    found = [masks.get(file.lower().removesuffix(_ENDING) + _MASK, "") for file in cases]
    records = Records(
        origin=root,
        root=root,
        paths=text(cases),
        labels=empty,
        domains=text(file.split("/")[0] for file in cases),
        groups=empty,
        masks=MaskPaths(text(found)[:, None]),
        values=values_of(_VALUES),
    )
    return published(records, config, split)
