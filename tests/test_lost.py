"""Files that vanish or break while a stream runs: each a row with its reason, and the run goes
on.
"""

import csv
import json
import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.datamodules import StreamLoader, load_images
from holdfast.datamodules.folder import FolderConfig
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.streams.window import counted
from holdfast.programs import adapt, train
from holdfast.tta.errors import InputError
from tests.conftest import QUICK
from tests.datamodules.test_files import files, write_picture


def write_all(folder: Path, count: int = 12) -> list[str]:
    for number in range(count):
        write_picture(
            folder / f"{number:02d}.png", np.full((32, 32, 3), 9 * number % 256, np.uint8)
        )
    return [f"{number:02d}.png" for number in range(count)]


def images_of(folder: Path, **options: Any) -> ImageSet:
    config = FolderConfig(target=str(folder), cache=0.0, **options)
    images = load_images("folder", config, "target")
    return images


def spoil(folder: Path) -> dict[str, str]:
    """Delete one file, cut one off, resize one, and delete a whole batch of four; how each is
    told.
    """
    (folder / "02.png").unlink()
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[: len(whole) // 2])
    write_picture(folder / "10.png", np.zeros((16, 16, 3), np.uint8))
    for number in range(4, 8):
        (folder / f"{number:02d}.png").unlink()
    gone = {f"{number:02d}.png": "does not exist" for number in (2, 4, 5, 6, 7)}
    cut = "cannot be read (image file is truncated"
    return dict(
        sorted({**gone, "03.png": cut, "10.png": "is 16x16 where others are 32x32"}.items())
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_without_what_it_lost(tmp_path: Path, workers: int) -> None:
    write_all(tmp_path)
    images = images_of(tmp_path)
    images.images._patience.left = 0.0
    told = spoil(tmp_path)
    loader = StreamLoader(images, np.arange(12), 4, workers, lenient=True)
    batches = list(loader)
    assert [name for name, _ in loader.lost.values()] == list(told)
    for (_, reason), words in zip(loader.lost.values(), told.values(), strict=True):
        assert words in reason
    left = [[batch["id"][place] for place in counted(batch)] for batch in batches]
    assert left == [["00.png", "01.png"], ["08.png", "09.png", "11.png"]]
    assert batches[0]["lost"] == [2, 3]
    assert torch.equal(batches[0]["image"][2], batches[0]["image"][0])  # which stands in
    again = list(loader)  # the same images count, whatever can be read now
    assert [counted(batch) for batch in again] == [counted(batch) for batch in batches]
    resumed = StreamLoader(images, np.arange(12), 4, workers, lenient=True)
    resumed.load_state_dict(loader.state_dict())
    assert (list(resumed), resumed.lost) == ([], loader.lost)
    with pytest.raises(InputError, match=r"02\.png does not exist: repair or remove it"):
        list(StreamLoader(images, np.arange(12), 4, workers))


def test_in_a_sliding_window_each_image_is_lost_once(tmp_path: Path) -> None:
    write_all(tmp_path)
    images = images_of(tmp_path)
    images.images._patience.left = 0.0
    (tmp_path / "05.png").unlink()
    loader = StreamLoader(images, np.arange(12), 2, window=6, lenient=True)
    seen = [batch["id"][place] for batch in loader for place in counted(batch)]
    assert seen == [f"{number:02d}.png" for number in range(12) if number != 5]
    assert loader.lost.keys() == {5}


def test_a_stream_without_any_image_left_is_an_error(tmp_path: Path) -> None:
    write_all(tmp_path, 4)
    images = images_of(tmp_path)
    images.images._patience.left = 0.0
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="no image of the stream can be read any more"):
        list(StreamLoader(images, np.arange(4), 2, lenient=True))


@pytest.mark.parametrize("extra", [[], ["workers=1"], ["stream=window", "stream.window=6"]])
def test_a_run_leaves_a_row_for_every_image(
    source: Path, tmp_path: Path, extra: list[str], capsys: Any
) -> None:
    """Without a check, files that are unreadable from the start are like those that become so."""
    names = write_all(tmp_path / "images")
    told = spoil(tmp_path / "images")
    table = tmp_path / "images" / "table.csv"
    table.write_text("\n".join(["path", *names]))
    words = [f"source={source}", "data=table", f"data.path={table}"]
    words += ["data.check=false", "data.cache=0", "method=tent", "seed=1", "report=true"]
    size = "stream.batch_size=2" if "stream=window" in extra else "stream.batch_size=4"
    folder = tmp_path / "out"
    assert adapt.main([*QUICK, *words, size, *extra, f"output={folder}"]) == 0
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["id"] for row in rows) == names
    lost = {row["id"]: row["reason"] for row in rows if not row["prediction"]}
    assert sorted(lost) == list(told)
    assert all(words in lost[name] for name, words in told.items())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["unreadable_images"] == len(told)
    assert (folder / "report.html").is_file()
    assert "7 images without a prediction" in capsys.readouterr().out


def test_training_ends_in_one_sentence(tmp_path: Path, capsys: Any) -> None:
    for label in "ab":
        write_all(tmp_path / "images" / label, 20)
    (tmp_path / "images" / "b" / "07.png").write_bytes(b"damaged")
    words = ["data=folder", f"data.root={tmp_path / 'images'}", "data.shares=[.6,.2,.2]"]
    words += ["data.check=false", "epochs=1", f"output={tmp_path / 'out'}"]
    for workers in (0, 1):
        assert train.main([*QUICK, *words, f"workers={workers}"]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(errors) == 1
        assert errors[0].startswith("error: b/07.png is no image, or damaged")
        assert errors[0].endswith("repair or remove it")


def test_a_file_that_is_away_for_a_moment_is_read(tmp_path: Path) -> None:
    write_all(tmp_path, 3)
    images = images_of(tmp_path)
    away = tmp_path / "away"
    (tmp_path / "01.png").rename(away)
    back = threading.Timer(0.25, lambda: away.rename(tmp_path / "01.png"))
    back.start()
    lost: dict[int, str] = {}
    batch = images.batch([0, 1, 2], lost)
    back.join()
    assert lost == {}
    assert batch["image"][:, 0, 0, 0].mul(255).round().tolist() == [0, 9, 18]


def test_an_error_that_passes_is_waited_for_in_the_check_too(tmp_path: Path) -> None:
    """For a quarter of a second no file can be opened: an error of the moment, as network disks
    have.
    """
    images = files(tmp_path, *write_all(tmp_path, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    back = threading.Timer(0.25, resource.setrlimit, (resource.RLIMIT_NOFILE, (soft, hard)))
    back.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    assert images.unreadable() == {}
    back.join()


def test_many_lost_files_are_not_waited_for_one_by_one(tmp_path: Path) -> None:
    write_all(tmp_path, 40)
    images = images_of(tmp_path)
    images.images._patience.left = 0.3
    for path in tmp_path.glob("*.png"):
        path.unlink()
    lost: dict[int, str] = {}
    assert images.batch(range(40), lost)["image"].isnan().all()
    assert set(lost.values()) == {"does not exist"}
