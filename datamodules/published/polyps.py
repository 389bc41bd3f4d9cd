"""Polyps in colonoscopy, as PraNet (Fan et al., MICCAI 2020) hands them out: train on one mixture,
test on five sets.
"""

from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.published.common import (
    PublishedConfig,
    folder,
    pair_folders,
    published,
)
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_TRAIN, _TEST = "TrainDataset", "TestDataset"
#: Masks are grey at edges, for some were JPEG; above half is polyp.
_VALUES = {"0-127": None, "128-255": "polyp"}


@dataclass
class PolypsConfig(PublishedConfig):
    """Polyps: train on TrainDataset (of Kvasir and CVC-ClinicDB), test on five sets."""

    root: str = option("data/polyps", "folder of TrainDataset and TestDataset")
    source: str | list[str] | None = option(_TRAIN, "set, or sets, to train on")


def load_polyps(config: PolypsConfig, split: Split) -> ImageSet:
    """Read a split; the sets below TestDataset are domains."""
    root = folder(config.root)
    domains = {_TRAIN: _TRAIN} if (root / _TRAIN).is_dir() else {}
    tests = sorted(path.name for path in folder(root, _TEST).iterdir() if path.is_dir())
    domains |= {name: f"{_TEST}/{name}" for name in tests}
    if len(domains) < 2:
        raise InputError(
            f"expected {_TRAIN} and {_TEST}/SET in {root}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    return published(pair_folders(root, domains, values_of(_VALUES)), config, split)
