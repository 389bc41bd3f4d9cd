"""Which raw values become 0 and 1 in a set of images, judged over all of them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.decoding import Array
from holdfast.datamodules.facts import LITTLE, Gathered, gathered, likely_end
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.formats.decoded import span_of
from holdfast.datamodules.glance import Form, Limits
from holdfast.tta.errors import InputError

#: By how much of a range values may lie outside of it and still mean it: resampling overshoots.
_SLACK = 0.05
#: From which value on an image is certainly none in 0..1.
_FAR = 2.0
#: Share of images in 0..1, among others that are not, from which they are not just dark.
_PART = 0.1

_UNIT = (0.0, 1.0)


def value_range(
    images: Array | ImageFiles, source: Limits | None = None, given: Limits | None = None
) -> Limits:
    """Raw values that stand for 0 and 1.

    Unsigned 8- and 16-bit numbers span their type, and files may say what they span. Other numbers
    do not say: they are taken as they are where they lie in 0..1, or to span what the source's do
    where they lie there. Both are judged by quantiles over many images, so that an extreme pixel or
    a blank image means nothing.

    Args:
        images: (N, …) raw numbers, or files; these were checked, or some of them are looked at.
        source: range of the images that a model was trained on; None: these are they.
        given: ``data.range``, which holds for arrays of any type; files have it from their reading.

    Raises:
        InputError: the numbers do not say what they span, and nothing else tells.
    """
    if isinstance(images, ImageFiles):
        return _files_range(images, source)
    known = given or span_of(images.dtype)
    if known is not None or not len(images):
        return known or _UNIT
    return _judged(gathered(images, None), source, "image {}".format)


def refuse_mixture(files: ImageFiles) -> None:
    """Refuse files whose values cannot share a range, such as pictures among CT in HU.

    Raises:
        InputError: there are several kinds; it names a file of each.
    """
    found = files.found
    kinds: dict[str, list[Form]] = {}
    for form in found.counted():
        kinds.setdefault(form.scale, []).append(form)
    if files.reading.suits(kinds):
        return
    parts = []
    for scale, forms in kinds.items():
        rows = found.rows(*forms)
        first = found.first_form(rows)
        parts.append(f"{len(rows)} {scale} ({first.kind} {first.dtype}, as {files.name(rows[0])})")
    raise InputError(
        f"the files have values that cannot share a range: {', '.join(parts)}: leave one kind out, "
        "scale each by its own values, data.window=percentile, or say what becomes 0 and 1 in "
        "those "
        "that are not unsigned, data.range=[LOW,HIGH]"
    )


def _files_range(files: ImageFiles, source: Limits | None) -> Limits:
    facts = files.facts
    if facts.says:
        limits = None if files.found.own_range else facts.limits
        if limits is None:  # each has its own, and there is none to share
            return _UNIT
        return min(limits), max(limits)  # MONOCHROME1 has the ends turned
    unit = next((form.unit for form in files.found.counted() if form.unit), "")
    if unit:
        example = ", such as [-160,240] for soft tissue" if unit == "HU" else ""
        raise InputError(
            f"the images hold {unit}, of which some range is to be shown: set "
            f"data.window=[LOW,HIGH]{example}, or data.window=file"
        )
    return _judged(files.found, source, files.name)


def _judged(found: Gathered, source: Limits | None, name: Callable[[int], str]) -> Limits:
    """0 to 1, or the source's range: the one that the values of most images fit, if it is one
    alone.
    """
    rows = found.shown(np.flatnonzero(found.codes >= 0))
    if not len(rows):
        return source or _UNIT
    _refuse_two_scales(found, rows, name)
    low, high = found.inner(rows)
    brightest = float(np.median(found.extremes[rows, 1]))  # of images with few bright pixels
    in_unit = _inside(low, high, _UNIT) and brightest <= _FAR
    blank = bool((found.extremes[rows, 0] == found.extremes[rows, 1]).all())
    fits = []
    if in_unit and (high >= LITTLE or blank or source == _UNIT):
        fits.append(_UNIT)
    if source not in (None, _UNIT) and source is not None and _fills(low, high, source):
        fits.append(source)
    if len(fits) == 1:
        return fits[0]
    raise InputError(_unclear(found, rows, source))


def _refuse_two_scales(
    found: Gathered, rows: npt.NDArray[np.intp], name: Callable[[int], str]
) -> None:
    """Refuse images in 0..1 among others that are not, unless they are so few that they are
    dark.
    """
    low, high = found.quantiles[rows].T
    inside = (low >= -_SLACK) & (high <= 1 + _SLACK)
    far = high > _FAR
    if far.any() and inside.mean() > _PART:
        one, other = rows[inside][0], rows[far][0]
        raise InputError(
            f"{inside.sum()} of {len(rows)} images hold values in 0 to 1 (as {name(int(one))}), "
            "and "
            f"{far.sum()} up to {high[far].max():g} (as {name(int(other))}): bring them to one "
            "scale, or scale each by its own values, of files with data.window=percentile"
        )


def _inside(low: float, high: float, limits: Limits) -> bool:
    slack = _SLACK * (limits[1] - limits[0])
    return low >= limits[0] - slack and high <= limits[1] + slack


def _fills(low: float, high: float, limits: Limits) -> bool:
    """Whether values lie in a range, and use some of it."""
    used = min(high, limits[1]) - max(low, limits[0])
    return _inside(low, high, limits) and used >= LITTLE * (limits[1] - limits[0])


def _unclear(found: Gathered, rows: npt.NDArray[np.intp], source: Limits | None) -> str:
    form = found.first_form(rows)
    low, high = found.extremes[rows, 0].min(), found.extremes[rows, 1].max()
    beside = "" if source is None else f" (the source's range is {source[0]:g} to {source[1]:g})"
    whole = np.issubdtype(np.dtype(form.dtype), np.integer)
    end = likely_end(float(high)) if whole and low >= 0 else None
    likely = "" if end is None else f" (likely [0,{end}])"
    files = "" if form.kind == "array" else ", or data.window=percentile"
    return (
        f"the images hold {form.dtype} numbers from {low:g} to {high:g}, which do not say what "
        "they "
        f"span{beside}: set data.range=[LOW,HIGH], the raw values that stand for 0 and 1{likely}"
        f"{files}"
    )
