"""Which files of a folder are images, and what else lies there."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from holdfast.datamodules import load_images
from holdfast.datamodules.folder import FolderConfig
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.table import TableConfig
from holdfast.datamodules.walk import image_files
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_dicom, write_picture


def target(folder: Path, **options: Any) -> ImageSet:
    return load_images("folder", FolderConfig(target=str(folder), **options), "target")


def test_leftovers_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "a" / "x.png", grey())
    write_picture(tmp_path / "b" / "y.png", grey())
    (tmp_path / "a" / "._x.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    write_picture(tmp_path / "__MACOSX" / "a" / "x.png", grey())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    write_picture(tmp_path / ".hidden" / "z.png", grey())
    assert image_files(tmp_path) == ["a/x.png", "b/y.png"]
    assert "4 leftover(s)" in caplog.text
    assert "no images are left out (1 .txt)" in caplog.text
    assert target(tmp_path).class_names == ("a", "b")


def test_what_a_run_left_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "x.png", grey())
    for folder in (tmp_path / "runs" / "one", tmp_path):
        write_picture(folder / "trajectory.png", grey())
        (folder / "config.yaml").write_text("seed: 0")
        (folder / "trace.csv").write_text("batch")
    write_picture(tmp_path / "runs" / "one" / "masks" / "x.png", grey())
    assert image_files(tmp_path) == ["x.png"]
    assert "1 folder(s) with the results of a run" in caplog.text
    (tmp_path / "trace.csv").unlink()  # of a picture of that name nothing else is known
    assert image_files(tmp_path) == ["trajectory.png", "x.png"]


def test_dicom_is_known_by_its_mark(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.113619.2", "DICOMDIR"):
        write_dicom(tmp_path / name, grey(12), bits=12)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "short").write_bytes(b"DICM")
    os.mkfifo(tmp_path / "pipe")
    assert image_files(tmp_path) == ["1.2.840.113619.2", "IM0001"]
    assert len(target(tmp_path)) == 2


def test_linked_folders_inside_the_root_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_picture(root / ".store" / "cats" / "1.png", grey())
    write_picture(root / "dogs" / "2.png", grey())
    os.symlink(root / ".store" / "cats", root / "cats")
    os.symlink(root, root / "dogs" / "loop")
    os.symlink("dogs", root / "a dogs")  # found where it lies, not where it is linked to
    assert image_files(root) == ["cats/1.png", "dogs/2.png"]
    images = target(root)
    assert images.class_names == ("cats", "dogs")
    assert images.batch([0, 1])["image"].shape == (2, 1, 6, 9)
    write_picture(tmp_path / "outside" / "3.png", grey())
    os.symlink(tmp_path / "outside", root / "mice")
    with pytest.raises(
        InputError, match=r"mice in .* is a link to .*outside: only what lies below"
    ):
        image_files(root)


def test_what_cannot_be_opened_is_a_row_with_its_reason(tmp_path: Path) -> None:
    for place in range(3):
        write_picture(tmp_path / f"{place}.png", grey())
    os.symlink(tmp_path.parent / "nowhere" / "a.png", tmp_path / "dangling.png")
    os.mkfifo(tmp_path / "pipe.png")  # which nobody writes to: opening it would wait for ever
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        server.bind("socket.png")
        os.chdir(before)
    images = target(tmp_path, on_error="skip")
    assert len(images) == 3
    assert images.skipped == {
        "dangling.png": "is a link to a file that does not exist",
        "pipe.png": "is a pipe, a socket or a device, and no file",
        "socket.png": "is a pipe, a socket or a device, and no file",
    }
    with pytest.raises(InputError, match=r"3 of 6 files cannot be used"):
        target(tmp_path)


def test_names_that_are_no_text_are_refused_in_a_sentence(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", grey())
    os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    with pytest.raises(InputError, match=r"1 file name\(s\) that are not UTF-8, as caf\\xe9\.png"):
        image_files(tmp_path)


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", grey())
    (tmp_path / "t.csv").write_bytes(b"path,label\nx.png,a\nb\0d.png,b\n")
    config = TableConfig(path=str(tmp_path / "t.csv"), on_error="skip")
    assert load_images("table", config, "target").skipped == {
        "b\0d.png": "has a NUL in its path, which no file has"
    }


def test_a_folder_of_another_kind_of_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.svs").write_bytes(b"II*\0")
    with pytest.raises(
        InputError,
        match=r"no image files: .*\(a/1\.svs is a whole-slide image: cut it into patches",
    ):
        image_files(tmp_path)
