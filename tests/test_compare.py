"""Comparisons for a paper: the statistics against published and hand values, runs read from
wherever they are, and tables and pictures that can go to print.
"""

import csv
import doctest
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scipy import stats

from holdfast.__main__ import COMMANDS, main
from holdfast.benchmarks.tables import RESULTS, RUNS
from holdfast.benchmarks.tables import write as write_table
from holdfast.comparing import compare, comparison, outputs, paired, read_runs, table_of
from holdfast.comparing.diagram import critical_difference_diagram
from holdfast.comparing.outputs import as_csv, as_latex, write
from holdfast.comparing.wandb_runs import read_file
from holdfast.programs import adapt
from holdfast.tta import intervals
from holdfast.tta.errors import InputError
from holdfast.tta.intervals import median_interval
from tests.conftest import QUICK, ROOT, TINY
from tests.wandb_file import read_wandb

Capture = pytest.CaptureFixture[str]

#: Demšar (JMLR 7, 2006), table 6: AUC of four variants of C4.5 on 14 data sets. The last but one
#: of "voting" are printed alike and ranked apart, so that one is given a digit more.
NAMES = ("c45", "c45_m", "c45_cf", "c45_m_cf")
AUCS = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def published() -> list[dict[str, Any]]:
    return [
        {"method": name, "stream": f"set {place}", "seed": 0, "auroc": score}
        for place, row in enumerate(AUCS)
        for name, score in zip(NAMES, row, strict=True)
    ]


def rows_of(
    scores: dict[str, Sequence[float]], metric: str = "balanced_accuracy"
) -> list[dict[str, Any]]:
    return [
        {"method": name, "seed": seed, metric: score}
        for name, values in scores.items()
        for seed, score in enumerate(values)
    ]


@pytest.mark.parametrize("module", [paired, comparison, outputs, intervals])
def test_the_examples_in_docstrings_are_right(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# --- statistics


def test_ranks_tests_and_critical_difference_are_those_that_were_published() -> None:
    assert paired.mean_ranks(AUCS) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert paired.mean_ranks(-AUCS, lower=True) == pytest.approx(paired.mean_ranks(AUCS))
    statistic, p = paired.friedman(AUCS)
    # 9.28 there, which leaves out that one set ties all four, and three sets two.
    assert statistic == pytest.approx(9.28 / (1 - (60 + 3 * 6) / (14 * 60)), abs=0.01)
    assert p == pytest.approx(stats.chi2.sf(statistic, 3))
    assert paired.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert paired.critical_difference(4, 14, level=0.10) == pytest.approx(1.12, abs=0.005)


def test_quantiles_are_those_of_the_published_table() -> None:
    # At 30 blocks, root(k (k + 1) / 180) of the table's q.
    for models, quantile in {2: 1.960, 3: 2.343, 5: 2.728, 8: 3.031, 10: 3.164}.items():
        spread = np.sqrt(models * (models + 1) / 180)
        assert paired.critical_difference(models, 30) / spread == pytest.approx(quantile, abs=2e-3)


def test_the_signed_rank_test_is_exact() -> None:
    differences = np.array([0.4, -0.1, 0.9, 1.3, -0.2, 0.75, 1.1, 0.05])
    ranks = stats.rankdata(abs(differences))
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=8)
    ]
    less = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    assert paired.signed_rank(differences) == pytest.approx(
        2 * sum(total <= less for total in sums) / len(sums)
    )


def test_zeros_and_rounding_are_no_evidence() -> None:
    assert paired.signed_rank([0.0] * 8) == 1.0
    # 0.3 - 0.2 and 0.2 - 0.1 differ by their last bit alone.
    assert paired.signed_rank([0.3 - 0.2, 0.1 - 0.2] * 4) == 1.0
    # Demšar's table 2, with two zeros: T = 12, significant at 5 %.
    assert 0.005 < paired.signed_rank(AUCS[:, 1] - AUCS[:, 0]) < 0.03
    assert paired.friedman(np.ones((6, 3))) == (0.0, 1.0)


def test_no_pairs_can_say_less_than_the_smallest_p() -> None:
    for pairs in (3, 6, 9):
        assert paired.signed_rank(np.arange(1, pairs + 1)) == paired.smallest_p(pairs)
    assert paired.smallest_p(paired.FEWEST) < paired.LEVEL < paired.smallest_p(paired.FEWEST - 1)


def test_holms_correction_never_lowers_what_comes_later() -> None:
    assert paired.holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert paired.holm([0.6, 0.7]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_stretches_that_do_not_differ_are_the_longest() -> None:
    assert paired.alike([1.0, 2.0, 3.0], difference=5) == [(0, 2)]
    assert paired.alike([1.0, 2.0, 3.0], difference=1) == []
    assert paired.alike([1.0, 1.9, 2.8, 3.0], difference=1) == [(0, 1), (1, 2), (2, 3)]
    assert paired.alike([1.0, 1.9, 2.0, 2.8], difference=1) == [(0, 1), (1, 3)]


def test_the_interval_of_a_median_is_the_bootstraps() -> None:
    values = np.random.default_rng(0).normal(size=30)
    for count in (29, 30):
        ends = stats.bootstrap(
            (values[:count],), np.median, method="percentile", n_resamples=4000, rng=1
        ).confidence_interval
        assert median_interval(values[:count], 4000) == pytest.approx(tuple(ends), abs=0.06)
    assert median_interval([1.0], 100) is None


# --- the pure function


def test_a_comparison_holds_all_against_the_baseline() -> None:
    found = compare(published(), "c45", metric="auroc")
    assert [entry.name for entry in found.entries] == ["c45_m_cf", "c45_m", "c45_cf", "c45"]
    assert (found.conditions, found.seeds, found.pairs) == (14, 1, 14)
    assert found.critical == pytest.approx(1.25, abs=0.005)
    of = {entry.name: entry for entry in found.entries}
    differences = AUCS[:, 1] - AUCS[:, 0]
    assert of["c45_m"].difference == pytest.approx(np.median(differences))
    assert (of["c45_m"].better, of["c45_m"].worse) == (10, 2)
    assert of["c45_m"].p == paired.signed_rank(differences)
    low, high = of["c45_m"].interval or (0, 0)
    assert low <= np.median(differences) <= high
    assert of["c45"].difference is of["c45"].p is of["c45"].corrected is None
    tests = [of[name].p for name in NAMES[1:]]
    assert [of[name].corrected for name in NAMES[1:]] == paired.holm([p for p in tests if p])
    assert found.notes == ()


def test_means_and_deviations_are_over_seeds() -> None:
    table = [
        {"method": name, "stream": stream, "seed": seed, "balanced_accuracy": base + seed * slope}
        for name, slope in (("norm", 1), ("tent", 2))
        for stream, base in (("iid", 90), ("blocks", 50))
        for seed in (0, 1, 2)
    ]
    norm, tent = sorted(compare(table, "norm").entries, key=lambda entry: entry.name)
    # Streams differ by 40 points and seeds by 1 or 2: only the latter is deviation over seeds.
    assert (norm.mean, norm.sd) == (71.0, pytest.approx(1.0))
    assert (tent.mean, tent.sd) == (72.0, pytest.approx(2.0))
    cell = compare(table, "norm").cells[("blocks",), "tent"]
    assert (cell.runs, cell.mean, cell.sd) == (3, 52.0, pytest.approx(2.0))


def test_seeds_of_a_condition_are_one_pair_where_asked() -> None:
    table = [
        {"method": name, "stream": stream, "seed": seed, "balanced_accuracy": gain + seed + stream}
        for name, gain in (("norm", 0), ("tent", 1))
        for stream in range(6)
        for seed in range(3)
    ]
    by_seed, by_stream = (compare(table, "norm", pairs=of) for of in ("seeds", "conditions"))
    assert (by_seed.pairs, by_stream.pairs) == (18, 6)
    assert by_stream.entries[0].p == paired.smallest_p(6)
    assert (by_seed.entries[0].p or 1) < 0.001
    assert by_seed.entries[0].mean == by_stream.entries[0].mean


def test_only_what_all_have_is_compared_and_the_rest_is_said() -> None:
    table = rows_of({"norm": [80, 81, 82], "tent": [81, 82], "dsbr": [82, 83]})
    found = compare(table, "norm")
    assert {entry.runs for entry in found.entries} == {2}
    assert {entry.name: entry.mean for entry in found.entries}["norm"] == 80.5
    assert found.notes[0].startswith("tent, dsbr: 1 of 3 runs that others have are not there")
    assert "(seed 2)" in found.notes[0]
    assert found.notes[1] == "Compared are the 2 that all have."


def test_too_few_pairs_are_not_tested_and_the_smallest_p_is_said() -> None:
    found = compare(rows_of({"norm": range(5), "tent": range(1, 6), "dsbr": range(5)}), "norm")
    assert found.friedman is found.critical is None
    assert all(entry.p is entry.corrected is None for entry in found.entries)
    assert "the smallest p that they can give is 0.0625" in found.notes[-1]
    with pytest.raises(InputError, match="six pairs"):
        critical_difference_diagram(found)
    # Six pairs of three methods: .031 each, which Holm's correction makes .0625.
    found = compare(rows_of({"norm": range(6), "tent": range(1, 7), "dsbr": range(6)}), "norm")
    assert "cannot give a corrected p below 0.0625" in found.notes[-1]


def test_less_is_better_of_errors() -> None:
    scores = {"norm": [9.0] * 6, "tent": [3.0, 4, 5, 6, 7, 8]}
    found = compare(rows_of(scores, "ece"), "norm", metric="ece")
    assert found.lower
    assert found.entries[0].name == "tent"
    assert (found.entries[0].better, found.entries[0].difference) == (6, -3.5)
    assert not compare(rows_of(scores, "ece"), "norm", metric="ece", lower=False).lower


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows_of({"norm": [1, 2]}), "nothing to compare: of 2 runs, those with .* of norm"),
        ([], "nothing to compare"),
        (rows_of({"norm": [1.0], "tent": [float("nan")]}), "of norm method alone"),
        (rows_of({"tent": [1], "dsbr": [2]}), "the baseline 'norm' is not among .* tent, dsbr"),
        (2 * rows_of({"norm": [1], "tent": [2]}), "two runs are both norm with seed 0"),
        (
            [
                {"method": name, "seed": seed, "balanced_accuracy": 1}
                for seed, name in enumerate(("norm", "tent"))
            ],
            "no condition and seed is had by all: compare runs on the same",
        ),
        (
            [
                *rows_of({"norm": [1, 2], "tent": [2, 3]}),
                {"method": "memo", "seed": 9, "balanced_accuracy": 1},
            ],
            r"leave out memo, without=\[memo\], and there are 2",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(table: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(table, "norm")


# --- what is written


def test_tables_are_safe_in_spreadsheets_and_in_latex(tmp_path: Path) -> None:
    table = [
        {"method": name, "stream": stream, "seed": seed, "balanced_accuracy": score + seed}
        for name, score in (("=1+1", 80.0), ("a_b & c", 81.0))
        for stream in ("85 %", "iid")
        for seed in range(3)
    ]
    found = compare(table, "=1+1")
    lines = list(csv.DictReader(as_csv(found).splitlines()))
    assert [line["method"] for line in lines] == ["a_b & c", "'=1+1"] * 3
    assert float(lines[0]["difference"]) == 1.0
    assert (lines[0]["stream"], lines[2]["stream"], lines[2]["runs"]) == ("", "85 %", "3")
    latex = as_latex(found)
    assert r"a\_b \& c & \textbf{82.00 $\pm$ 1.00}" in latex
    assert r"85 \% & " in latex
    for table_ in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end", latex, re.DOTALL):
        columns, body = table_
        of_lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in of_lines} == {len(columns) - 1}
        assert len(of_lines) == 3
    assert {path.name for path in write(found, tmp_path)} == {"comparison.csv", "comparison.tex"}


def test_a_best_mean_is_bold_wherever_it_looks_so() -> None:
    found = compare(rows_of({"a": [80, 81], "b": [80.001, 81.001], "c": [70, 71]}), "a")
    assert as_latex(found).count(r"\textbf") == 2


def test_the_diagram_can_go_to_print(tmp_path: Path) -> None:
    found = compare(published(), "c45", metric="auroc")
    figure = critical_difference_diagram(found)
    assert figure.get_size_inches()[0] == 3.3
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert {"CD = 1.25", *NAMES} <= {text.get_text() for text in texts}
    assert min(text.get_fontsize() for text in texts) >= 7
    # All of it lies within the paper.
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text
    paths = write(found, tmp_path)
    pdf = (tmp_path / "critical_difference.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert len(paths) == 4
    # An older diagram does not stay beside a comparison that has none.
    write(compare(rows_of({"a": [1], "b": [2]}), "a"), tmp_path)
    assert not (tmp_path / "critical_difference.pdf").exists()


# --- runs


@pytest.fixture(scope="module")
def runs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: two methods, two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for method, seed in itertools.product(("norm", "tent"), (0, 1)):
        words = [*QUICK, *TINY, "data.target_images=64", f"method={method}", f"seed={seed}"]
        words += [f"source={source}", f"output={folder}/{method}-{seed}"]
        assert adapt.main([*words, "guard=off"]) == 0
    return folder


def test_runs_are_compared_from_their_folders(
    runs: Path, source: Path, tmp_path: Path, capsys: Capture
) -> None:
    # Training leaves metrics too, which are no run's.
    assert main(["compare", str(runs), str(source)]) == 2
    assert f"{source} holds no finished run" in capsys.readouterr().err
    assert main(["compare", str(runs), f"output={tmp_path}/out"]) == 0
    shown = capsys.readouterr().out
    assert "of 1 condition, 2 seeds and 2 pairs; differences are medians, from norm" in shown
    assert "2 pairs are too few for a test" in shown
    lines = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    for line in lines:
        scores = [
            json.loads((runs / f"{line['method']}-{seed}" / "metrics.json").read_text())[
                "balanced_accuracy"
            ]
            for seed in (0, 1)
        ]
        assert float(line["mean"]) == pytest.approx(np.mean(scores), rel=1e-5)
        assert float(line["sd"]) == pytest.approx(np.std(scores, ddof=1), rel=1e-4)


def test_other_figures_and_options_can_be_asked_for(runs: Path, capsys: Capture) -> None:
    words = ["compare", str(runs), "by=[method,guard]", "metric=auroc/macro", "baseline=norm/off"]
    assert main(words) == 0
    assert "auroc/macro (more is better)" in capsys.readouterr().out
    for word, message in (
        ("metric=auroc", "no run has the figure auroc: metric= takes accuracy, "),
        ("by=metod", "no run has the option metod"),
        ("only=[tnet]", "tnet is not among the runs, but norm, tent"),
        ("baseline=dsbr", "the baseline 'dsbr' is not among what is compared"),
        ("bootstrap=0", "bootstrap must be at least 1"),
        ("pairs=images", "pairs"),
    ):
        assert main(["compare", str(runs), word]) == 2
        assert message in capsys.readouterr().err


def test_runs_of_the_same_are_told_by_what_they_differ_in(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    again = tmp_path / "runs" / "tent-0-again"
    shutil.copytree(runs / "tent-0", again)
    with pytest.raises(InputError, match="runs of the same: leave one of them out"):
        table_of(read_runs([str(tmp_path / "runs")]), ["method"], "balanced_accuracy")
    settings = (again / "config.yaml").read_text()
    (again / "config.yaml").write_text(re.sub(r"\blr: \S+", "lr: 0.5", settings))
    found = read_runs([str(tmp_path / "runs")])
    with pytest.raises(InputError, match=r"but for method.lr: .* by=\[…,method.lr\]"):
        table_of(found, ["method"], "balanced_accuracy")
    names = {row["method/method.lr"] for row in table_of(found, ["method", "method.lr"], "ece")}
    assert {"tent/0.5", "norm/None"} <= names
    # What is an option of the guard alone is no condition between guard=on and guard=off.
    (again / "config.yaml").write_text(re.sub("(?m)^seed: 0", "seed: 7", settings))
    table = table_of(read_runs([str(tmp_path / "runs")]), ["method"], "ece")
    assert set(table[0]) == {"method", "seed", "ece", "run"}


def test_one_seed_of_two_sources_is_two(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(runs, tmp_path / name)
    for path in (tmp_path / "two").glob("*/config.yaml"):
        path.write_text(
            re.sub("(?m)^source: .*", "source: elsewhere/source.ckpt", path.read_text())
        )
    table = table_of(read_runs([str(tmp_path)]), ["method"], "balanced_accuracy")
    found = compare(table, "norm")
    assert (found.conditions, found.seeds, found.pairs) == (1, 4, 4)
    assert "0 of elsewhere" in {row["seed"] for row in table}


def test_offline_runs_of_wandb_are_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    out = tmp_path / "out"
    words = ["trainer.enable_progress_bar=false", *TINY, "data.target_images=64", "guard=off"]
    assert adapt.main([*words, f"source={source}", f"output={out}", "method=norm"]) == 0
    [file] = out.glob("wandb/offline-run-*/*.wandb")
    read_wandb(file)  # waits for its end
    # Once from its folder, though it lies there as well; and the same from W&B's file alone.
    [of_folder] = read_runs([str(out)])
    [of_wandb] = read_runs([str(out / "wandb")])
    assert of_wandb.options == of_folder.options
    assert of_wandb.metrics["balanced_accuracy"] == of_folder.metrics["balanced_accuracy"]
    assert of_wandb.metrics["auroc/macro"] == of_folder.metrics["auroc/macro"]
    # Of a file that is still written, what is whole counts; what is none is refused.
    cut = tmp_path / "cut.wandb"
    cut.write_bytes(file.read_bytes()[:-5])
    assert read_file(cut).config["method"]["kind"] == "norm"
    cut.write_bytes(file.read_bytes()[:7])
    with pytest.raises(InputError, match="holds no finished run"):
        read_runs([str(cut)])
    cut.write_bytes(file.read_bytes()[:7] + b"\0\0\0\0\3\0\1\xff\xff\xff")
    with pytest.raises(InputError, match="leave it out"):
        read_runs([str(cut)])


def test_a_project_of_wandb_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    # There is no server here: the library's own classes answer to what is asked of them.
    asked: list[Any] = []

    def project(name: str, **how: Any) -> list[Any]:
        asked.append((name, how["filters"]["jobType"]))
        return [
            SimpleNamespace(
                id=f"{method}{seed}",
                config={"method": {"kind": method}, "seed": seed, "output": f"out/{seed}"},
                summary_metrics={"balanced_accuracy": 80.0 + seed + gain, "_runtime": 3},
            )
            for method, gain in (("norm", 0), ("tent", 1))
            for seed in range(6)
        ]

    monkeypatch.setattr(wandb, "Api", lambda **_: SimpleNamespace(runs=project))
    assert main(["compare", "wandb:ward/pilot"]) == 0
    shown = capsys.readouterr().out
    assert "6 seeds and 6 pairs" in shown
    assert "+1.00 [+1.00, +1.00]" in shown
    assert asked == [("ward/pilot", "adapt")]


def test_a_project_that_cannot_be_reached_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main(["compare", "wandb:ward/pilot"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: W&B's project ward/pilot cannot be read (")
    assert said.endswith("check its name, WANDB_API_KEY and the network, or name folders of runs")


def test_the_benchmarks_table_has_guards_sources_and_controls(tmp_path: Path) -> None:
    cells = [
        {
            **dict.fromkeys(RESULTS, 1),
            **{"data": "phantom", "target": "b", "network": "compact", "shift": "none"},
            **{"severity": 0, "stream": "iid", "batch_size": 64, "lr": 1.0, "seed": seed},
            **{"method": method, "policy": policy, "source": 70.0 + seed, "control": 80.0 + seed},
            **{"unguarded": 60.0 + seed, "guarded": 81.0 + seed, "guarded_last": 85.0},
            "metric": "balanced_accuracy",
        }
        for method in ("tent", "dsbr")
        for policy in ("on", "zscore")
        for seed in range(6)
    ]
    write_table(tmp_path / "results.csv", RESULTS, cells)
    by = ["method", "guard"]
    table = table_of(read_runs([str(tmp_path)]), by, "balanced_accuracy")
    found = compare(table, "norm/off", by="method/guard")
    assert {entry.name: entry.mean for entry in found.entries} == {
        "tent/on": 83.5,
        "dsbr/on": 83.5,
        "tent/zscore": 83.5,
        "dsbr/zscore": 83.5,
        "tent/off": 62.5,
        "dsbr/off": 62.5,
        "norm/off": 82.5,
        "source/off": 72.5,
    }
    assert (found.columns, found.pairs) == ((), 6)
    # By method alone, source and control have no guard, so that only what is unguarded is common.
    found = compare(table_of(read_runs([str(tmp_path)]), ["method"], "balanced_accuracy"), "norm")
    assert found.notes[0].startswith("source, norm: 12 of 18 runs that others have are not there")
    assert found.pairs == 6


def test_scores_of_a_benchmarks_table_go_by_the_tasks_figure(tmp_path: Path) -> None:
    guards = {**dict.fromkeys(RESULTS, 1), "policy": "on", "metric": "dice", "guarded": 81.5}
    runs = {**dict.fromkeys(RUNS["results"].columns, 1), "metric": "dice"}
    runs |= {"balanced_accuracy": 82.5, "balanced_accuracy_last": 83.5, "policy": "on"}
    for name, row, expected in (
        ("guards", guards, {"dice": 81.5, "last_quarter": 1}),
        ("runs", runs, {"dice": 82.5, "dice_last": 83.5}),
    ):
        write_table(tmp_path / f"{name}.csv", tuple(row), [row])
        found = read_runs([str(tmp_path / f"{name}.csv")])[0].metrics
        assert {key: found[key] for key in expected} == expected
        assert not any("balanced" in key for key in found)


def test_the_projects_own_results_are_compared(tmp_path: Path, capsys: Capture) -> None:
    words = [
        "compare",
        str(ROOT / "docs" / "evidence" / "results" / "results.csv"),
        "bootstrap=500",
        f"output={tmp_path}",
    ]
    assert main(words) == 2
    assert "leave out memo, without=[memo], and there are 42" in capsys.readouterr().err
    assert main([*words, "only=[norm,source,lame]", "pairs=conditions"]) == 0
    assert "14 conditions, 3 seeds and 14 pairs" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 4


def test_bad_words_get_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_text("{")
    (tmp_path / "broken" / "config.yaml").write_text("method: tent\n")
    for words, message in (
        ([], "name what to compare: folders of runs"),
        (["absent"], "there is no folder or table of runs at absent"),
        ([str(tmp_path / "results.csv")], "holds no finished run"),
        ([str(tmp_path / "broken")], "cannot be read: leave it out"),
        (["metrics=ece"], "metrics"),
    ):
        assert main(["compare", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "[" * 100_000, "{\\x"])
def test_metrics_that_are_no_object_get_one_sentence(
    tmp_path: Path, capsys: Capture, content: str
) -> None:
    (tmp_path / "metrics.json").write_text(content)
    (tmp_path / "config.yaml").write_text("method: tent\n")
    assert main(["compare", str(tmp_path)]) == 2
    assert "cannot be read: leave it out" in capsys.readouterr().err


def test_a_figure_that_is_no_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"dice": NaN, "balanced_accuracy": 80.5}')
    (tmp_path / "config.yaml").write_text("method: tent\n")
    (run,) = read_runs([str(tmp_path)])
    assert run.metrics == {"balanced_accuracy": 80.5}


def test_help_has_the_command_and_its_options(capsys: Capture) -> None:
    assert "compare" in COMMANDS
    assert main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("baseline=", "by=method", "metric=balanced_accuracy", "pairs=seeds", "output="):
        assert word in shown


def test_networks_of_the_sources_are_conditions(tmp_path: Path) -> None:
    for number, (method, norm) in enumerate(
        itertools.product(("norm", "tent"), ("batch", "group"))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.yaml").write_text(f"method: {{kind: {method}}}\nsource: sources/{norm}\n")
        network = {"kind": "compact", "norm": norm, "width": 8}
        figures = {"balanced_accuracy": 80.0 + number, "network": network}
        (folder / "metrics.json").write_text(json.dumps(figures))
    table = table_of(read_runs([str(tmp_path)]), ["method"], "balanced_accuracy")
    assert {(row["method"], row["network.norm"]) for row in table} == set(
        itertools.product(("norm", "tent"), ("batch", "group"))
    )
    assert "network" not in table[0], "it is the same in all"
    with pytest.raises(InputError, match="no run has the figure network/width"):
        table_of(read_runs([str(tmp_path)]), ["method"], "network/width")
