"""The image set of one split of a data set's files."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import ImageSet, NoImages, Split
from holdfast.datamodules.ranges import refuse_mixture, value_range
from holdfast.datamodules.repetition import check_repeated
from holdfast.datamodules.rows import Records, repeated, text
from holdfast.datamodules.settings import AUTO, FilesConfig
from holdfast.datamodules.splits import (
    check_leaks,
    cut,
    groups_of,
    hint_at,
    likely_groups,
)
from holdfast.datamodules.targets import AskedOfRecords, LabelTarget, kind_of, usual_task
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.tasks import TASKS

__all__ = ["Records", "Unusable", "images_of", "repeated", "text"]

_log = logging.getLogger(__name__)
_LISTED = 20  # unreadable files that are listed one by one

Names = str | Sequence[str] | None


class Unusable(InputError):
    """Files that cannot be used, where none may be left out.

    Args:
        total: files that were looked at.
        reasons: why some cannot be used, by name.
    """

    def __init__(self, total: int, reasons: Mapping[str, str]) -> None:
        name, reason = next(iter(reasons.items()))
        super().__init__(
            f"{len(reasons)} of {total} files cannot be used, the first is {name}, which {reason}: "
            "repair or remove them, or go on without them, data.on_error=skip"
        )
        self.total, self.reasons = total, reasons


def images_of(
    records: Records, config: FilesConfig, split: Split, source: Names = None, target: Names = None
) -> ImageSet:
    """The images of a split.

    Source splits come from the source's domains, by the records' splits or by ``config.shares``.
    The target has its domains' images that are in no split, or in test; all of them where there are
    no splits.

    Args:
        records: of all splits and domains.
        config: how files are read.
        split: which.
        source: domain, or domains, that are trained on; None: all but a named target.
        target: domain, or domains, of the target; None: all but a named source.

    Raises:
        InputError: an unknown domain, a missing split, a group in two splits, or files that cannot
            be read.
    """
    _check_paths(records, records.paths)
    if "" in records.paths:
        raise InputError(f"{records.origin} has a row without a path: remove it")
    rois = _rois(records, config)
    task = _task(records, config)
    groups = groups_of(
        records.groups, records.metadata, config.group, records.names, records.origin
    )
    splits = _splits(records, config, groups, source, target)
    inside = _domain_rows(records, split, source, target)
    named, inside = _of_split(records, splits, inside, split)
    rows = np.flatnonzero(inside)
    if not len(rows):
        raise NoImages(_nothing(records, splits, split))
    again = check_repeated(records, rows, config.missing)
    files = ImageFiles(
        records.root,
        records.paths[rows],
        config.reading(),
        config.cache,
        None if rois is None else rois[rows],
        None if records.further is None else records.further[rows],
        dense=TASKS[task].dense,
    )
    reasons = files.unreadable() if config.check else {}
    asked = AskedOfRecords(records, config, files, rows, named, split == "target")
    known, notes = kind_of(task).from_records(asked)
    if config.check:
        reasons |= known.unusable(reasons)
        notes = (*notes, *known.noted())
    images = ImageSet(
        images=files,
        target=known,
        ids=records.names[rows],
        domains=records.domains[rows],
        groups=groups[rows],
        metadata={name: values[rows] for name, values in records.metadata.items()},
        spatial_dims=files.spatial_dims,
        notes=(*records.notes, *again, *notes, *hint_at(_likely(records, config))),
        task=task,
    )
    images = _without(dict(sorted(reasons.items())), images, config.on_error)
    refuse_mixture(files)
    if split == "target":  # judged beside the source's range, by who knows it
        return images
    low, high = value_range(files)
    return replace(images, low=low, high=high)


def _of_split(
    records: Records, splits: Strings | None, inside: npt.NDArray[np.bool_], split: Split
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Images whose labels say which classes there are, and those of the split.

    Args:
        records: of all splits and domains.
        splits: (N,) the split of each image; None: nobody says.
        inside: (N,) whether an image is of a wanted domain.
        split: which.
    """
    if split == "target":
        stays = True if splits is None else (splits == "test") | (splits == "")
        return np.ones_like(inside), inside & stays
    if splits is None:
        raise InputError(
            f"{records.origin} does not say which images are for training: add splits, or cut it, "
            "data.shares=[.7,.15,.15]"
        )
    # A class of another domain is none of the model's.
    return inside & (splits != ""), inside & (splits == split)


def _task(records: Records, config: FilesConfig) -> str:
    """What is asked for, or what the records have."""
    if config.task != AUTO:
        return config.task
    task = usual_task(lambda kind: kind.in_records(records))
    if task != LabelTarget.usual and LabelTarget.in_records(records):
        raise InputError(
            f"{records.origin} has labels, and masks or findings: say which are meant, "
            f"data.task=single or data.task={task} (a mask that images are cut down to is "
            "called roi)"
        )
    return task


def _splits(
    records: Records, config: FilesConfig, groups: Strings, source: Names, target: Names
) -> Strings | None:
    """The split of each image, as the records have it or as it is cut; None where neither says."""
    splits = records.splits
    if splits is None and config.shares is not None:
        own = np.flatnonzero(_domain_rows(records, "train", source, target))
        splits = repeated("", len(groups))
        splits[own] = cut(groups[own], config.shares, config.seed)
    if splits is None:
        return None
    check_leaks(
        records.origin,
        records.paths,
        groups,
        splits,
        _domain_rows(records, "target", source, target),
        _likely(records, config),
    )
    return splits


def _likely(records: Records, config: FilesConfig) -> dict[str, Strings]:
    """Columns that may name patients, where neither the records nor the user say what does."""
    unsaid = config.group == AUTO and not (records.groups != "").any()
    return likely_groups(records.metadata) if unsaid else {}


def _rois(records: Records, config: FilesConfig) -> Strings | None:
    """What images are cut down to, where that is asked for."""
    for column in _columns(records):
        _check_paths(records, column)
    if config.around_roi is None:
        return None
    if records.rois is None:
        raise InputError(
            f"{records.origin} has no rois for data.around_roi: read it by data=table, with a "
            "column roi, or leave it out"
        )
    _check_paths(records, records.rois)
    return records.rois


def _columns(records: Records) -> Iterator[Strings]:
    """Columns of paths beside the images' own."""
    if records.masks is not None:
        yield from records.masks.paths.T
    if records.further is not None:
        yield from records.further.T


def _check_paths(records: Records, paths: Strings) -> None:
    """Refuse paths that leave the root by their wording; links are looked at when a file is
    opened.
    """
    odd = np.strings.startswith(paths, "/") | (np.strings.find(paths, "..") >= 0)
    for path in paths[odd].tolist():
        if path.startswith("/") or Path(*_walk(path)).parts[:1] == ("..",):
            raise InputError(
                f"{records.origin}: {path} lies outside {records.root}: paths must be relative to "
                "it, and stay below"
            )


def _walk(path: str) -> list[str]:
    parts: list[str] = []
    for part in Path(path).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return parts


def _domain_rows(
    records: Records, split: Split, source: Names, target: Names
) -> npt.NDArray[np.bool_]:
    known = np.unique(records.domains).tolist()
    chosen = {"source": _listed(source), "target": _listed(target)}
    for option, names in chosen.items():
        for name in names or ():
            if name not in known:
                raise InputError(
                    f"{records.origin} has no domain {name!r} (data.{option}): "
                    f"{_elsewhere(records, name) or closest(name, known)}"
                )
    wanted, other = (
        (chosen["target"], chosen["source"])
        if split == "target"
        else (chosen["source"], chosen["target"])
    )
    if wanted is None:
        wanted = [name for name in known if name not in (other or ())]
        if not wanted and records.splits is not None:  # one domain, which its splits divide
            wanted = known
    rows = np.zeros(len(records.paths), dtype=np.bool_)
    for name in wanted:
        rows |= records.domains == name
    return rows


def _elsewhere(records: Records, domain: str) -> str:
    """The column that names a domain, where it is not the one that should."""
    found = [name for name, values in records.metadata.items() if (values == domain).any()]
    if found:
        return f"its column {found[0]!r} has it, so call that column domain"
    if Path(domain).expanduser().is_dir():
        return f"a folder of images is data=folder data.root={domain}"
    return ""


def _listed(names: Names) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _nothing(records: Records, splits: Strings | None, split: Split) -> str:
    domains = ", ".join(np.unique(records.domains).tolist())
    known = ["none"]
    if splits is not None:
        known = [name or "(empty)" for name in np.unique(splits).tolist()]
    remedy = ": a target is what is in test, or in no split" if split == "target" else ""
    if split == "val":
        remedy = (
            ": training is watched on some, so call a part of them val, or leave the splits out "
            "and "
            "cut them, data.shares=[.7,.15,.15]"
        )
    return (
        f"{records.origin} has no images for {split}: its domains are {domains}, its splits "
        f"{', '.join(known)}{remedy}"
    )


def _without(reasons: Mapping[int, str], images: ImageSet, on_error: str) -> ImageSet:
    """The images without those that cannot be used, which are listed, and stop the run or are left
    out.
    """
    if not reasons:
        return images
    skipped = {str(images.ids[row]): reason for row, reason in reasons.items()}
    for name, reason in list(skipped.items())[:_LISTED]:
        _log.warning("%s %s", name, reason)
    if len(skipped) > _LISTED:
        _log.warning("… and %d more", len(skipped) - _LISTED)
    if on_error == "stop":
        raise Unusable(len(images), skipped)
    kept = np.ones(len(images), dtype=np.bool_)
    kept[list(reasons)] = False
    return replace(images.subset(kept), skipped=skipped)
