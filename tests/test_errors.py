"""Other libraries' errors, in the words of a sentence of ours."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from holdfast.datamodules.arrays import read_arrays
from holdfast.tta import errors
from holdfast.tta.config import read_arguments
from holdfast.tta.errors import InputError, said


def test_an_error_is_told_whole_on_one_line_and_names_no_path_twice(tmp_path: Path) -> None:
    assert doctest.testmod(errors).failed == 0
    long = "install one of " + ", ".join(f"decoder-{number}" for number in range(60))
    assert said(RuntimeError(f"{long}\n  and try again.")) == f"{long} and try again"
    path = tmp_path / "scan.nii"
    for quote in ("'", '"', ""):
        error = OSError(f"no magic in {quote}{path}{quote}.")
        assert said(error, path) == "no magic in the file"
    with pytest.raises(FileNotFoundError) as caught:
        path.open()
    assert said(caught.value) == "No such file or directory"
    assert said(IndexError()) == "IndexError"
    assert said(ValueError("header\x00\x1b[2J")) == r"header\x00\x1b[2J"
    with pytest.raises(MemoryError) as memory:
        np.empty(2**60, np.uint8)
    assert "Unable to allocate" in said(memory.value)


def test_messages_are_not_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: {" + "key: [1, 2, 3], " * 30)
    with pytest.raises(InputError) as caught:
        read_arguments([str(file)], {})
    assert str(caught.value).count(str(file)) == 1
    assert "did not find expected node content" in str(caught.value)
    text = tmp_path / ("long-" * 30 + ".npz")
    text.write_text("no archive")
    with pytest.raises(InputError) as caught:
        read_arrays(text)
    assert str(caught.value).count(text.name) == 1
