"""Grey and white matter of the spinal cord in MR of four sites (Prados et al., NeuroImage 2017)."""

import re
from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.published.common import PublishedConfig, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.walk import image_files
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_VALUES = {0: None, 1: "grey matter", 2: "white matter"}
_IMAGE = re.compile(r"((site\d+)-sc\d+)-image\.nii(\.gz)?")
_RATERS = 4


@dataclass
class ScgmConfig(PublishedConfig):
    """Spinal cord grey matter challenge: train on one of four sites (site1 to site4), test on
    others.
    """

    root: str = option("data/scgm", "folder of the images and masks, at any depth")
    rater: int = option(1, "whose masks are taken, 1 to 4")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rater <= _RATERS:
            raise InputError(f"data.rater={self.rater} must be 1 to {_RATERS}")


def load_scgm(config: ScgmConfig, split: Split) -> ImageSet:
    """Read a split; images without a mask, those of the challenge's test, are unlabelled."""
    root = folder(config.root)
    files = {file.rsplit("/", 1)[-1]: file for file in image_files(root)}
    cases = [match for match in map(_IMAGE.fullmatch, files) if match]
    if not cases:
        raise InputError(
            f"expected site1-sc01-image.nii.gz in {root}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    masks = [f"{case[1]}-mask-r{config.rater}.nii{case[3] or ''}" for case in cases]
    records = Records(
        origin=root,
        root=root,
        paths=text(files[case[0]] for case in cases),
        labels=repeated("", len(cases)),
        domains=text(case[2] for case in cases),
        groups=text(case[1] for case in cases),
        masks=MaskPaths(text(files.get(mask, "") for mask in masks)[:, None]),
        values=values_of(_VALUES),
    )
    return published(records, config, split)
