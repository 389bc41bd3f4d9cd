"""The benchmark's streams: what is asked of adapt.py, and what comes of it."""

from pathlib import Path

import numpy as np
import pytest

from holdfast.benchmarks import orders
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.grid import Setting
from holdfast.benchmarks.passes import load_checkpoint
from holdfast.benchmarks.plan import create_plan
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_picture

PHANTOM = ("data.target_images=200", "data.test_images=40")


def labels_of(source: Path, order: str, seed: int = 0) -> np.ndarray:
    setting = Setting("phantom", "scanner_b", "compact", "none", 0, order, 64, seed)
    batches, _ = orders.load_stream(setting, str(source), (*PHANTOM, "data.target=scanner_b"), 600)
    return batches.truth.numpy()


def test_a_subset_of_the_classes_is_balanced_and_drawn_by_the_seed(source: Path) -> None:
    counts = [np.bincount(labels_of(source, "subset", seed), minlength=4) for seed in range(3)]
    assert all(sorted(count)[:2] == [0, 0] for count in counts)
    assert all(np.ptp(count[count > 0]) <= 3 for count in counts)  # a row of rounding each pass
    assert len({tuple(count > 0) for count in counts}) > 1


def test_a_majority_switches_once_though_the_target_is_passed_over(source: Path) -> None:
    first, second = np.array_split(labels_of(source, "switch"), 2)
    assert np.bincount(first).argmax() == 0
    assert np.bincount(second).argmax() == 1
    assert (first == 0).mean() == pytest.approx(0.85, abs=0.01)
    assert (second == 1).mean() == pytest.approx(0.85, abs=0.01)


def test_one_class_for_good(source: Path) -> None:
    assert len({int(label) for label in labels_of(source, "one")}) == 1


def test_the_words_of_an_order() -> None:
    assert orders.order_words("blocks", 4, 0) == ["stream=blocks"]
    assert orders.order_words("balanced", 2, 0)[1] == "stream.prevalence=[0.5, 0.5]"
    assert orders.order_words("subset", 6, 0)[1].count("0.333") == 3
    assert orders.order_words("subset", 3, 1)[1].count("0.5") == 2


def test_half_of_two_classes_is_left_out(data_folder: Path) -> None:
    def streams(*words: str) -> set[tuple[str, str]]:
        words = (*words, f"data.root={data_folder}", "shifts=[none]")
        plan = create_plan(entry.configured(BenchmarkConfig, {}, words))
        return {(stream.setting.data, stream.setting.stream) for stream, _ in plan}

    both = "data.targets=[chest,phantom/scanner_b]"
    assert streams(both, "streams=[one,subset]") == {
        ("chest", "one"),
        ("phantom", "one"),
        ("phantom", "subset"),
    }
    with pytest.raises(InputError, match="three classes or more"):
        streams("data.targets=[chest]", "streams=[subset]")


def test_recurring_domains_are_the_targets_and_the_sources(source: Path, tmp_path: Path) -> None:
    phantom = ("data.target_images=40", "data.test_images=40")
    there = orders._there_and_back(str(source), (*phantom, "data.target=scanner_b"))
    assert there == ["data.target=[scanner_b,scanner_a]"]
    both = orders._there_and_back(str(source), (*phantom, "data.target=[scanner_b,scanner_c]"))
    assert both == ["data.target=[scanner_b,scanner_c,scanner_a]"]
    assert orders._there_and_back(str(source), (*phantom, "data.target=scanner_a")) == []
    for number in range(4):
        write_picture(tmp_path / "here" / "test" / f"{number}.png", grey(8, (32, 32, 3)))
    folder = ("data=folder", f"data.root={tmp_path / 'here'}", f"data.target={tmp_path / 'here'}")
    with pytest.raises(InputError, match=r"data\.target=.* of data=folder names none"):
        orders._there_and_back(str(source), folder)


def test_labels_of_some_are_of_images_that_have_one(source: Path, tmp_path: Path) -> None:
    setting = Setting("phantom", "scanner_b", "compact", "none", 0, "iid", 64, 0)
    batches, _ = orders.load_stream(setting, str(source), (*PHANTOM, "data.target=scanner_b"), 600)
    names = load_checkpoint(str(source)).class_names
    batches.truth[:400] = -1
    path = tmp_path / "labels.csv"
    orders.write_labels(path, batches, 1.0, names, 0)
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    ids = [name for batch in batches for name in batch["id"]]
    known = {
        name: names[label]
        for name, label in zip(ids[400:], batches.truth[400:].tolist(), strict=True)
    }
    assert dict(rows) == known
    assert len(rows) == len(known)
    batches.truth = batches.truth[:, None]
    with pytest.raises(InputError, match="leave it out of policies"):
        orders.write_labels(path, batches, 1.0, names, 0)
