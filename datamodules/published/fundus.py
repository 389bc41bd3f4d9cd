"""Optic disc and cup in fundus photographs of several sites, by tables or by folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import Values, values_of
from holdfast.datamodules.published.common import (
    PublishedConfig,
    folder,
    pair_folders,
    published,
)
from holdfast.datamodules.records import Records, repeated, text
from holdfast.datamodules.table import read_table
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Masks of Drishti-GS, ORIGA, REFUGE and RIM-ONE as VPTTA hands them out: white outside, black cup.
_DARK = {255: None, "1-254": "disc", 0: "cup"}
#: Masks of RIGA+: black outside, grey cup.
_BRIGHT = {0: None, "129-255": "disc", "1-128": "cup"}
_PARTS = ("_train", "_test")


@dataclass
class FundusConfig(PublishedConfig):
    """Optic disc and cup: train on one site, test on others; sites are tables SITE_train.csv and
    SITE_test.csv of columns image and mask (RIGA+), or folders SITE with images and masks.
    """

    root: str = option("data/fundus", "folder of the tables, or of the sites' folders")
    bright: bool = option(
        False, "masks are black outside of the disc (RIGA+), and not white; data.labels overrides"
    )
    rater: int = option(
        1, "whose mask is taken where a table's is a TIFF: NAME-1.tif to NAME-6.tif"
    )


def load_fundus(config: FundusConfig, split: Split) -> ImageSet:
    """Read a split; all images of a site, of both its tables, are its domain."""
    root = folder(config.root)
    values = values_of(_BRIGHT if config.bright else _DARK)
    tables = sorted(path for path in root.glob("*.csv") if path.stem.endswith(_PARTS))
    if tables:
        return published(_from_tables(root, tables, values, config.rater), config, split)
    sites = sorted(path.name for path in root.iterdir() if path.is_dir())
    if not sites:
        raise InputError(
            f"expected SITE_train.csv, or folders SITE/images and SITE/masks in {root}: set "
            "data.root (docs/howto/data.md has the layout)"
        )
    return published(pair_folders(root, {name: name for name in sites}, values), config, split)


def _from_tables(root: Path, tables: list[Path], values: Values, rater: int) -> Records:
    images, masks, sites = [], [], []
    for table in tables:
        columns = read_table(table)
        for name in ("image", "mask"):
            if name not in columns:
                raise InputError(f"{table} has no column {name!r}: {closest(name, columns)}")
        images += columns["image"].tolist()
        masks += [_rated(mask, rater) for mask in columns["mask"].tolist()]
        site = table.stem
        for part in _PARTS:
            site = site.removesuffix(part)
        sites += [site] * len(columns["image"])
    kept = np.unique(np.array(images), return_index=True)[1]  # one that both tables name, once
    kept.sort()
    empty = repeated("", len(kept))
    return Records(
        origin=root,
        root=root,
        paths=text(images)[kept],
        labels=empty,
        domains=text(sites)[kept],
        groups=empty,
        masks=MaskPaths(text(masks)[kept][:, None]),
        values=values,
    )


def _rated(mask: str, rater: int) -> str:
    stem = mask.removesuffix(".tif")
    return mask if stem == mask else f"{stem}-{rater}.tif"
