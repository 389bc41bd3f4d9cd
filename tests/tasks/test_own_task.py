"""A task that is not ours, by the registry alone: trained, adapted under the guard, written, shown;
and a target of its own kind.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import Tensor

from holdfast.callbacks.report.contact import write_sheet
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.streams import BlocksConfig, PrevalenceConfig, create_stream
from holdfast.datamodules.summary import understood
from holdfast.datamodules.targets import TARGETS, AskedOfArrays, Read, Target, register_target
from holdfast.datamodules.targets.base import Rows, Where
from holdfast.programs import adapt, train
from holdfast.testing import check_method
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.tasks import TASKS, create_task, register_task
from tests.callbacks.test_report import checked
from tests.conftest import QUICK, ROOT
from tests.datamodules.test_files import write_picture
from tests.tasks.plugin.grading import Grading

HERE = Path(__file__).parent / "plugin"
GRADES = ("none", "mild", "moderate", "severe")


@pytest.fixture(scope="module")
def grading() -> Iterator[None]:
    """The task, registered for this module."""
    register_task("grading", Grading)
    yield
    TASKS._entries.pop("grading")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares that are the larger the graver the case, two images a patient; darker elsewhere."""
    draw, count = np.random.default_rng(0), 480
    grades = np.repeat(draw.integers(0, 4, count // 2), 2)
    images = draw.integers(30, 90, (count, 16, 16))
    for image, grade in zip(images, grades, strict=True):
        image[2 : 4 + 3 * grade, 2 : 4 + 3 * grade] += 110
    domain = np.where(np.arange(count) < 360, "here", "there")
    images[domain == "there"] = 40 + images[domain == "there"] // 3
    splits = np.repeat(["train", "val", "test", "test"], [240, 60, 60, 120])
    path = tmp_path_factory.mktemp("grades") / "grades.npz"
    columns: dict[str, Any] = {
        "images": images.astype(np.uint8),
        "labels": grades,
        "domain": domain,
        "split": splits,
        "group": np.array([f"p{row // 2}" for row in range(count)]),
        "age": draw.integers(40, 80, count),
        "class_names": np.array(GRADES),
    }
    np.savez(path, **columns)
    return path


@pytest.fixture(scope="module")
def grader(grading: None, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source that grades."""
    folder = tmp_path_factory.mktemp("grader") / "source"
    words = [str(HERE / "grading.yaml"), f"data.path={scans}", "calibrate=off", f"output={folder}"]
    assert train.main([*QUICK, *words]) == 0
    return folder


def test_the_figure_is_scikit_learns(grading: None) -> None:
    draw = torch.Generator().manual_seed(0)
    task, logits = create_task("grading", 4), torch.randn(80, 4, generator=draw)
    truth = torch.randint(-1, 4, (80,), generator=draw)
    said, known = task.decide(task.probabilities(logits)), truth >= 0
    expected = cohen_kappa_score(truth[known], said[known], weights="quadratic")
    assert task.figure(task.probabilities(logits), truth) == pytest.approx(100 * expected)


@pytest.mark.parametrize("name", ["tent", "dsbr", "norm"])
def test_methods_keep_what_they_promise_with_it(grading: None, name: str) -> None:
    check_method(METHODS[name], task="grading")


def test_it_is_trained_and_watched_by_its_own_figure(grader: Path) -> None:
    checkpoint = SourceCheckpoint.load(grader)
    assert checkpoint.meaning.name == "grading"
    assert tuple(checkpoint.class_names) == GRADES
    metrics = json.loads((grader / "metrics.json").read_text())
    assert metrics["kappa"] > 80
    assert metrics["val_kappa"] > 80
    assert metrics["domains"]["here"]["kappa"] == metrics["kappa"]
    assert "balanced_accuracy" not in metrics


@pytest.mark.slow
@pytest.mark.gate
def test_it_is_adapted_guarded_written_and_shown(grader: Path, scans: Path, tmp_path: Path) -> None:
    words = [f"source={grader}", "data=npz", f"data.path={scans}", "data.target=there"]
    words += ["data.subgroups=[age/20]", "method=tent", "guard=on", "stream=blocks"]
    words += ["stream.batch_size=16", "report=true", "data.task=grading"]
    output = tmp_path / "run"
    assert adapt.main([*QUICK, *words, f"output={output}"]) == 0
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    for row in rows:
        shares = torch.tensor([[float(row[f"prob_{name}"]) for name in GRADES]])
        if (shares.cumsum(1) - 0.5).abs().min() > 1e-4:  # or six digits do not tell
            assert row["prediction"] == GRADES[int(Grading(4).decide(shares))]
        assert row["label"] in GRADES
        assert row["verdict"]
    metrics = json.loads((output / "metrics.json").read_text())
    codes = [[GRADES.index(row[name]) for row in rows] for name in ("label", "prediction")]
    expected = cohen_kappa_score(*codes, weights="quadratic")
    assert metrics["kappa"] == pytest.approx(100 * expected, abs=0.01)
    assert set(metrics["against"]) == {"source", "control"}
    assert set(metrics["subgroups"]["age/20"]) == {"40-59", "60-79"}
    with (output / "patients.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 60
    _, page = checked(output / "report.html")
    assert {"Over the stream", "Domains and subgroups", "Settings"} <= set(page.titles)
    assert (output / "trajectory.png").is_file()


@pytest.mark.parametrize("folder", ["tta", "datamodules", "callbacks", "holdfast"])
def test_nothing_asks_for_the_name_of_a_task(folder: str) -> None:
    asks = re.compile(r"""task(\.name)?\s*(==|!=|in|not in)\s*[("'\[]""")
    found = [
        f"{path}: {line}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert not found


def test_labels_serve_each_task_that_asks_for_them(grader: Path, scans: Path) -> None:
    config = NpzConfig(path=str(scans), target="there", task="grading")
    images = load_npz(config, "target")
    assert images.task == "grading"
    with pytest.raises(InputError, match=r"expected one of auto, single, .* or grading"):
        NpzConfig(path=str(scans), task="grades")


@dataclass(frozen=True, eq=False)
class Ages(Target):
    """A number an image, NaN where it is not known."""

    key: ClassVar[str] = "age"
    usual: ClassVar[str] = "ageing"
    called: ClassVar[str] = "age"
    unknown: ClassVar[float] = float("nan")
    undrawn: ClassVar[str] = "ages are none"

    values: npt.NDArray[np.float32]
    names: tuple[str, ...] = ("age",)

    @classmethod
    def of_nothing(cls, count: int) -> "Ages":
        return cls(np.full(count, np.nan, np.float32))

    @classmethod
    def from_arrays(cls, asked: AskedOfArrays) -> Read:
        return Read(cls(asked.arrays["age"][asked.rows].astype(np.float32)))

    def __len__(self) -> int:
        return len(self.values)

    def batch(
        self, rows: Rows, sides: tuple[int, ...], lost: dict[int, str] | None = None
    ) -> Tensor:
        return torch.from_numpy(self.values[rows])

    def subset(self, rows: npt.NDArray[Any]) -> "Ages":
        return replace(self, values=self.values[rows])

    @property
    def known(self) -> Where:
        return np.isfinite(self.values)

    @property
    def kinds(self) -> Rows:
        return np.where(self.known, np.nan_to_num(self.values) // 20, -1).astype(np.int64)

    def counts(self) -> Rows:
        return np.array([self.known.sum()])

    def numbered(self, table: Rows, names: tuple[str, ...]) -> "Ages":
        return self

    def check_teaches(self) -> None:
        if not self.known.any():
            raise InputError("no training image has an age: give the file a key age")

    def said(self, row: int) -> str:
        return f"{self.values[row]:.0f} years"


class Ageing(Grading):
    """Asks for a number."""

    name: ClassVar[str] = "ageing"
    target: ClassVar[str] = "age"
    fewest: ClassVar[int] = 1


@pytest.fixture
def ageing() -> Iterator[None]:
    """Task and target, registered."""
    register_target("age", Ages)
    register_task("ageing", Ageing)
    yield
    TASKS._entries.pop("ageing")
    TARGETS._entries.pop("age")


def test_a_target_of_another_kind_is_read_batched_ordered_and_told(
    ageing: None, scans: Path, tmp_path: Path
) -> None:
    config = NpzConfig(path=str(scans), source="here", target="there", task="ageing")
    train_, val = load_npz(config, "train"), load_npz(config, "val")
    data = SourceData(train_, val, batch_size=8, augment=("flip",))
    batch = next(iter(data.train_dataloader()))
    assert batch["age"].shape == (8,)
    assert 40 <= float(batch["age"].min()) <= float(batch["age"].max()) < 80
    assert next(iter(data.in_order("val", [0, 1], unlabelled=1)))["age"].isnan().tolist() == [
        *(False, True)
    ]
    images = load_npz(config, "target")
    rows = create_stream(BlocksConfig(), images, 0).rows
    assert (np.diff(images.target.kinds[rows]) != 0).sum() == 1  # two decades of age, two blocks
    with pytest.raises(InputError, match="and ages are none: choose among"):
        create_stream(PrevalenceConfig(), images, 0)
    lines = understood({"target": images})
    assert "years; target" in write_sheet(tmp_path, "ages", lines, {"target": images}).read_text()


def test_a_target_is_registered_under_its_own_key() -> None:
    with pytest.raises(InputError, match="under 'age': register it as that"):
        register_target("ages", Ages)


def test_a_number_without_classes_is_refused_before_training(
    ageing: None, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=npz", f"data.path={scans}", "data.source=here", "data.task=ageing"]
    assert train.main([*QUICK, *words, "model=compact", f"output={tmp_path / 'none'}"]) == 2
    assert "is described by images of each class, which age does not" in capsys.readouterr().err


def test_what_nobody_reads_is_said(
    ageing: None, grader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_picture(tmp_path / f"{number}.png", np.full((16, 16), number, np.uint8))
    words = [f"source={grader}", "data=folder", f"data.root={tmp_path}", "data.task=ageing"]
    assert adapt.main([*QUICK, *words, "data.check=false"]) == 2
    assert "nothing reads targets of age here" in capsys.readouterr().err
