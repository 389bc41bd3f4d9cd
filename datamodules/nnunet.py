"""nnU-Net's raw layout (version 2): for each case a file of each channel, and a map of classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths, decode_mask
from holdfast.datamodules.maskvalues import BACKGROUND, IGNORE, Values, values_of
from holdfast.datamodules.records import Records, images_of, repeated, text
from holdfast.datamodules.settings import FilesConfig
from holdfast.tta.config import closest
from holdfast.tta.entry import read_json
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_FILE = "dataset.json"
_KEYS = ("channel_names", "labels", "file_ending")
#: What nnU-Net calls channels whose values have a unit, which all images share.
_CT = ("ct",)
#: Endings of pictures, which span their type; one may hold the three colours that are its channels.
_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg")
_COLOURS = 3
#: Cases whose foreground says what a CT's window may be, and the shares of it that nnU-Net clips.
_LOOKED_AT, _CLIPPED = 16, (0.5, 99.5)


@dataclass
class NnunetConfig(FilesConfig):
    """nnU-Net's raw layout: dataset.json, imagesTr, labelsTr, and where there is one imagesTs."""

    root: str | None = option(None, "folder of the data set, DatasetNNN_Name")
    target: str | None = option(
        None, "folder of another data set of this layout as the target; null: imagesTs of data.root"
    )
    domain: str | None = option(None, "what the images' domain is called; null: the folder's name")
    shares: list[float] | None = option(
        [0.7, 0.15, 0.15], "[train,val,test] shares of imagesTr, cut between cases"
    )


def load_nnunet(config: NnunetConfig, split: Split) -> ImageSet:
    """Read a split: train, val and test are cut from imagesTr, the target is imagesTs, or where
    there is none the cut's test; of another folder all its cases.

    Raises:
        InputError: no such folder, a dataset.json that says too little, or what ``images_of``
            raises.
    """
    if config.root is None:
        raise InputError("data.root is missing: name the folder, data.root=DatasetNNN_Name")
    elsewhere = split == "target" and config.target is not None
    root = Path(str(config.target if elsewhere else config.root)).expanduser()
    about = _about(root)
    if split != "target" or elsewhere:
        folders = ("imagesTr", "imagesTs") if elsewhere else ("imagesTr",)
        records = _records(root, about, folders, config)
        if elsewhere:  # all its cases are the stream
            records = _replaced(records, splits=repeated("", len(records.paths)))
        return images_of(records, _windowed(config, about, records), split)
    parts = [name for name in ("imagesTs", "imagesTr") if (root / name).is_dir()]
    records = _records(root, about, tuple(parts[:1]), config)
    if parts[:1] == ["imagesTs"]:
        records = _replaced(records, splits=repeated("", len(records.paths)))
    return images_of(records, _windowed(config, about, records), split)


@dataclass(frozen=True)
class _About:
    """What dataset.json says.

    Attributes:
        channels: their names, in order.
        values: of the maps.
        ending: of the files.
        notes: what was made of it, a few words each.
    """

    channels: tuple[str, ...]
    values: Values
    ending: str
    notes: tuple[str, ...] = ()


def _about(root: Path) -> _About:
    path = root / _FILE
    if not path.is_file():
        raise InputError(f"expected {_FILE} in {root}: name the folder of nnU-Net's raw data set")
    found = read_json(path)
    for key in _KEYS:
        if key not in found:
            raise InputError(
                f"{path} has no key {key!r}: {closest(key, found)} (version 1 of nnU-Net calls "
                "channel_names modality)"
            )
    channels = found["channel_names"]
    names = tuple(str(channels[key]) for key in sorted(channels, key=int))
    values, notes = _values(found["labels"], found.get("regions_class_order"), path)
    return _About(names, values, str(found["file_ending"]), notes)


def _values(
    labels: Mapping[str, Any], order: Sequence[int] | None, path: Path
) -> tuple[Values, tuple[str, ...]]:
    """What the maps' values are; of regions, which overlap, the parts that make them up."""
    regions = {name: value for name, value in labels.items() if isinstance(value, list)}
    if not regions:
        meant = {int(value): None if name == BACKGROUND else name for name, value in labels.items()}
        return values_of(meant), ()
    if order is None:
        raise InputError(
            f"{path} has regions ({', '.join(regions)}) and no regions_class_order, which says "
            "which value each leaves in the maps"
        )
    named = [name for name in labels if name not in (BACKGROUND, IGNORE)]
    if len(named) != len(order):
        raise InputError(
            f"{path}: regions_class_order has {len(order)} values for {len(named)} regions"
        )
    meant = {int(value): name for name, value in zip(named, order, strict=True)}
    if isinstance(labels.get(IGNORE), int):
        meant[labels[IGNORE]] = IGNORE
    said_ = ", ".join(f"{value} {name}" for value, name in meant.items())
    note = f"regions overlap, and are read as the parts of the maps, each pixel one class ({said_})"
    return values_of(meant), (note,)


def _records(root: Path, about: _About, folders: Sequence[str], config: NnunetConfig) -> Records:
    found = [pair for name in folders for pair in _cases(root, name, about)]
    if not found:
        raise InputError(f"{root} has no cases in {' or '.join(folders)}: see docs/howto/data.md")
    paths = np.array([files for files, _ in found], dtype=np.dtypes.StringDType())
    masks = np.array([[mask] for _, mask in found], dtype=np.dtypes.StringDType())
    count = len(found)
    return Records(
        origin=root / _FILE,
        root=root,
        paths=text(paths[:, 0].tolist()),
        labels=repeated("", count),
        domains=repeated(config.domain or root.resolve().name, count),
        groups=repeated("", count),
        masks=MaskPaths(masks),
        values=about.values,
        ids=text(_case(files[0], about) for files, _ in found),
        further=paths[:, 1:] if paths.shape[1] > 1 else None,
        notes=about.notes,
    )


def _cases(root: Path, folder: str, about: _About) -> list[tuple[list[str], str]]:
    """Files of the channels, and of the map where there is one, of each case."""
    if not (root / folder).is_dir():
        return []
    found = _channels_found(root / folder, about)
    _check_channels(root / folder, found, about)
    labels = "labels" + folder.removeprefix("images")
    result = []
    for case, channels in found.items():
        files = [f"{folder}/{case}_{channel:04d}{about.ending}" for channel in sorted(channels)]
        mask = f"{labels}/{case}{about.ending}"
        result.append((files, mask if (root / mask).is_file() else ""))
    return result


def _channels_found(folder: Path, about: _About) -> dict[str, set[int]]:
    """Numbers of the channels that there are files of, by case.

    Raises:
        InputError: no file is called as one.
    """
    names = sorted(path.name for path in folder.iterdir())
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(about.ending)}")
    cases: dict[str, set[int]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            cases.setdefault(match[1], set()).add(int(match[2]))
    if not cases:
        raise InputError(
            f"{folder} has no file called CASE_0000{about.ending}, as {_FILE} says: "
            f"there are {', '.join(names[:3]) or 'none'}"
        )
    return cases


def _check_channels(folder: Path, cases: Mapping[str, set[int]], about: _About) -> None:
    """Refuse a case that lacks a channel, or has one too many.

    Raises:
        InputError: there is one.
    """
    wanted = set(range(len(about.channels)))
    colours = about.ending in _PICTURES and len(wanted) == _COLOURS
    if colours and set().union(*cases.values()) == {0}:
        wanted = {0}  # colours of one picture
    for case, channels in cases.items():
        if channels != wanted:
            missing = sorted(wanted - channels) or sorted(channels - wanted)
            raise InputError(
                f"{folder}: the case {case} has {len(channels)} of {len(wanted)} channels, "
                f"{case}_{missing[0]:04d}{about.ending} is missing or too many: complete it"
            )


def _case(path: str, about: _About) -> str:
    """The name of a case, by which nnU-Net calls its map: imagesTr/la_003_0000.nii.gz is la_003."""
    return path.rsplit("/", 1)[-1].removesuffix(about.ending)[: -len("_0000")]


def _replaced(records: Records, **changes: Any) -> Records:
    return Records(**{**records.__dict__, **changes})


def _windowed(config: NnunetConfig, about: _About, records: Records) -> NnunetConfig:
    """The options with MR and the like scaled image by image, as nnU-Net does; CT is refused
    without a window, and told which nnU-Net would take.
    """
    if config.window is not None or config.range is not None:
        return config
    if not any(name.lower() in _CT for name in about.channels):
        return config if about.ending in _PICTURES else _with_window(config)
    low, high = _foreground(records)
    raise InputError(
        f"{records.origin} has CT, of which some range is to be shown: set data.window=[LOW,HIGH]; "
        f"{_CLIPPED[0]:g} and {_CLIPPED[1]:g} % of its structures' voxels, which nnU-Net takes, "
        f"are [{low:.0f},{high:.0f}]"
    )


def _with_window(config: NnunetConfig) -> NnunetConfig:
    return type(config)(**{**config.__dict__, "window": "percentile"})


def _foreground(records: Records) -> tuple[float, float]:
    """The ends of the structures' values in some cases."""
    values = [np.zeros(0)]
    assert records.masks is not None
    rows = np.flatnonzero(records.masks.known)
    for row in rows[:: max(1, len(rows) // _LOOKED_AT)].tolist():
        try:
            image = decode(records.root / str(records.paths[row]))
            mask = decode_mask(str(records.root), str(records.masks.paths[row, 0]))
        except Unreadable:
            continue
        if mask.pixels.shape[:-1] == image.pixels.shape[:-1]:
            values.append(image.pixels[..., 0][mask.pixels[..., 0] > 0])
    found = np.concatenate(values)
    if not len(found):
        return -1000.0, 1000.0
    low, high = np.percentile(found, _CLIPPED)
    return float(low), float(high)
