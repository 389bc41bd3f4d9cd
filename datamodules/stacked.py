"""Images whose channels lie in files of their own: sequences of MR, say."""

from collections.abc import Sequence

import numpy as np

from holdfast.datamodules.decoding import Array, Decoded, Unreadable
from holdfast.datamodules.formats.scans import joined
from holdfast.datamodules.glance import Limits
from holdfast.datamodules.placing import Place
from holdfast.datamodules.reading import Reading, by

#: Part of a pixel by which the channels of an image may lie beside each other.
_OFF = 0.1


def stacked(
    files: Sequence[Decoded], reading: Reading, roi: Decoded | None
) -> tuple[Decoded, Array, Limits, Place]:
    """Files of one image as its channels, each scaled to 0..1 by its own values.

    Args:
        files: one for each channel.
        reading: how each becomes an image.
        roi: as for ``Reading.placed``.

    Returns:
        The first file, said to span 0 to 1; the image (*spatial, channels) float32; 0 and 1; and
        where it lies.

    Raises:
        Unreadable: they are of several sides or places, or do not say what they span.
    """
    scans = [file.scan for file in files if file.scan is not None]
    if scans:
        files = [file._replace(scan=joined(scans)) for file in files]
    first, parts = files[0], []
    for place, file in enumerate(files):
        check_together(first, file, f"a channel {place}")
        pixels, limits = reading.apply(file, roi)
        if limits is None:
            raise Unreadable(
                "has channels in files that do not say what they span: scale each by its own "
                "values, data.window=percentile, or all alike, data.window=[LOW,HIGH]"
            )
        low, high = limits
        scaled = (pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        parts.append(scaled.clip(0, 1))
    place_of = reading.placed(first, roi)[2]
    whole = first._replace(span=(0.0, 1.0), unit="", inverted=False)
    return whole, np.concatenate(parts, axis=-1), (0.0, 1.0), place_of


def check_together(image: Decoded, other: Decoded, what: str) -> None:
    """Refuse a file that shows another place than its image.

    Args:
        image: the image.
        other: its mask, or another of its channels.
        what: the other is, such as "a mask".

    Raises:
        Unreadable: it has other sides, another spacing, or lies elsewhere.
    """
    sides, others = image.pixels.shape[:-1], other.pixels.shape[:-1]
    if sides != others:
        raise Unreadable(f"is {by(sides)}, and has {what} of {by(others)}: they must agree")
    ours, theirs = image.spacing, other.spacing
    if ours is not None and theirs is not None and not np.allclose(ours, theirs, rtol=0.01):
        raise Unreadable(
            f"has {what} of another spacing, {_mm(theirs)} where it has {_mm(ours)}: resample "
            "one to the other, or correct its header"
        )
    if image.affine is None or other.affine is None:
        return
    corners = np.array([[0, 0, 0, 1], [*(side - 1 for side in sides[::-1]), 1]][: len(sides)])
    if corners.shape[1] != 4:
        return
    apart = np.abs(corners @ (image.affine - other.affine).T).max()
    if apart > _OFF * np.linalg.norm(image.affine[:3, :3], axis=0).min():
        raise Unreadable(
            f"has {what} that lies {apart:.3g} mm beside it: resample one to the other, or correct "
            "its header"
        )


def _mm(spacing: Sequence[float]) -> str:
    return f"{' x '.join(f'{side:.3g}' for side in spacing)} mm"
