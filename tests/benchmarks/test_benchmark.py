"""benchmark.py from end to end on a tiny phantom: stopped and gone on with, and what it refuses."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from holdfast.benchmarks import cell, runner, tables
from holdfast.benchmarks.cell import _attempt
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.plan import create_plan
from holdfast.benchmarks.sources import missing_models, plan_models
from holdfast.benchmarks.summary import as_lines, policies_of
from holdfast.datamodules.phantom import CLASSES
from holdfast.programs import benchmark
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.folder import held

Capture = pytest.CaptureFixture[str]
KEYS = (*tables.CELL_KEYS, "policy")


@pytest.fixture
def words(source: Path, tmp_path: Path) -> list[str]:
    """Four streams of two batches with a cell each, on the tests' source model."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "phantom0").symlink_to(source)
    return [
        *(
            "streams=[iid,prevalence,blocks,recurring]",
            "shifts=[none]",
            "methods=[tent]",
            "rates=[10]",
            "policies=[on]",
        ),
        *("images=128", "processes=1", f"sources={tmp_path / 'sources'}"),
    ]


def run_cells(folder: Path, *words: str) -> None:
    """The benchmark without summary and pictures."""
    folder.mkdir(exist_ok=True)
    runner.run_cells(entry.configured(BenchmarkConfig, {}, words), folder)


def results(folder: Path) -> list[dict[str, Any]]:
    """The results, sorted, without what the clock says."""
    rows = [{**row, "seconds": None} for row in tables.read(folder / "results.csv")]
    return sorted(rows, key=lambda row: tables.key_of(row, KEYS))


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_two_processes_find_the_same(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    append, run = tables.append, cell.run
    passes: list[Any] = []

    def append_until_killed(path: Path, *args: Any) -> None:
        append(path, *args)
        if path.name == "results.csv" and len(tables.read(path)) == 2:
            raise KeyboardInterrupt

    run = cell.run
    monkeypatch.setattr(
        cell,
        "run",
        lambda batches, words: passes.append(words) or run(batches, words),
    )
    monkeypatch.setattr(tables, "append", append_until_killed)
    whole = tmp_path / "whole"
    assert benchmark.main([*words, f"output={whole}"]) == 130
    assert "goes on" in capsys.readouterr().err
    first = results(whole)
    assert len(first) == 2
    monkeypatch.setattr(tables, "append", append)
    before = len(passes)
    assert benchmark.main([*words, f"output={whole}"]) == 0
    assert len(passes) - before == before, "two streams each time"
    rows = results(whole)
    assert len(rows) == len({tables.key_of(row, KEYS) for row in rows}) == 4
    assert all(row in rows for row in first)
    run_cells(whole, *words)
    assert len(passes) == 2 * before, "nothing was left to run"
    assert tuple(rows[0]) == tables.RESULTS
    assert {row["lr"] for row in rows} == {0.01}
    streams = tables.read(whole / "references.csv")
    assert all(row["images"] >= 128 and row["model"] == 0 for row in streams)
    assert {row["batch"] for row in streams} == {row["control"] for row in rows}
    assert {path.name for path in whole.iterdir()} >= {
        "summary.json",
        "regret.png",
        "config.yaml",
    }

    others = tmp_path / "others"
    run_cells(others, *words, "processes=2")
    assert results(others) == rows
    assert (others / "references.csv").read_bytes() == (whole / "references.csv").read_bytes()
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["ours"]["cells"] == 4
    assert summary["policies"] == {}

    # The page can be had at any time; nothing is run for it.
    before, page = len(passes), tmp_path / "guards.md"
    assert benchmark.main([*words, f"output={whole}", f"page={page}"]) == 0
    assert len(passes) == before
    assert results(whole) == rows
    told = json.loads((whole / "summary.json").read_text())
    for line in as_lines(policies_of(told), "policy")[1]:
        assert f"| {' | '.join(line)} |" in page.read_text()
    assert {path.name for path in page.with_suffix("").iterdir()} == {
        "results.csv",
        "regret.png",
    }


@pytest.mark.gate
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")
def test_cells_of_a_killed_worker_are_those_of_one_process(
    words: list[str], tmp_path: Path
) -> None:
    one, two, killed = tmp_path / "one", tmp_path / "two", []
    run_cells(one, *words)

    def kill() -> None:
        """Kill a worker as soon as a row is there."""
        table = two / "references.csv"
        while not (table.is_file() and table.read_text().count("\n") > 1):
            time.sleep(0.05)
        children = Path("/proc/self/task").glob("*/children")
        workers = [int(word) for path in children for word in path.read_text().split()]
        memory = {worker: Path(f"/proc/{worker}/statm").read_text() for worker in workers}
        largest = max(workers, key=lambda worker: int(memory[worker].split()[1]))
        os.kill(largest, signal.SIGKILL)
        killed.append(largest)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    run_cells(two, *words, "processes=2")
    assert len(killed) == 1
    assert results(two) == results(one)
    assert (two / "references.csv").read_bytes() == (one / "references.csv").read_bytes()
    assert not (two / "errors.csv").exists()


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    variants = [
        "variants.broken.kind=dsbr",
        "variants.broken.target_prior=[1.0]",
        "methods=[broken,norm]",
        "streams=[iid]",
    ]
    assert benchmark.main([*words, *variants, f"output={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr().out
    assert "1 failures" in said
    errors = tables.read(tmp_path / "out" / "errors.csv")
    assert [(row["method"], row["stream"]) for row in errors] == [("broken", "iid")]
    assert "target_prior" in errors[0]["error"]
    assert [row["method"] for row in results(tmp_path / "out")] == ["norm"]
    assert "the same command tries those cells again" in said
    assert benchmark.main([*words, *variants, f"output={tmp_path / 'out'}"]) == 1
    assert len(tables.read(tmp_path / "out" / "errors.csv")) == 1


def test_a_method_without_a_learning_rate_is_planned_once(tmp_path: Path) -> None:
    words = [
        "methods=[t3a,tent,tent_slow]",
        "variants={tent_slow: {kind: tent, momentum: 0}}",
        "rates=[1,10]",
    ]
    grid = create_plan(
        entry.configured(BenchmarkConfig, {}, [*words, "streams=[iid]", "shifts=[none]"])
    )
    [(_, cases)] = grid
    assert [tuple(case) for case in sorted(cases)] == [
        ("t3a", 1),
        ("tent", 1),
        ("tent", 10),
        ("tent_slow", 1),
        ("tent_slow", 10),
    ]


def test_a_step_reports_once_whatever_comes_of_it() -> None:
    def fails() -> dict[str, Any]:
        raise MemoryError

    told = [_attempt({}, "references", work) for work in (dict, lambda: {"score": 1.0}, fails)]
    assert [report.table for report in told] == ["results", "references", "errors"]
    assert [len(report.rows) for report in told] == [0, 1, 1]


@pytest.mark.parametrize("other", ["images=64", "train=[epochs=1]"])
def test_results_under_other_settings_are_not_mixed(
    words: list[str], tmp_path: Path, capsys: Capture, other: str
) -> None:
    folder = tmp_path / "out"
    words = [*words, "streams=[iid]", f"output={folder}"]
    assert benchmark.main(words) == 0
    before = {path: path.read_bytes() for path in (folder / "results.csv", folder / "config.yaml")}
    assert benchmark.main([*words, other]) == 2
    assert f"holds results under {other.split('=')[0]}=" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert benchmark.main([*words, "seeds=[0]"]) == 0


def test_a_table_of_another_version_is_refused(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").write_text("data,target,policy\nphantom,scanner_b,on\n")
    assert benchmark.main([*words, f"output={tmp_path / 'out'}"]) == 2
    assert "results.csv has no column network" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.gate
def test_networks_and_batch_sizes_are_columns_of_their_own(
    words: list[str], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "sources" / "phantom0-compact-3").symlink_to(source)
    axes = ["networks=[compact,compact/3]", "batch_sizes=[64,32]", "streams=[one]"]
    run_cells(tmp_path / "out", *words, *axes)
    rows = results(tmp_path / "out")
    keys = sorted((row["network"], row["batch_size"]) for row in rows)
    assert keys == [(name, size) for name in ("compact", "compact/3") for size in (32, 64)]
    streams = tables.read(tmp_path / "out" / "references.csv")
    # The tests' one source goes by both names; a batch's own statistics depend on its size.
    assert len({row["source"] for row in streams}) == 1
    assert len({row["batch"] for row in streams}) == 2


def test_a_guard_may_have_options_of_its_own(words: list[str], tmp_path: Path) -> None:
    frozen = "on guard.ladder=[freeze] guard.limits.R=0.001"
    run_cells(tmp_path / "out", *words, "streams=[blocks]", f'policies=["on","{frozen}"]')
    rows = {row["policy"]: row for row in results(tmp_path / "out")}
    assert set(rows) == {"on", frozen}
    assert rows["on"]["unguarded"] == rows[frozen]["unguarded"]


def test_a_guard_may_have_labels_of_some_images(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[list[str], list[str]]] = []
    told: list[str] = []

    def seen(self: Any, run: list[str]) -> Any:
        files = [word.removeprefix("labels=") for word in run if word.startswith("labels=")]
        read.extend((run, Path(name).read_text().splitlines()) for name in files)
        told.extend(word for word in run if word.startswith("guard.prevalence={"))
        return plain(self, run)

    plain = cell._Stream.run
    monkeypatch.setattr(cell._Stream, "run", seen)
    policies = 'policies=["on","on labelled=1","on labelled=100","on told=.1"]'
    run_cells(tmp_path / "out", *words, "streams=[iid]", policies)
    assert {row["policy"] for row in results(tmp_path / "out")} == {
        *("on", "on labelled=1", "on labelled=100", "on told=.1"),
    }
    (run, few), (_, more) = read
    assert not any(word.startswith("labelled=") for word in run)
    assert few[0] == "id,label"
    assert (len(few), len(more)) == (2, 14)  # with the header: at least one, and a tenth of 128
    assert {line.partition(",")[2] for line in more[1:]} <= set(CLASSES)
    assert len({line.partition(",")[0] for line in more}) == len(more)
    assert "guard.prevalence=labels" in run
    (shares,) = (json.loads(word.partition("=")[2]) for word in told)
    assert [*shares] == list(CLASSES)
    assert sum(low + high for low, high in shares.values()) == pytest.approx(2, abs=0.05)
    assert max(high - low for low, high in shares.values()) == pytest.approx(0.2)


def test_missing_sources_are_trained_by_network(tmp_path: Path) -> None:
    config = entry.configured(
        BenchmarkConfig,
        {},
        [
            *("networks=[compact,compact/3,group,resnet18]", "train=[epochs=9]"),
            *("train_of.phantom=[lr=1e-3]", f"output={tmp_path}"),
        ],
    )
    models = plan_models(config, [stream.setting for stream, _ in create_plan(config)])
    jobs = [
        (
            next(Path(word).name for word in words if word.startswith("output=")),
            words[words.index("overwrite=true") + 1 :],
        )
        for words in missing_models(config, models.values())
    ]
    trained = ["epochs=9", "lr=1e-3"]
    assert jobs == [
        ("phantom0", trained),
        ("phantom0-compact-3", [*trained, "epochs=3"]),
        ("phantom0-group", [*trained, "model.norm=group"]),
        ("phantom0-resnet18", [*trained, "model=resnet18"]),
    ]


@pytest.mark.slow
@pytest.mark.gate
def test_results_of_another_source_model_are_not_mixed(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    folder, other = tmp_path / "out", tmp_path / "others" / "phantom0"
    words = [*words, "streams=[iid]"]
    assert benchmark.main([*words, f"output={folder}"]) == 0
    before = (folder / "results.csv").read_bytes()
    checkpoint = SourceCheckpoint.load(tmp_path / "sources" / "phantom0")
    name = next(iter(checkpoint.weights))
    weights = {**checkpoint.weights, name: checkpoint.weights[name] + 1e-3}
    other.mkdir(parents=True)
    replace(checkpoint, weights=weights).save(other / "source.ckpt")
    another = [*words, f"sources={other.parent}"]
    assert benchmark.main([*another, "methods=[norm]", f"output={folder}"]) == 2
    assert f"results of another source model than {other}" in capsys.readouterr().err
    assert (folder / "results.csv").read_bytes() == before
    assert benchmark.main([*words, f"output={folder}"]) == 0


def test_a_folder_has_one_writer(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "out"
    with held(folder):
        assert benchmark.main([*words, f"output={folder}"]) == 2
    assert f"{folder} is in use by process" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == []


def test_what_it_refuses(tmp_path: Path, capsys: Capture) -> None:
    cases = [
        ("did you mean tent", "methods=[tnt]"),
        ("did you mean on", "policies=[onn]"),
        ("must say of 1 to 1000 images", 'policies=["on labelled=some"]'),
        ("must say of 1 to 1000 images", 'policies=["on labelled=0"]'),
        ("heeds no labels", 'policies=["periodic labelled=10"]'),
        ("must say a share from 0 to 1", 'policies=["on told=much"]'),
        ("must say a share from 0 to 1", 'policies=["on told=1.5"]'),
        ("heeds no shares", 'policies=["periodic told=.1"]'),
        ("take one", 'policies=["on told=.1 labelled=10"]'),
        ("did you mean iid", "streams=[idd]"),
        ("did you mean blur", "shifts=[blurr]"),
        ("did you mean nuclei", "data.targets=[nucleii/fluor_360]"),
        ("none of the data is there", "data.targets=[nuclei/fluor_360]"),
        ("scanner_z", "data.targets=[phantom/scanner_b,phantom/scanner_z]"),
        ("names something twice", "seeds=[1,1]"),
        ("unknown data set of train_of 'nucli'", "train_of.nucli=[epochs=2]"),
        ("unknown network 'compact/x'", "networks=[compact/x]"),
        ("batch_sizes=[0] must be at least 1", "batch_sizes=[0]"),
        ("policies is empty", "policies=[]"),
        ("severities is empty", "severities=[]"),
        ("unknown policy 'off'", "policies=[off]"),
        ("needs a kind", "variants.mine.lr=1"),
        ("from 1 on, or each", "models=some"),
    ]
    for message, word in cases:
        assert benchmark.main([word, f"output={tmp_path / 'out'}", f"data.root={tmp_path}"]) == 2, (
            word
        )
        assert message in capsys.readouterr().err
    assert benchmark.main([f"data.root={tmp_path / 'nowhere'}", f"output={tmp_path / 'out'}"]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_help(capsys: Capture) -> None:
    assert benchmark.main(["--help=data"]) == 0
    assert "data.targets=" in capsys.readouterr().out
