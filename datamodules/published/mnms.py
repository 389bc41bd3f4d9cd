"""M&Ms (Campello et al., IEEE TMI 2021): the heart in cine MR of four vendors, at two phases."""

from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.walk import image_files
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: The table, as it is called in one release or another.
_TABLES = (
    "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv",
    "201014_M&Ms_Dataset_Information_-_opendataset.csv",
)
_VALUES = {0: None, 1: "LV", 2: "MYO", 3: "RV"}
#: Columns that hold the number of a frame.
_PHASES = ("ED", "ES")


@dataclass
class MnmsConfig(PublishedConfig):
    """M&Ms, left ventricle, myocardium and right ventricle at two phases: train on one vendor, test
    on others (A, B, C, D).
    """

    root: str = option(
        "data/mnms", "folder of the table and of the patients' folders, at any depth"
    )


def load_mnms(config: MnmsConfig, split: Split) -> ImageSet:
    """Read a split; each patient has a volume at the end of diastole, and one of systole."""
    root = folder(config.root)
    wanted = ["External code", "Vendor", "Centre", *_PHASES]
    table = columns(root, _TABLES, wanted)
    place = {path.rsplit("/", 1)[-1]: path for path in image_files(root)}
    rows = [
        (row, phase)
        for row, code in enumerate(table["External code"].tolist())
        for phase in _PHASES
        if f"{code}_sa.nii.gz" in place and table[phase][row].isdecimal()
    ]
    if not rows:
        raise InputError(
            f"{root} has no CODE_sa.nii.gz of its table: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    codes = [table["External code"][row] for row, _ in rows]
    frames = [f"@{table[phase][row]}" for row, phase in rows]
    masks = [place.get(f"{code}_sa_gt.nii.gz", "") for code in codes]
    pick = [row for row, _ in rows]
    records = Records(
        origin=root / _TABLES[0],
        root=root,
        paths=text(
            place[f"{code}_sa.nii.gz"] + frame for code, frame in zip(codes, frames, strict=True)
        ),
        labels=repeated("", len(rows)),
        domains=table["Vendor"][pick],
        groups=text(codes),
        masks=MaskPaths(
            text(mask and mask + frame for mask, frame in zip(masks, frames, strict=True))[:, None]
        ),
        values=values_of(_VALUES),
        metadata={"centre": table["Centre"][pick], "phase": text(phase for _, phase in rows)},
    )
    return published(records, config, split)
