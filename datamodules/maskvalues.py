"""What the values of a mask mean: which class each is, and what is no mask at all."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.decoding import Array, Decoded, Unreadable
from holdfast.tta.errors import InputError

#: The class of what is none of the structures, and what stands for pixels that do not count.
BACKGROUND, IGNORE = "background", "ignore"
#: The one class of masks that say yes or no.
FOREGROUND = "foreground"
#: Values of such masks: of whole numbers, or black and white.
_BINARY = ({0, 1}, {0, 255})
#: Largest number of a class that masks count without being told; more is a picture.
_COUNTED = 63
#: Colours, and ranges of values, as data.labels writes them; and the largest value of a range.
_COLOUR, _RANGE, _LARGEST = re.compile("#[0-9a-f]{6}"), re.compile(r"(\d+)-(\d+)"), 65535
#: Values or colours that a sentence lists, and colours from which on a mask is a picture.
_LISTED, _PICTURE = 8, 64

Raw = int | str


@dataclass(frozen=True)
class Values:
    """Which class each value of a mask is.

    Args:
        names: of the classes; the first is the background where there is one.
        codes: class by value: a number, or a colour as ``#rrggbb``; ``UNLABELLED`` where a pixel
            does not count.
    """

    names: tuple[str, ...]
    codes: Mapping[Raw, int]

    def numbered(self, mask: Decoded) -> npt.NDArray[np.int16]:
        """A decoded mask as classes (*spatial).

        Raises:
            Unreadable: it holds other values, fractions, or a picture.
        """
        if any(isinstance(value, str) for value in self.codes):
            return self._mapped(*_colours(mask.pixels), mask)
        return self._mapped(*_numbers(mask), mask)

    def _mapped(
        self, values: Sequence[Raw], places: npt.NDArray[np.intp], mask: Decoded
    ) -> npt.NDArray[np.int16]:
        strange = [value for value in values if value not in self.codes]
        if strange:
            raise Unreadable(_strange(strange, self.codes, mask))
        table = np.array([self.codes[value] for value in values], dtype=np.int16)
        return table[places].reshape(mask.pixels.shape[:-1])


def _strange(strange: Sequence[Raw], codes: Mapping[Raw, int], mask: Decoded) -> str:
    known = _shown(list(codes))
    if mask.kind == "JPEG":
        return (
            f"has a mask with the values {_shown(strange)} beside {known}: JPEG changes values at "
            "edges, so write masks as PNG"
        )
    return (
        f"has a mask with the value(s) {_shown(strange)}, and {known} are known: say what they "
        "are, data.labels={VALUE: CLASS, OTHER: null}, where null is background"
    )


def values_of(labels: Mapping[Any, Any]) -> Values:
    """What ``data.labels`` says.

    Args:
        labels: by value, or range of values, the class's name; null is background, and ``ignore``
            does not count.

    Raises:
        InputError: no class is left.
    """
    meant = {
        raw: BACKGROUND if name is None else str(name)
        for value, name in labels.items()
        for raw in _raws(value)
    }
    # 0 goes without saying where nothing else is said to be background.
    numbers = not any(isinstance(value, str) for value in meant)
    if numbers and 0 not in meant and BACKGROUND not in meant.values():
        meant = {0: BACKGROUND, **meant}
    found = [name for name in dict.fromkeys(meant.values()) if name not in (BACKGROUND, IGNORE)]
    names = (BACKGROUND, *found) if BACKGROUND in meant.values() else tuple(found)
    if len(names) < 2:
        raise InputError(
            f"data.labels={dict(labels)} names fewer than two classes: write {{VALUE: CLASS}} for "
            "each value of the masks, null for background, ignore for what does not count"
        )
    places = {name: code for code, name in enumerate(names)} | {IGNORE: UNLABELLED}
    return Values(names, {value: places[name] for value, name in meant.items()})


def _raws(value: Any) -> list[Raw]:
    """Values as a mask has them: a number, those from one to another, or a colour."""
    word = str(value).strip().lower()
    if _COLOUR.fullmatch(word):
        return [word]
    ends = _RANGE.fullmatch(word)
    if ends and int(ends[1]) <= int(ends[2]) <= _LARGEST:
        return [*range(int(ends[1]), int(ends[2]) + 1)]
    if re.fullmatch(r"-?\d+", word):
        return [int(word)]
    raise InputError(
        f"data.labels has the value {value!r}: masks hold whole numbers, ranges of them (1-254), "
        "or colours ('#ff0000')"
    )


def discovered(masks: Sequence[Decoded], origin: object) -> Values:
    """What values mean where nobody says: 0 and 255, or 0 and 1, are background and foreground;
    0 to 63 count classes.

    Args:
        masks: some of the set's.
        origin: where they come from, for messages.

    Raises:
        InputError: values may mean anything.
        Unreadable: one is no mask.
    """
    found: set[int] = set()
    for mask in masks:
        found.update(int(value) for value in _numbers(mask)[0])
    if any(found <= binary for binary in _BINARY):
        top = max(found | {1})
        return Values((BACKGROUND, FOREGROUND), {0: 0, top: 1})
    if found and min(found) >= 0 and max(found) <= _COUNTED:
        names = (BACKGROUND, *(str(number) for number in range(1, max(found) + 1)))
        return Values(names, {number: number for number in range(len(names))})
    if any(mask.kind == "JPEG" for mask in masks):
        raise InputError(
            f"the masks of {origin} hold the values {_shown(sorted(found))}: JPEG changes values "
            "at edges, so write masks as PNG"
        )
    values = ", ".join(f"{value}: NAME" for value in sorted(found)[:_LISTED])
    raise InputError(
        f"the masks of {origin} hold the values {_shown(sorted(found))}: say which class each is, "
        f"data.labels={{{values}}}, where null is background"
    )


def _numbers(mask: Decoded) -> tuple[list[int], npt.NDArray[np.intp]]:
    """The values of a grey mask, and the place of each pixel's among them.

    Raises:
        Unreadable: it holds colours, several channels, or fractions.
    """
    pixels = _grey(mask.pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        whole = np.round(pixels)
        if not np.isfinite(pixels).all() or (pixels != whole).any():
            odd = pixels[(pixels != whole) | ~np.isfinite(pixels)][0]
            raise Unreadable(
                f"has a mask of fractions (as {odd:.3g}): write the number of the class at each "
                "pixel, or cut probabilities at .5"
            )
        pixels = whole.astype(np.int64)
    values, places = np.unique(pixels, return_inverse=True)
    return values.tolist(), places


def _grey(pixels: Array) -> Array:
    """(*spatial) of a mask whose channels agree."""
    if pixels.shape[-1] == 1 or (pixels[..., 1:] == pixels[..., :1]).all():
        return pixels[..., 0]
    if pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise Unreadable(
            f"has a mask of {pixels.shape[-1]} channels: write one number a pixel, or a file for "
            "each class"
        )
    colours, _ = _colours(pixels)
    if len(colours) > _PICTURE:
        raise Unreadable(
            f"has a picture of {len(colours)} colours where its mask should be: name the mask "
            "itself, not one that is drawn over the image"
        )
    raise Unreadable(
        f"has a mask in colours ({_shown(colours)}): say what they are, data.labels="
        f"{{'{colours[0]}': null, '{colours[-1]}': CLASS}}"
    )


def _colours(pixels: Array) -> tuple[list[str], npt.NDArray[np.intp]]:
    """The colours of a mask as ``#rrggbb``, and the place of each pixel's among them."""
    rgb = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    packed = rgb[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    values, places = np.unique(packed, return_inverse=True)
    return [f"#{value:06x}" for value in values.tolist()], places


def _shown(values: Sequence[Raw]) -> str:
    listed = ", ".join(str(value) for value in values[:_LISTED])
    return f"{listed}, …" if len(values) > _LISTED else listed
