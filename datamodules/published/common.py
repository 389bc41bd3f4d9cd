"""What the readers of published sets share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import Values
from holdfast.datamodules.pairs import paired
from holdfast.datamodules.records import Records, images_of, repeated, text
from holdfast.datamodules.settings import FilesConfig
from holdfast.datamodules.table import read_table
from holdfast.datamodules.walk import image_files
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.settings import TARGET


@dataclass
class PublishedConfig(FilesConfig):
    """A published set of several domains."""

    root: str = option("data", "folder of the set")
    source: str | list[str] | None = option(
        None, "domain, or domains, to train on; null: all but data.target"
    )
    target: str | list[str] | None = option(*TARGET)
    shares: list[float] | None = option(
        [0.8, 0.1, 0.1], "[train,val,test] shares of the source, cut between groups"
    )


def published(records: Records, config: PublishedConfig, split: Split) -> ImageSet:
    """The images of a split; the target has all images of its domains, unless the set itself says
    which are for training.

    Raises:
        InputError: neither source nor target is named, or what ``images_of`` raises.
    """
    domains = np.unique(records.domains).tolist()
    if (
        records.splits is None
        and len(domains) > 1
        and config.source is None
        and config.target is None
    ):
        raise InputError(
            "name the domain to train on, data.source, or the one to leave out, data.target: "
            f"{', '.join(domains)}"
        )
    return images_of(records, config, split, config.source, config.target)


def folder(path: str | Path, *inner: str) -> Path:
    """A folder of the set, itself or within ``path``.

    Raises:
        InputError: it is not there.
    """
    found = Path(path).expanduser().joinpath(*inner)
    if not found.is_dir():
        raise InputError(
            f"expected the folder {found.name} in {found.parent}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    return found


def columns(root: Path, names: Sequence[str], wanted: Sequence[str]) -> dict[str, Strings]:
    """The columns of the first of several tables that is there.

    Args:
        root: the folder that it lies in.
        names: of the table, as it is called in one release or another.
        wanted: columns that it must have.

    Raises:
        InputError: there is no such table, or it lacks a column.
    """
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        raise InputError(
            f"expected {' or '.join(names)} in {root}: set data.root "
            "(docs/howto/data.md has the layout)"
        )
    found = read_table(path)
    for name in wanted:
        if name not in found:
            raise InputError(f"{path} has no column {name!r}: {closest(name, filter(None, found))}")
    return found


def pair_folders(root: Path, domains: Mapping[str, str], values: Values) -> Records:
    """Images and masks in folders ``images`` and ``masks`` of each domain's folder; each image is a
    group of its own.

    Args:
        root: folder of the set.
        domains: folder, below it, by domain.
        values: what masks hold.

    Raises:
        InputError: a domain has no such folders, or they do not match.
    """
    parts = []
    for name, below in domains.items():
        inner = folder(root, *below.split("/"))
        pairs = paired(image_files(inner), inner)
        masks = pairs.masks.paths[:, 0]
        parts.append(
            (
                text(f"{below}/{path}" for path in pairs.images.tolist()),
                text(f"{below}/{path}" if path else "" for path in masks.tolist()),
                repeated(name, len(pairs.images)),
            )
        )
    paths, masks, names = (np.concatenate(column) for column in zip(*parts, strict=True))
    empty = repeated("", len(paths))
    return Records(
        origin=root,
        root=root,
        paths=paths,
        labels=empty,
        domains=names,
        groups=empty,
        masks=MaskPaths(masks[:, None]),
        values=values,
    )


def class_folders(root: Path, domains: Sequence[str]) -> Records:
    """Images in folders DOMAIN/CLASS; each is a group of its own.

    Raises:
        InputError: a domain's folder is missing or empty.
    """
    paths = [f"{name}/{file}" for name in domains for file in image_files(folder(root, name))]
    parts = [path.split("/") for path in paths]
    shallow = next((path for path, part in zip(paths, parts, strict=True) if len(part) < 3), None)
    if shallow is not None:
        raise InputError(
            f"{root / shallow} lies in no class folder: expected DOMAIN/CLASS/FILE in {root}"
        )
    return Records(
        origin=root,
        root=root,
        paths=text(paths),
        labels=text(part[1] for part in parts),
        domains=text(part[0] for part in parts),
        groups=repeated("", len(paths)),
    )
