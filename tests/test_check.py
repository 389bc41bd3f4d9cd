"""check=only: what a run would do with its data is said and shown, and nothing is done."""

import html.parser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holdfast.callbacks.report.contact import chosen, sheet, write_sheet
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.targets import LabelTarget
from holdfast.programs import adapt, train
from holdfast.tta.checkpoint import SourceCheckpoint
from tests.conftest import QUICK
from tests.test_own_data import clinic

Capture = pytest.CaptureFixture[str]


def labelled(count: int, classes: int, spatial: tuple[int, ...] = (6, 6)) -> ImageSet:
    names = np.arange(count).astype(str)
    pixels = np.zeros((count, *spatial), np.uint8)
    kinds = tuple(f"c{label}" for label in range(classes))
    labels = np.arange(count) % max(classes, 1) - (classes == 0)
    target = LabelTarget(labels, kinds)
    return ImageSet(pixels, target, names, names, names, spatial_dims=len(spatial))


def test_training_is_checked_and_not_done(tmp_path: Path, capsys: Capture) -> None:
    path, out = Path(clinic(tmp_path, count=24)), tmp_path / "check"
    words = [*QUICK, "data=table", f"data.path={path}", "check=only", f"output={out}"]
    assert train.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "classes: 2 (ill: 8, well: 8 images in train)"
    assert lines[-1].endswith(f"nothing was trained; contact sheet: {out / 'contact.html'}")
    assert sorted(file.name for file in out.iterdir()) == ["contact.html", "contact.png"]
    with Image.open(out / "contact.png") as picture:
        assert min(picture.size) > 500
    page = (out / "contact.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12
    assert "src='data:image/png" in page
    assert all(f"; {split}, clinic; " in page for split in ("train", "val", "test"))
    # What would stop the run stops the check.
    (path.parent / "images" / "003.png").write_text("damaged")
    assert train.main(words) == 2
    assert "1 of 24 files cannot be used" in capsys.readouterr().err
    assert train.main([*words, "data.on_error=skip", "model=vit", "data.size=15"]) == 2
    assert train.main([*words, "check=yes"]) == 2
    assert "check=only checks" in capsys.readouterr().err


def test_adaptation_is_checked_and_not_done(source: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "check"
    words = [*QUICK, f"source={source}", "check=only", f"output={out}"]
    assert adapt.main([*words, "shift=noise", "method=tent"]) == 0
    told = capsys.readouterr().out
    assert "classes: 4 (round: 125, elongated: 125" in told
    assert "nothing was adapted" in told
    assert sorted(file.name for file in out.iterdir()) == ["contact.html", "contact.png"]
    names = [
        "data=table",
        f"data.path={clinic(tmp_path, count=24)}",
        "data.size=32",
        "data.channels=3",
    ]
    assert adapt.main([*words, *names]) == 2
    assert "cannot be mapped to the source's classes" in capsys.readouterr().err
    assert adapt.main([*words[:-1], "name=../x"]) == 2


def test_what_a_target_lacks_is_said_ahead(source: Path, tmp_path: Path, capsys: Capture) -> None:
    checkpoint = SourceCheckpoint.load(source)
    trained = {**checkpoint.data, "window": [-160, 240], "spacing": None}
    replace(checkpoint, data=trained).save(tmp_path / "windowed.ckpt")
    (tmp_path / "there").mkdir()
    for number in range(3):
        colours = np.full((32, 32, 3), 80 * number, np.uint8)
        Image.fromarray(colours).save(tmp_path / "there" / f"{number}.png")
    words = [*QUICK, "data=folder", f"data.root={tmp_path / 'there'}", "check=only"]
    words += [f"source={tmp_path / 'windowed.ckpt'}", f"output={tmp_path / 'check'}"]
    lost = "the source was trained with data.window=[-160,240], and the target is read without"
    short = "the stream has 3 images, fewer than a batch of 64, so nothing will be learned"
    assert adapt.main(words) == 0
    told = capsys.readouterr()
    assert lost in told.out
    assert short in told.err
    assert adapt.main([*words, "data.window=[0,255]", "stream.batch_size=3"]) == 0
    told = capsys.readouterr()
    assert lost not in told.out
    assert short not in told.err
    assert adapt.main([*words, "method=source"]) == 0
    assert short not in capsys.readouterr().err


def test_the_sheet_shows_all_splits_and_many_classes() -> None:
    sets = {"train": labelled(90, 3), "val": labelled(9, 3), "test": labelled(2, 3)}
    rows = chosen(sets)
    assert len(rows) == len(set(rows)) == 12
    assert [sum(name == split for split, _ in rows) for name in sets] == [5, 5, 2]
    assert {int(sets[name].labels[row]) for name, row in rows if name == "train"} == {0, 1, 2}
    assert len({row % 100 for _, row in chosen({"target": labelled(300, 100)})}) == 12
    assert chosen({"target": labelled(1, 0)}) == [("target", 0)]


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_of_a_file_becomes_markup(tmp_path: Path) -> None:
    evil = "<script>alert('$1')</script>\" onload='x"
    images = labelled(3, 1, (4, 6, 6))
    images = ImageSet(
        np.asarray(images.images),
        LabelTarget(images.labels, (evil,)),
        *[np.array([evil] * 3)] * 3,
        spatial_dims=3,
    )
    page = write_sheet(tmp_path, evil, [evil], {evil: images}).read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert "script" not in {tag for tag, _ in tags.found}
    assert not any("onload" in attributes for _, attributes in tags.found)
    assert page.count("<img ") == 3


def test_black_is_0_and_white_is_1() -> None:
    from holdfast.callbacks.report.contact import Shown

    dim = np.full((1, 4, 4), 0.25, np.float32)
    drawn = sheet([Shown("a", "b; c; d", dim)], "dim").axes[0].images[0]
    assert drawn.get_array().max() == 64
    assert drawn.get_clim() == (0, 255)
