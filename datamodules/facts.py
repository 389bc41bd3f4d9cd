"""What a set's images are, gathered image by image while they are decoded anyway."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.decoding import Array
from holdfast.datamodules.glance import Form, ImageGlance, Limits, glance_at

#: Images that an array's facts are taken from, spread evenly over it.
LOOKED_AT = 1024
#: Share of the images, at either end, whose quantiles the set's need not reach.
_ODD = 0.01
#: Share of their limits below which images are nearly flat: 12 bits stored as 16 seldom use more.
LITTLE = 0.05
#: Largest values of the usual depths, from 8 to 14 bits, one of which such images probably have.
_DEPTHS = (255, 1023, 4095, 16383)


@dataclass(frozen=True)
class Facts:
    """What a set's images are, as far as they were looked at: all in a check, some otherwise.

    ``pixels`` puts the part on pixels into a sentence, and ``notes`` are sentences themselves.

    Attributes:
        images: how many were looked at.
        kinds: images of each kind, the most frequent first: {"PNG uint8": 118, "JPEG uint8": 2}.
        quantiles: raw values between which nearly all pixels of nearly all images lie.
        limits: raw values that become 0 and 1 in all of them; None: each has its own, or none says.
        says: whether each image has limits, its own or an option's.
        use: share of their limits that the images use, of the kind that uses least; None: unknown.
        spacing: for each spatial axis the smallest and largest mm, where known.
        turned: volumes that were stored in another orientation and turned to RAS.
        blank: images of a single value.
        notes: what is worth knowing, a sentence each.
    """

    images: int
    kinds: dict[str, int]
    quantiles: Limits
    limits: Limits | None = None
    says: bool = False
    use: float | None = None
    spacing: tuple[Limits, ...] = ()
    turned: int = 0
    blank: int = 0
    notes: tuple[str, ...] = ()

    def pixels(self, low: float, high: float) -> str:
        """The kinds and values of the images in a sentence.

        Args:
            low: raw value that becomes 0 where images do not say.
            high: raw value that becomes 1.
        """
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        shared = self.limits is not None or not self.says
        ends = self.limits or (low, high)
        become = f"{ends[0]:g} to {ends[1]:g}" if shared else "each image's own range"
        inner = " to ".join(f"{value:.4g}" for value in self.quantiles)
        return f"{kinds}: {become} becomes 0 to 1; 99 % of the pixels lie in {inner}"


class Gathered:
    """Glances at the images of a set, in some 40 bytes each.

    Args:
        count: images of the set.
        option: which sets the values that become 0 and 1, for the notes.
        own_range: each image is scaled by itself: by its own values, or as its file says.
    """

    def __init__(self, count: int, option: str = "data.window", own_range: bool = False) -> None:
        self.option, self.own_range = option, own_range
        self.forms: dict[Form, int] = {}
        #: (N,) index in ``forms``, -1 where an image was not looked at.
        self.codes = np.full(count, -1, np.int32)
        self.quantiles = np.full((count, 2), np.nan, np.float32)
        self.extremes = np.full((count, 2), np.nan, np.float32)
        self.limits = np.full((count, 2), np.nan, np.float64)
        #: (N,) whether an image that was looked at has a pixel that is NaN or infinite.
        self.broken = np.zeros(count, np.bool_)
        self._spacing: dict[int, Limits] = {}
        self._turned = 0

    def add(self, row: int, glance: ImageGlance) -> None:
        """Take in what was seen of an image."""
        self.codes[row] = self.forms.setdefault(glance.form, len(self.forms))
        self.quantiles[row], self.extremes[row] = glance.quantiles, glance.extremes
        self.broken[row] = not glance.finite
        if glance.limits is not None:
            self.limits[row] = glance.limits
        for axis, side in enumerate(glance.spacing or ()):
            low, high = self._spacing.get(axis, (side, side))
            self._spacing[axis] = min(low, side), max(high, side)
        self._turned += glance.turned

    def leave_out(self, rows: npt.NDArray[np.intp]) -> None:
        """Forget images that will not be used."""
        self.codes[rows] = -1

    def rows(self, *forms: Form) -> npt.NDArray[np.intp]:
        """The images that have one of these forms."""
        return np.flatnonzero(np.isin(self.codes, [self.forms[form] for form in forms]))

    def counted(self) -> dict[Form, int]:
        """How many images have each form, the most frequent first, then the one seen first."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.forms)).tolist()
        order = sorted(self.forms, key=lambda form: -counts[self.forms[form]])
        return {form: counts[self.forms[form]] for form in order if counts[self.forms[form]]}

    def first_form(self, rows: npt.NDArray[np.intp]) -> Form:
        """The form of the first of some images."""
        return list(self.forms)[self.codes[rows[0]]]

    def shape(self) -> tuple[int, ...]:
        """The most frequent shape of an image."""
        shapes = Counter[tuple[int, ...]]()
        for form, count in self.counted().items():
            shapes[form.shape] += count
        return shapes.most_common(1)[0][0]

    def shown(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Those of the images that show anything: more than one value, or all where none does."""
        low, high = self.extremes[rows].T
        varied = rows[high > low]
        return varied if len(varied) else rows[np.isfinite(low)]

    def inner(self, rows: npt.NDArray[np.intp]) -> Limits:
        """Raw values between which nearly all pixels of nearly all of some images lie."""
        rows = self.shown(rows)
        if not len(rows):
            return 0.0, 0.0
        odd = int(_ODD * len(rows))
        lows, highs = np.sort(self.quantiles[rows], axis=0).T
        return float(lows[odd]), float(highs[-1 - odd])

    def facts(self) -> Facts:
        """What the images are."""
        seen = np.flatnonzero(self.codes >= 0)
        counts, kinds = self.counted(), Counter[str]()
        for form, count in counts.items():
            kinds[f"{form.kind} {form.dtype}".strip()] += count
        low, high = self.extremes[seen].T
        uses = {} if self.own_range else {form: self._use(form) for form in counts}
        known = [use for use in uses.values() if use is not None]
        limits = np.sort(self.limits[seen], axis=1)  # MONOCHROME1 has them turned
        same = bool(len(seen)) and bool((limits == limits[0]).all())
        return Facts(
            images=len(seen),
            kinds=dict(kinds.most_common()),
            quantiles=self.inner(seen),
            limits=(float(limits[0, 0]), float(limits[0, 1])) if same else None,
            says=bool(np.isfinite(limits).all()),
            use=min(known, default=None),
            spacing=tuple(self._spacing[axis] for axis in sorted(self._spacing)),
            turned=self._turned,
            blank=int((low == high).sum()),
            notes=tuple(self._notes(counts, uses)),
        )

    def _use(self, form: Form) -> float | None:
        """Share of their limits that images of a form use; None where that is not known."""
        rows = self.rows(form)
        low, high = sorted(self.limits[rows[0]].tolist())
        first, last = self.inner(rows)
        if not low < high or first == last:
            return None
        return max(0.0, (min(last, high) - max(first, low)) / (high - low))

    def _notes(self, counts: dict[Form, int], uses: dict[Form, float | None]) -> list[str]:
        notes = Counter[str]()
        for form, count in counts.items():
            if form.note:
                notes[f"{form.kind}: {form.note}"] += count
            use = uses.get(form)
            if use is not None and use < LITTLE:
                notes[self._little(form, use)] += count
        lines = [f"{count} {note}" for note, count in notes.items()]
        low, high = self.extremes[self.codes >= 0].T
        for count, what in ((low == high, "show a single value"), (low != low, "hold no number")):
            if count.any():
                lines.append(f"{count.sum()} of {len(low)} images {what}")
        return lines

    def _little(self, form: Form, use: float) -> str:
        rows = self.rows(form)
        low, high = sorted(self.limits[rows[0]].tolist())
        last = self.inner(rows)[1]
        likely = None if low else likely_end(last)
        ends = "LOW,HIGH" if likely is None else f"0,{likely}"
        return (
            f"{form.kind} {form.dtype} use {use:.1%} of the range {low:g} to {high:g} and will be "
            f"nearly flat: set {self.option}=[{ends}] if that is what they hold"
        )


def likely_end(largest: float) -> int | None:
    """The largest value of the depth that unsigned numbers probably have; None: no usual one."""
    return next((end for end in _DEPTHS if end >= largest), None)


def gathered(images: Array, limits: Limits | None) -> Gathered:
    """What an array's images are.

    Args:
        images: (N, …), numbers.
        limits: raw values that become 0 and 1, where they are known.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images)), dtype=int))
    found = Gathered(len(rows), "data.range")
    for place, row in enumerate(rows):
        found.add(place, glance_at(images[row], limits))
    return found
