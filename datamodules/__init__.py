"""Where images come from, how they are shifted, and in which order they arrive."""

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.datamodules.channels import with_channels
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.fields import load_fields
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.images import ImageSet, NoImages, Split
from holdfast.datamodules.medmnist import (
    MedMNISTConfig,
    OrganViewsConfig,
    load_medmnist,
    load_organ_views,
)
from holdfast.datamodules.nnunet import NnunetConfig, load_nnunet
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.phantom import PhantomConfig, load_phantom
from holdfast.datamodules.published.brats import BratsConfig, load_brats
from holdfast.datamodules.published.camelyon17 import Camelyon17Config, load_camelyon17
from holdfast.datamodules.published.chestxray14 import ChestXray14Config, load_chestxray14
from holdfast.datamodules.published.chexpert import CheXpertConfig, load_chexpert
from holdfast.datamodules.published.fundus import FundusConfig, load_fundus
from holdfast.datamodules.published.glioma import GliomaConfig, load_glioma
from holdfast.datamodules.published.histopantum import HistopantumConfig, load_histopantum
from holdfast.datamodules.published.imagenet_c import ImageNetCConfig, load_imagenet_c
from holdfast.datamodules.published.isic import IsicConfig, load_isic
from holdfast.datamodules.published.mammobench import MammoBenchConfig, load_mammobench
from holdfast.datamodules.published.mnms import MnmsConfig, load_mnms
from holdfast.datamodules.published.nct_crc import NctCrcConfig, load_nct_crc
from holdfast.datamodules.published.padchest import PadChestConfig, load_padchest
from holdfast.datamodules.published.polyps import PolypsConfig, load_polyps
from holdfast.datamodules.published.prostate import ProstateConfig, load_prostate
from holdfast.datamodules.published.scgm import ScgmConfig, load_scgm
from holdfast.datamodules.records import Unusable
from holdfast.datamodules.shifts import SHIFTS, Shift, create_shift
from holdfast.datamodules.streams import STREAMS, Stream, StreamLoader, create_stream, stream_order
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.datamodules.targets import kind_of
from holdfast.datamodules.watch import WatchConfig, load_watch

__all__ = [
    "DATA",
    "SHIFTS",
    "STREAMS",
    "UNLABELLED",
    "ImageSet",
    "Shift",
    "Split",
    "Stream",
    "StreamLoader",
    "create_shift",
    "create_stream",
    "load_images",
    "load_splits",
    "stream_order",
]

#: The phantom's loaders by the key of what is known of an image.
_PHANTOMS = {"label": load_phantom, "mask": load_fields, "findings": load_fields}

_LOADERS: dict[str, tuple[type, Callable[[Any, Split], ImageSet]]] = {
    "phantom": (
        PhantomConfig,
        lambda config, split: _PHANTOMS[kind_of(config.task).key](config, split),
    ),
    "npz": (NpzConfig, load_npz),
    "nnunet": (NnunetConfig, load_nnunet),
    "medmnist": (MedMNISTConfig, load_medmnist),
    "folder": (FolderConfig, load_folder),
    "table": (TableConfig, load_table),
    "watch": (WatchConfig, load_watch),
    "organ_views": (OrganViewsConfig, load_organ_views),
    "camelyon17": (Camelyon17Config, load_camelyon17),
    "histopantum": (HistopantumConfig, load_histopantum),
    "mammobench": (MammoBenchConfig, load_mammobench),
    "glioma": (GliomaConfig, load_glioma),
    "imagenet_c": (ImageNetCConfig, load_imagenet_c),
    "isic": (IsicConfig, load_isic),
    "chestxray14": (ChestXray14Config, load_chestxray14),
    "chexpert": (CheXpertConfig, load_chexpert),
    "padchest": (PadChestConfig, load_padchest),
    "polyps": (PolypsConfig, load_polyps),
    "fundus": (FundusConfig, load_fundus),
    "prostate": (ProstateConfig, load_prostate),
    "scgm": (ScgmConfig, load_scgm),
    "brats": (BratsConfig, load_brats),
    "mnms": (MnmsConfig, load_mnms),
    "nct_crc": (NctCrcConfig, load_nct_crc),
}

#: Data sets by name, with the dataclass of their options.
DATA: dict[str, type] = {name: config for name, (config, _) in _LOADERS.items()}


def load_images(kind: str, config: Any, split: Split) -> ImageSet:
    """The images of a split of the data set ``kind``, with the channels that are asked for."""
    return with_channels(_LOADERS[kind][1](config, split), config.channels)


def load_splits(
    kind: str, config: Any, splits: Sequence[Split], optional: Sequence[Split] = ()
) -> dict[Split, ImageSet]:
    """The images of several splits; files that cannot be used are told of all of them at once.

    Args:
        kind: of the data set.
        config: its options.
        splits: which.
        optional: those that are left out where they have no images.

    Raises:
        InputError: a split has no images, or files cannot be used.
    """
    found: dict[Split, ImageSet] = {}
    unusable: list[Unusable] = []
    total = 0
    for split in splits:
        try:
            images = load_images(kind, config, split)
        except Unusable as error:
            unusable.append(error)
            total += error.total
        except NoImages:
            if split not in optional:
                raise
        else:
            total += len(images) + len(images.skipped)
            if len(images) or split not in optional:
                found[split] = images
    if unusable:
        raise Unusable(
            total,
            {name: reason for error in unusable for name, reason in error.reasons.items()},
        )
    return found
