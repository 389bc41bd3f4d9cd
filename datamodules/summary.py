"""What a run understood of its images, in six lines at most, before anything is done with them."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from holdfast.datamodules.facts import Facts, gathered
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.reading import by
from holdfast.tta.processes import is_first
from holdfast.tta.saying import say

#: Classes and domains that are named one by one.
_LISTED = 12
#: Images below which an accuracy is uncertain by some 20 points either way.
_FEW = 30


def tell(sets: Mapping[str, ImageSet]) -> None:
    """Say what was understood; of several processes only the first speaks."""
    if is_first():
        say("\n".join(understood(sets)))


def understood(sets: Mapping[str, ImageSet]) -> list[str]:
    """What was understood of the images, six lines at most.

    Args:
        sets: images by the name of their split; they have the same classes, and the first is what
            matters most.
    """
    facts = {name: facts_of(images) for name, images in sets.items()}
    first = next(iter(sets))
    lines = [
        f"{sets[first].target.names_are}: {_classes(sets)}",
        f"images: {', '.join(_counted(name, images) for name, images in sets.items())}",
        f"domains: {_domains(sets)}; patients: {_patients(sets)}",
        f"pixels: {_pixels(sets, facts)}",
    ]
    if sets[first].spatial_dims == 3:
        lines.append(f"volumes: {_volumes(facts[first])}")
    notes = list(dict.fromkeys(_notes(sets, facts)))
    return [*lines, *([f"note: {'; '.join(notes)}"] if notes else [])]


def facts_of(images: ImageSet) -> Facts:
    """What is known of the pixels, from the files' check or from a look at an array."""
    if isinstance(images.images, ImageFiles):
        return images.images.facts
    return gathered(images.images, (images.low, images.high)).facts()


def _classes(sets: Mapping[str, ImageSet]) -> str:
    name, images = next(iter(sets.items()))
    if not images.num_classes:
        return "none, for nothing is labelled"
    if not images.labelled:
        more = ["…"] if images.num_classes > _LISTED else []
        shown = ", ".join([*images.class_names[:_LISTED], *more])
        return f"{images.num_classes} ({shown}); no {images.target.called}s in {name}"
    counts, spelled, of = images.target.counted()
    return f"{len(counts)} ({_listed(counts, spelled.format)} {of} {name})"


def _listed(counts: Mapping[str, float], spelled: Callable[[float], str] = str) -> str:
    """Names with their counts; of many some, and how many each of the others has."""
    shown = [f"{name}: {spelled(count)}" for name, count in counts.items()]
    if len(shown) <= _LISTED:
        return ", ".join(shown)
    rest = list(counts.values())[_LISTED:]
    ends = f"{spelled(min(rest))} to {spelled(max(rest))}"
    return f"{', '.join(shown[:_LISTED])} and {len(rest)} more of {ends}"


def _counted(name: str, images: ImageSet) -> str:
    missing = int((~images.target.known).sum())
    without = f" ({missing} without a {images.target.called})" if missing else ""
    return f"{name} {len(images)}{without}"


def _domains(sets: Mapping[str, ImageSet]) -> str:
    domains = np.concatenate([np.asarray(images.domains, dtype=object) for images in sets.values()])
    names, counts = np.unique(domains.astype(str), return_counts=True)
    return _listed(dict(zip(names.tolist(), counts.tolist(), strict=True)))


def _patients(sets: Mapping[str, ImageSet]) -> str:
    """Groups and how many images they have; images that are groups of their own are nobody's."""
    if all((images.groups == images.ids).all() for images in sets.values()):
        return "one image each, or not known (data.group)"
    counts = [np.unique(images.groups, return_counts=True)[1] for images in sets.values()]
    sizes = np.concatenate(counts)
    parts = ", ".join(f"{name} {len(of)}" for name, of in zip(sets, counts, strict=True))
    total = f"{len(sizes)} ({parts})" if len(sets) > 1 else str(len(sizes))
    low, high = int(sizes.min()), int(sizes.max())
    if low < high:
        return f"{total} with {low} to {high} images"
    return f"{total} with {low} image{'s' if low > 1 else ''} each"


def _pixels(sets: Mapping[str, ImageSet], facts: Mapping[str, Facts]) -> str:
    """Size and channels, and what becomes 0 and 1; of other splits what differs from the first."""
    first, images = next(iter(sets.items()))
    said = f"{by(images.size)}, {images.channels} channel{'s' if images.channels > 1 else ''}; "
    said += facts[first].pixels(images.low, images.high)
    if facts[first].images < len(images):
        said += f" (of {facts[first].images} images that were looked at)"
    for name, other in sets.items():
        kinds = facts[name].kinds
        if others := {
            kind: count for kind, count in kinds.items() if kind not in facts[first].kinds
        }:
            shown = ", ".join(f"{count} {kind}" for kind, count in others.items())
            said += f"; in {name} {shown}, {other.low:g} to {other.high:g}"
    return said


def _volumes(facts: Facts) -> str:
    if not facts.spacing:
        return "orientation and spacing are not known; axes are taken as D, H, W"
    sides = [
        f"{low:.3g}" if low == high else f"{low:.3g}-{high:.3g}" for low, high in facts.spacing
    ]
    turned = (
        f"{facts.turned} of {facts.images} were turned to it" if facts.turned else "all were so"
    )
    return (
        f"orientation RAS (axes D, H, W; {turned}); stored with a spacing of {' x '.join(sides)} mm"
    )


def _notes(sets: Mapping[str, ImageSet], facts: Mapping[str, Facts]) -> Iterator[str]:
    """What users should know beside the figures, each thing once."""
    first = next(iter(sets))
    if first == "train":
        yield from _thin(sets)
    for name, other in sets.items():
        where = f"{name}: " if len(sets) > 1 else ""
        if other.skipped:
            path, reason = next(iter(other.skipped.items()))
            count = len(other.skipped)
            files = f"{count} file{'s' if count > 1 else ''}"
            yield f"{where}{files} left out, the first {path}, which {reason}"
        yield from other.notes
        yield from (f"{where}{note}" for note in facts[name].notes)


def _thin(sets: Mapping[str, ImageSet]) -> Iterator[str]:
    """Splits that show too little: no image of a class, or hardly any image."""
    counts = {name: images.target.counts() for name, images in sets.items()}
    for name, of in counts.items():
        absent = [
            c for c, count in zip(sets[name].class_names, of.tolist(), strict=True) if not count
        ]
        if absent and of.any():
            yield f"no {name} image shows {', '.join(absent[:_LISTED])}"
        labelled = int(sets[name].target.known.sum())
        if labelled < _FEW and name != "train":
            yield f"{name} has {labelled} labelled images, and scores of so few say little"
