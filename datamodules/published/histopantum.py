"""HISTOPANTUM (Zamanitajeddin et al., 2024): tumour and non-tumour patches of four organs."""

from dataclasses import dataclass, replace

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, class_folders, folder, published
from holdfast.datamodules.records import text
from holdfast.tta.options import option

ORGANS = ("colon", "ovarian", "stomach", "uterus")


@dataclass
class HistopantumConfig(PublishedConfig):
    """HISTOPANTUM: train on one of colon, ovarian, stomach and uterus, test on the others."""

    root: str = option("data/histopantume", "folder of the four organs' folders")
    source: str | list[str] | None = option("colon", "organ, or organs, to train on")


def load_histopantum(config: HistopantumConfig, split: Split) -> ImageSet:
    """Read a split; source splits are cut between TCGA cases, which the file names begin with."""
    records = class_folders(folder(config.root), ORGANS)
    names = [path.rsplit("/", 1)[1] for path in records.paths.tolist()]
    groups = text(
        "-".join(name.split("-")[:3]) if name.startswith("TCGA-") else "" for name in names
    )
    return published(replace(records, groups=groups), config, split)
