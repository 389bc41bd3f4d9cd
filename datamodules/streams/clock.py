"""Times as tables write them, as numbers that sort: numbers, ISO 8601, DICOM's dates and times, or
a format that is named.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time

import numpy as np
import numpy.typing as npt

from holdfast.tta.errors import InputError

Times = npt.NDArray[np.float64] | npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Of times that come without a date.
_SOME_DAY = date(2000, 1, 1)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: DICOM's DA and DT: the year first, as precise as one likes, and perhaps an offset from UTC.
_DICOM_DATE = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-]\d{4})?", re.ASCII
)
#: DICOM's TM: hours, and minutes and seconds where they are known.
_DICOM_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
#: Dates of ISO 8601 without a day, and what makes them whole.
_PARTS = ((re.compile(r"\d{4}-\d\d", re.ASCII), "-01"), (re.compile(r"\d{4}", re.ASCII), "-01-01"))


def sortable(column: str, values: Sequence[str], form: str | None = None) -> Times:
    """Times as numbers that sort as they follow each other.

    Numbers are counted, unless all of them are DICOM's dates or times, of which the shorter are
    less precise, not earlier.

    Args:
        column: its name, for messages.
        values: (N,) times as text, none of them empty.
        form: as ``datetime.strptime`` takes it; None: one of the forms above.

    Raises:
        InputError: times are written in another way, or only some of them with their offset from
            UTC.
    """
    if form is not None:
        return _instants(column, values, [_by(form)], f"does not fit stream.time_format={form}")
    if all(map(_NUMBER.fullmatch, values)):
        return _numbers(values)
    reason = (
        "is neither a number nor a date of ISO 8601 (2024-05-31T12:00) or DICOM (20240531): say "
        "how it "
        "is written, for instance stream.time_format=%d.%m.%Y for 31.05.2024"
    )
    # DICOM's first: 20240531120000 is ISO 8601 too, with a 1 between date and time.
    parsers = [_of_day] if _of_day(values[0]) else [_dicom, _iso]
    return _instants(column, values, parsers, reason)


def _numbers(values: Sequence[str]) -> Times:
    """Numbers by their value, or DICOM's dates and times that are written with a different
    precision.
    """
    parsers = [_dicom]
    # 9 and 10 are numbers, 0930 and 093015 are not.
    if len({len(value.split(".")[0]) for value in values}) > 1 and any(
        value.startswith("0") for value in values
    ):
        parsers.append(_dicom_time)
    for parse in parsers:
        if all(map(parse, values)):
            return np.array([_microseconds(at) for at in map(parse, values) if at is not None])
    return np.array(values, dtype=str).astype(np.float64)


def _instants(
    column: str,
    values: Sequence[str],
    parsers: Sequence[Callable[[str], datetime | None]],
    reason: str,
) -> Times:
    """Microseconds of each time."""
    instants, offsets = np.empty(len(values), dtype=np.int64), set()
    for row, value in enumerate(values):
        at = next((at for parse in parsers if (at := parse(value)) is not None), None)
        if at is None:
            raise InputError(f"the column {column!r} holds {value!r}, which {reason}")
        instants[row] = _microseconds(at)
        offsets.add(at.tzinfo is not None)
        if len(offsets) > 1:
            raise InputError(
                f"the column {column!r} holds times with and without an offset from UTC, {value!r} "
                "among "
                "them, and nobody knows how those compare: write all in one way"
            )
    return instants


def _microseconds(at: datetime) -> int:
    since = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86400 + since.seconds) * 10**6 + since.microseconds


def _by(form: str) -> Callable[[str], datetime | None]:
    def parse(value: str) -> datetime | None:
        try:
            return datetime.strptime(value, form)
        except ValueError:
            return None

    return parse


def _iso(value: str) -> datetime | None:
    """A date, a date and time, a month or a year."""
    rest = next((rest for pattern, rest in _PARTS if pattern.fullmatch(value)), "")
    try:
        return datetime.fromisoformat(value + rest)
    except ValueError:
        return None


def _of_day(value: str) -> datetime | None:
    """A time of day alone."""
    if value[2:3] != ":":  # 2024-05 would be 20:24, five hours west
        return None
    try:
        return datetime.combine(_SOME_DAY, time.fromisoformat(value))
    except ValueError:
        return None


def _dicom(value: str) -> datetime | None:
    found = _DICOM_DATE.fullmatch(value)
    if found is None or int(found[1]) < 1800:  # another number, such as seconds since 1970
        return None
    *parts, fraction, offset = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    try:
        at = datetime(*numbers, microsecond=int((fraction or "").ljust(6, "0")))  # type: ignore[arg-type, misc]
        return at if offset is None else datetime.fromisoformat(f"{at.isoformat()}{offset}")
    except ValueError:
        return None


def _dicom_time(value: str) -> datetime | None:
    found = _DICOM_TIME.fullmatch(value)
    if found is None:
        return None
    hour, minute, second, fraction = found.groups()
    try:
        of_day = time(
            int(hour), int(minute or 0), int(second or 0), int((fraction or "").ljust(6, "0"))
        )
    except ValueError:
        return None
    return datetime.combine(_SOME_DAY, of_day)
