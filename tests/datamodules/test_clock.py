"""Times of acquisition, as sites write them, in the order in which they followed each other."""

from dataclasses import replace

import numpy as np
import pytest

from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.datamodules import ImageSet
from holdfast.datamodules.streams import TimeConfig, stream_order
from holdfast.datamodules.streams.clock import sortable
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.errors import InputError

IN_ORDER = {
    "numbers": ["-3", "2", "9", "10", "1e3"],
    "counted from 0": ["0", "9", "10", "100"],
    "seconds since 1970": ["999999999", "1717142400", "1717142400.5"],
    "ISO dates": ["2023-12-31", "2024-05-31", "2024-05-31T00:00:01", "2024-06-01 12:00"],
    "ISO with offsets": ["2024-05-31T12:00+02:00", "2024-05-31T11:00Z", "2024-05-31T09:00-08:00"],
    "months and years": ["2022", "2023-12", "2024-01", "2024-11"],
    "times of day": ["09:30", "09:30:15", "10:00"],
    "DICOM dates": ["19991231", "20240531"],
    "DICOM dates and times": ["20240531", "20240531093015.2", "202405311000", "20240601"],
    "to the microsecond": ["20240531093015.123456", "20240531093015.123457"],
    "DICOM with offsets": ["20240531120000+0200", "20240531110000+0000"],
    "DICOM times": ["0930", "093015", "093015.5", "1000"],
}


@pytest.mark.parametrize("kind", IN_ORDER)
def test_times_as_they_are_written(kind: str) -> None:
    times = IN_ORDER[kind]
    sorted_back = [len(times) - 1 - row for row in range(len(times))]
    assert np.argsort(sortable("t", times[::-1]), kind="stable").tolist() == sorted_back
    assert len(set(sortable("t", times).tolist())) == len(times)


@pytest.mark.parametrize(
    "example", ["31.05.2024", "5/31/2024", "2024-5-31", "2024-13-01", "31 May 2024", "morning"]
)
def test_other_ways_are_refused_with_the_remedy(example: str) -> None:
    with pytest.raises(InputError, match=rf"'when' holds '{example}'.*stream\.time_format=%d\.%m"):
        sortable("when", ["2024-05-31", example])


def test_a_format_that_is_named() -> None:
    days = ["01.06.2024", "31.05.2024", "02.01.2025"]
    assert np.argsort(sortable("t", days, "%d.%m.%Y")).tolist() == [1, 0, 2]
    with pytest.raises(InputError, match=r"'2024-05-31', which does not fit stream\.time_format="):
        sortable("t", [*days, "2024-05-31"], "%d.%m.%Y")


@pytest.mark.parametrize(
    "times", [["2024-05-31T12:00Z", "2024-05-31T13:00"], ["20240531120000+0200", "20240531"]]
)
def test_times_with_and_without_offset_do_not_compare(times: list[str]) -> None:
    with pytest.raises(InputError, match=r"with and without an offset.*write all in one way"):
        sortable("t", times)


def test_a_stream_in_that_order() -> None:
    column = np.array(["1.2.2024", "20.1.2024", "3.1.2024"], dtype=np.dtypes.StringDType())
    names = np.arange(3).astype(str)
    pixels = np.zeros((3, 2, 2), np.uint8)
    images = ImageSet(pixels, LabelTarget(np.zeros(3, int), ("a",)), names, names, names)
    images = replace(images, metadata={"day": column})
    config = TimeConfig(column="day", time_format="%d.%m.%Y")
    assert stream_order(config, images, 0).tolist() == [2, 1, 0]
    images = replace(images, metadata={"day": np.array(["nan", "2024-01-01", ""])})
    with pytest.raises(InputError, match="is empty for 2 of the target's 3"):
        stream_order(TimeConfig(column="day"), images, 0)


def test_a_format_can_be_typed() -> None:
    words = ["source=x", "data=table", "stream=time", "stream.time_format=%d.%m.%Y %H:%M"]
    config = resolve(AdaptConfig, GROUPS, read_arguments(words, GROUPS))
    assert config.stream.options.time_format == "%d.%m.%Y %H:%M"
