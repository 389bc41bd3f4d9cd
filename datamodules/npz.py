"""Images from one .npz file, read without pickle; two layouts.

Domain layout: ``images`` (N, H, W[, channels]), or of volumes (N, D, H, W[, channels]), and where
known ``labels``, ``domain``, ``split`` (train, val, test), ``group`` and any other column such as
``time`` (all (N,)), and ``class_names`` (C,). In place of labels ``masks`` (N, H, W) of whole
numbers, -1 where a pixel does not count, or labels (N, L) of 0 or 1, which are findings. MedMNIST
layout: ``train_images``, ``train_labels``, and the same for val and test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.arrays import Arrays, read_arrays
from holdfast.datamodules.arraytargets import counted_within
from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.facts import LOOKED_AT
from holdfast.datamodules.formats.decoded import span_of
from holdfast.datamodules.images import ImageSet, NoImages, Split
from holdfast.datamodules.ranges import value_range
from holdfast.datamodules.settings import AUTO, TargetConfig, check_shares
from holdfast.datamodules.splits import SPLITS, check_leaks, cut, groups_of, hint_at, likely_groups
from holdfast.datamodules.targets import AskedOfArrays, kind_of, usual_task
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_KEYS = (
    *("images", "labels", "masks", "findings", "domain", "split", "group", "id"),
    *("class_names", "domain_names"),
)
# of a MedMNIST-like file without a val split, every tenth training image of a class validates
_VAL_SHARE = 10
# channels of a picture in colours, with transparency, at most
_COLOURS = 4


@dataclass
class NpzConfig(TargetConfig):
    """One .npz file, in the domain layout or in MedMNIST's."""

    path: str | None = option(None, "the file")
    source: str | None = option(None, "domain to train on; null: the only one with training images")
    target: str | list[str] | None = option(None, "domain, or domains, of the target stream")
    spatial_dims: int = option(2, "2 for pictures, 3 for volumes")
    within: str | None = option(
        None, "key of masks outside of which pixels do not count, as a field of view; null: all do"
    )
    shares: list[float] | None = option(
        None, "[train,val,test] shares of the source, cut between groups, where there is no split"
    )
    seed: int = option(0, "seed of data.shares")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self.shares)
        if self.spatial_dims not in (2, 3):
            raise InputError(f"data.spatial_dims={self.spatial_dims} must be 2 or 3")


def load_npz(config: NpzConfig, split: Split) -> ImageSet:
    """Read a split.

    Raises:
        InputError: a missing or unreadable file, missing keys, or an unknown domain.
    """
    if config.path is None:
        raise InputError("data.path is missing: name the file, data.path=FILE.npz")
    path = Path(config.path)
    arrays = _prepared(read_arrays(path), path, config, split)
    return images_from(
        arrays,
        path,
        config.source,
        config.target,
        split,
        spatial_dims=config.spatial_dims,
        group=config.group,
        missing=config.missing,
        raw_range=config.given_range(),
        task=config.task,
        labels=config.labels,
    )


def _prepared(arrays: Arrays, path: Path, config: NpzConfig, split: Split) -> Arrays:
    """The arrays with domains by name, an id where names are given, and splits where they are
    asked for.
    """
    arrays = dict(arrays)
    if "domain_names" in arrays and "domain" in arrays:
        called = arrays["domain_names"].astype(str)
        if arrays["domain"].dtype.kind in "iu" and arrays["domain"].max(initial=0) < len(called):
            arrays["domain"] = called[arrays["domain"]]
    names = arrays.get("names")
    if "id" not in arrays and names is not None and len(np.unique(names)) == names.size:
        arrays["id"] = arrays.pop("names")
    if config.within is not None:
        arrays = counted_within(arrays, path, config.within)
    if config.shares is not None and "split" not in arrays and "images" in arrays:
        arrays["split"] = _cut(arrays, path, config)
    return arrays


def _cut(arrays: Arrays, path: Path, config: NpzConfig) -> Strings:
    """Splits of the source's images, between groups; none of the others'."""
    count = len(arrays["images"])
    rows = np.arange(count).astype(str)
    named = {
        name: values.astype(str)
        for name, values in arrays.items()
        if name not in _KEYS and values.shape == (count,)
    }
    own = arrays.get("group", np.full(count, "")).astype(str)
    groups = groups_of(own, named, config.group, rows, path)
    domain = arrays.get("domain", np.full(count, path.stem)).astype(str)
    known = np.unique(domain).tolist()
    if config.source is None and len(known) > 1:
        raise InputError(f"data.source is missing: {path} has the domains {', '.join(known)}")
    inside = domain == (known[0] if config.source is None else config.source)
    splits = np.full(count, "test", dtype="<U5")
    splits[inside] = cut(groups[inside], config.shares or [], config.seed).astype("<U5")
    return splits


def _rows_of(
    arrays: Arrays, inside: npt.NDArray[np.bool_], split: Split
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Images whose labels say which classes there are, and those of the split.

    Args:
        arrays: the file's.
        inside: (N,) whether an image is of a wanted domain.
        split: which.
    """
    if "split" not in arrays:
        return np.ones_like(inside), inside
    rows = inside & (arrays["split"] == ("test" if split == "target" else split))
    if split == "target":
        return np.ones_like(inside), rows
    # A class of another domain is none of the model's.
    return inside & np.isin(arrays["split"], SPLITS), rows


def images_from(
    arrays: Arrays,
    path: Path,
    source: str | None,
    target: str | list[str] | None,
    split: Split,
    class_names: tuple[str, ...] | None = None,
    spatial_dims: int = 2,
    group: str | None = AUTO,
    missing: Sequence[str] | None = None,
    raw_range: tuple[float, float] | None = None,
    task: str = AUTO,
    labels: Any = None,
) -> ImageSet:
    """The images of a split, from arrays in either layout.

    Args:
        arrays: the file's.
        path: of the file, for messages; its stem names a domain that has no name.
        source: domain to train on.
        target: domain, or domains, of the target stream.
        split: which images.
        class_names: where the file has none.
        spatial_dims: 3 if the images are volumes.
        group: key that names each image's patient, as ``data.group``.
        missing: labels that stand for none, as ``data.missing``.
        raw_range: raw values that stand for 0 and 1; None: as the numbers say.
        task: as ``data.task``.
        labels: what the values of masks mean, as ``data.labels``.
    """
    arrays = _in_domain_layout(arrays, path)
    count = _checked(arrays, path)
    axes = _axes(arrays["images"].shape, spatial_dims, path)
    domain = arrays.get("domain", np.full(count, path.stem)).astype(str)
    inside = np.isin(domain, _wanted(arrays, domain, path, source, target, split))
    named, rows = _rows_of(arrays, inside, split)
    if split == "target" and not rows.any():
        raise NoImages(f"{path} has no images for the target: a target is what is in test")
    ids = arrays.get("id", np.arange(count)).astype(str)
    metadata = {
        name: values
        for name, values in arrays.items()
        if name not in _KEYS and values.shape == (count,)
    }
    groups, hints = _groups(arrays, ids, metadata, path, group)
    classes = _class_names(arrays) if class_names is None else class_names
    if task == AUTO:
        task = usual_task(lambda kind: kind.in_arrays(arrays))
    asked = AskedOfArrays(arrays, path, rows, named, classes, missing, labels, split == "target")
    known, notes = kind_of(task).from_arrays(asked)
    low, high = raw_range or span_of(arrays["images"].dtype) or (0.0, 1.0)
    if split != "target":  # which is judged beside the source's range, by who knows it
        low, high = value_range(_spread(arrays["images"], inside), given=raw_range)
    return ImageSet(
        images=arrays["images"][rows],
        target=known,
        ids=ids[rows],
        domains=domain[rows],
        groups=groups[rows],
        low=low,
        high=high,
        metadata={name: values[rows] for name, values in metadata.items()},
        spatial_dims=spatial_dims,
        notes=(*notes, *axes, *hints, *_shared(ids[rows]), *_left_out(arrays, count)),
        task=task,
    )


def _in_domain_layout(arrays: Arrays, path: Path) -> Arrays:
    """The arrays of either layout, in ours; refuses those of neither."""
    if "test_images" in arrays:
        return _unfold_medmnist(arrays, path.stem)
    if "images" not in arrays:
        raise InputError(
            f"{path} has the keys {', '.join(sorted(arrays)) or '(none)'}: expected images (with "
            "labels, domain, split, group) "
            "or train_images, train_labels, val_images, …, test_labels"
        )
    return arrays


def _class_names(arrays: Arrays) -> tuple[str, ...] | None:
    """Names of the classes, where the file has them."""
    given = arrays.get("class_names")
    return None if given is None else tuple(str(name) for name in given)


def _checked(arrays: Arrays, path: Path) -> int:
    """How many images there are; refuses columns that have not one value for each."""
    if not arrays["images"].ndim:
        raise InputError(f"{path}: images is a single number, and no array of images")
    count = len(arrays["images"])
    if not arrays["images"].size:
        raise InputError(f"{path} holds no images: images is {_sides(arrays['images'])}")
    for name in ("domain", "split", "group", "id"):
        if name in arrays and arrays[name].shape != (count,):
            raise InputError(
                f"{path}: {name} ({_sides(arrays[name])}) has not one value for each of {count} "
                "images"
            )
    for name in ("masks", "findings"):
        if name in arrays and len(np.atleast_1d(arrays[name])) != count:
            raise InputError(f"{path}: {name} are not of as many images as the {count} in images")
    names = arrays.get("class_names", np.zeros(1))
    if names.ndim != 1:
        raise InputError(f"{path}: class_names is no list of names")
    if len(np.unique(names)) < len(names):
        raise InputError(
            f"{path}: class_names gives a name to two classes: {', '.join(map(str, names))}"
        )
    _check_splits(arrays, path)
    return count


def _axes(shape: tuple[int, ...], spatial_dims: int, path: Path) -> tuple[str, ...]:
    """A note on channels that may be a side of volumes; channels that come first are refused, as
    libraries of networks have them, for each image would be of a few rows.
    """
    if len(shape) != spatial_dims + 2 or shape[-1] <= _COLOURS:
        return ()
    if shape[1] <= _COLOURS:
        raise InputError(
            f"{path}: images ({'x'.join(map(str, shape))}) have their channels first: put them "
            "last, numpy.moveaxis(images, 1, -1)"
        )
    if spatial_dims == 3:
        return ()
    return (f"images have {shape[-1]} channels each; if they are volumes, say data.spatial_dims=3",)


def _check_splits(arrays: Arrays, path: Path) -> None:
    strange = np.setdiff1d(arrays.get("split", np.zeros(0, "<U1")).astype(str), [*SPLITS, ""])
    if len(strange):
        value = str(strange[0])
        raise InputError(f"{path} has the split {value!r}: {closest(value, SPLITS)}, or empty")


def _sides(array: npt.NDArray[Any]) -> str:
    return "x".join(map(str, array.shape)) or "a single value"


def _spread(images: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Some images of a domain, from all its splits, so that these have one range."""
    rows = np.flatnonzero(inside)
    return images[rows[:: max(1, len(rows) // LOOKED_AT)]]


def _shared(ids: Strings) -> tuple[str, ...]:
    """A note on ids that name several images."""
    names, counts = np.unique(ids, return_counts=True)
    several = counts > 1
    if not several.any():
        return ()
    return (
        f"{counts[several].sum()} images share an id with another, as {names[several][0]}: "
        "labels by id, and rows of predictions.csv, are of all; the key of a patient is group",
    )


def _left_out(arrays: Arrays, count: int) -> list[str]:
    """Which keys are no column of the images, in words; a single value is about the file."""
    return [
        f"the key {name} ({'x'.join(map(str, values.shape))}) is left out: it has not one value an "
        "image"
        for name, values in arrays.items()
        if name not in _KEYS and values.shape not in ((), (1,), (count,))
    ]


def _wanted(
    arrays: Arrays,
    domain: npt.NDArray[Any],
    path: Path,
    source: str | None,
    target: str | list[str] | None,
    split: Split,
) -> list[str]:
    """Domains that the split comes from."""
    known = sorted(set(domain.tolist()))
    if split == "target":
        if target is None and len(known) > 1:
            raise InputError(f"data.target is missing: {path} has the domains {', '.join(known)}")
        named = [target] if isinstance(target, str) else target
        wanted = known if named is None else list(named)
    else:
        if "split" not in arrays:
            raise InputError(
                f"{path} has no key split (train, val, test for each image): it can be a target, "
                "not a source"
            )
        trainable = sorted(set(domain[arrays["split"] == "train"].tolist()))
        if source is None and len(trainable) != 1:
            raise InputError(
                f"data.source is missing: {path} has training images of "
                f"{', '.join(trainable) or 'no domain'}"
            )
        wanted = [trainable[0] if source is None else source]
    for name in wanted:
        if name not in known:
            raise InputError(f"{path} has no domain {name!r}: {closest(name, known)}")
    return wanted


def _groups(
    arrays: Arrays, ids: Strings, metadata: Arrays, path: Path, chosen: str | None
) -> tuple[Strings, tuple[str, ...]]:
    """The group of each image, and a note on what may be one; refuses one, or a likely one, in
    several splits.
    """
    named = {name: values.astype(str) for name, values in metadata.items()}
    own = arrays.get("group", np.full(len(ids), "")).astype(str)
    likely = likely_groups(named) if chosen == AUTO and "group" not in arrays else {}
    if "split" in arrays:
        rows = np.arange(len(ids)).astype(str)  # ids may count anew in each split
        known = groups_of(own, named, chosen, rows, path)
        nowhere = np.zeros(len(ids), dtype=np.bool_)
        check_leaks(path, rows, known, arrays["split"].astype(str), nowhere, likely)
    return groups_of(own, named, chosen, ids, path), hint_at(likely)


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels (N,), of several findings (N, L)."""
    return labels if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)


def _cut_val(splits: Strings, labels: npt.NDArray[Any]) -> None:
    """Call a share of each class's training images val."""
    of = labels if labels.ndim == 1 else np.zeros(len(labels))
    for label in np.unique(of):
        splits[np.flatnonzero(of == label)[::_VAL_SHARE]] = "val"


def _check_unfolded(arrays: Arrays, name: str, split: str, first: str) -> None:
    """Refuse a split of MedMNIST's layout whose labels or images do not fit.

    Args:
        arrays: the file's.
        name: of the file, for messages.
        split: which.
        first: the split that others must be like.
    """
    if f"{split}_labels" not in arrays:
        raise InputError(f"{name} has the key {split}_images but no {split}_labels")
    images, given = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    several = given.ndim == 2 and given.shape[1] > 1 and len(given) == len(images)
    if not images.ndim or (given.size != len(images) and not several):
        raise InputError(
            f"{name}: {split}_labels ({given.size} values) has not one for each of the images "
            f"{split}_images ({_sides(images)})"
        )
    like = arrays[f"{first}_images"]
    if images.shape[1:] != like.shape[1:]:
        raise InputError(f"{name}: {split}_images has other sides or channels than {first}_images")
    if images.dtype != like.dtype:
        raise InputError(
            f"{name}: {split}_images are {images.dtype} and {first}_images {like.dtype}, which "
            "span other ranges: write them as one type"
        )


def _unfold_medmnist(arrays: Arrays, name: str) -> Arrays:
    """MedMNIST's layout as the domain layout."""
    present = [split for split in ("train", "val", "test") if f"{split}_images" in arrays]
    for split in present:
        _check_unfolded(arrays, name, split, present[0])
    labels = [_flat(arrays[f"{split}_labels"]) for split in present]
    splits = [
        np.full(len(values), split, dtype="<U5")
        for split, values in zip(present, labels, strict=True)
    ]
    if "val" not in present and "train" in present:
        train = present.index("train")
        _cut_val(splits[train], labels[train])
    ids = [f"{split}-{row}" for split in present for row in range(len(arrays[f"{split}_images"]))]
    unfolded = {
        "images": np.concatenate([arrays[f"{split}_images"] for split in present]),
        "labels": np.concatenate(labels),
        "split": np.concatenate(splits),
        "domain": np.full(len(ids), name),
        "id": np.array(ids),
    }
    return unfolded | ({"class_names": arrays["class_names"]} if "class_names" in arrays else {})
