"""Brain tumours in MR, BraTS 2023: gliomas (GLI), of sub-Saharan Africa (SSA), children (PED)."""

import re
from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.published.common import PublishedConfig, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.walk import image_files
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

SEQUENCES = ("t1c", "t1n", "t2f", "t2w")
_VALUES = {0: None, 1: "necrosis", 2: "edema", 3: "enhancing"}
_FILE = re.compile(r"((BraTS-([A-Z]+)-\d+)-\d+)-(\w+)\.nii(\.gz)?")


@dataclass
class BratsConfig(PublishedConfig):
    """BraTS 2023, tumours in four sequences of MR: train on one cohort (GLI), test on another (SSA,
    PED, MEN, MET).
    """

    root: str = option("data/brats", "folder of the cases' folders, at any depth")
    sequences: list[str] = option(
        [*SEQUENCES], "channels of an image, of t1c, t1n, t2f and t2w, in this order"
    )


def load_brats(config: BratsConfig, split: Split) -> ImageSet:
    """Read a split; cohorts are domains, and a patient's examinations a group."""
    root = folder(config.root)
    for name in config.sequences or [""]:
        if name not in SEQUENCES:
            raise InputError(f"data.sequences names {name!r}: {closest(name, SEQUENCES)}")
    found: dict[str, dict[str, str]] = {}
    about: dict[str, tuple[str, str]] = {}
    for file in image_files(root):
        match = _FILE.fullmatch(file.rsplit("/", 1)[-1])
        if match:
            found.setdefault(match[1], {})[match[4]] = file
            about[match[1]] = (match[2], match[3])
    if not found:
        raise InputError(
            f"expected BraTS-GLI-00000-000-t1c.nii.gz and its like in {root}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    # A sequence that is not there is told of when the files are checked, by its name.
    paths = np.array(
        [
            [files.get(name, f"{case}-{name}.nii.gz") for name in config.sequences]
            for case, files in found.items()
        ],
        dtype=np.dtypes.StringDType(),
    )
    masks = text(files.get("seg", "") for files in found.values())
    records = Records(
        origin=root,
        root=root,
        paths=text(paths[:, 0].tolist()),
        labels=repeated("", len(found)),
        domains=text(cohort for _, cohort in about.values()),
        groups=text(patient for patient, _ in about.values()),
        masks=MaskPaths(masks[:, None]),
        values=values_of(_VALUES),
        further=paths[:, 1:] if paths.shape[1] > 1 else None,
        ids=text(found),
    )
    return published(records, config, split)
