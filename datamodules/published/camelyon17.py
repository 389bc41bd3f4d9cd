"""Camelyon17 as WILDS released it (Koh et al., ICML 2021): lymph-node patches of five hospitals."""

from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, text
from holdfast.tta.options import option

_COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center")


@dataclass
class Camelyon17Config(PublishedConfig):
    """WILDS Camelyon17: train on one of five hospitals, hospital_1 to hospital_5, test on the four
    others.
    """

    root: str = option("data/camelyon17_v1.0", "folder of metadata.csv and patches/")
    source: str | list[str] | None = option("hospital_1", "hospital, or hospitals, to train on")


def load_camelyon17(config: Camelyon17Config, split: Split) -> ImageSet:
    """Read a split; source splits are cut between patients.

    WILDS counts its centers from 0: hospital_1 is center 0.
    """
    root = folder(config.root)
    table = columns(root, ["metadata.csv"], _COLUMNS)
    patch = zip(
        *(table[name].tolist() for name in ("patient", "node", "x_coord", "y_coord")), strict=True
    )
    records = Records(
        origin=root / "metadata.csv",
        root=root,
        paths=text(
            f"patches/patient_{p.zfill(3)}_node_{n}/patch_patient_{p.zfill(3)}_node_{n}_x_{x}_y_{y}.png"
            for p, n, x, y in patch
        ),
        labels=table["tumor"],
        domains=text(f"hospital_{int(center) + 1}" for center in table["center"].tolist()),
        groups=text(f"patient_{patient}" for patient in table["patient"].tolist()),
        class_names=("normal", "tumor"),
        metadata={"slide": table["slide"]},
    )
    return published(records, config, split)
