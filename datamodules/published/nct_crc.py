"""NCT-CRC-HE-100K and CRC-VAL-HE-7K (Kather et al., 2018): nine tissues of colorectal cancer, from
two centres.
"""

from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, class_folders, folder, published
from holdfast.tta.options import option

SETS = ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K")


@dataclass
class NctCrcConfig(PublishedConfig):
    """Colorectal tissue: train on NCT-CRC-HE-100K, test on CRC-VAL-HE-7K."""

    root: str = option("data", f"folder of {SETS[0]}/ and {SETS[1]}/")
    source: str | list[str] | None = option(SETS[0], "set to train on")


def load_nct_crc(config: NctCrcConfig, split: Split) -> ImageSet:
    """Read a split; the file names tell no patient, so source splits are cut between images."""
    return published(class_folders(folder(config.root), SETS), config, split)
