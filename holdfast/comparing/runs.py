"""Finished runs, wherever they are: folders of ``adapt.py``, tables of the benchmark, W&B."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from holdfast.benchmarks.summary import OURS, with_references
from holdfast.benchmarks.tables import CELL_KEYS, LAST, MEASURES, METRIC, RESULTS, RUN_KEYS
from holdfast.comparing.comparison import RUN, SEED
from holdfast.comparing.wandb_runs import WandbRun, read_file, read_project
from holdfast.tta import entry
from holdfast.tta.csvfile import read_rows
from holdfast.tta.errors import InputError
from holdfast.tta.results import flattened

#: How a project of W&B's is named among folders.
WANDB = "wandb:"
#: What a run of the benchmark is asked for, by its column.
_OPTIONS = {
    "target": "data.target",
    "severity": "shift.severity",
    "batch_size": "stream.batch_size",
    "lr": "rate",
}
#: The same of a run of a study whose rows are runs: a rate belongs to its method.
_RUN_OPTIONS = {
    **_OPTIONS,
    "optimizer": "method.optimizer",
    "lr": "method.lr",
    "policy": "guard",
}
#: How the source's network is named among metrics.
_NETWORK = "network/"
#: What tables of benchmarks are of, where they do not say.
_ACCURACY = "balanced_accuracy"
#: Options that change where and how a run is written, and none of its figures.
_ASIDE = (
    *("output", "name", "overwrite", "report", "check", "workers", "bootstrap", "wandb", "logger"),
    *("trainer", "predictions", "preflight", "guard.alert"),
    *("_wandb", "source_artifact", "start_artifact"),
)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        place: where it was found.
        options: what it was asked for, flat: ``method`` and ``method.lr``, say.
        metrics: its figures, flat: ``balanced_accuracy`` and ``auroc/macro``, say.
    """

    place: str
    options: Mapping[str, Any]
    metrics: Mapping[str, float]


def read_runs(places: Iterable[str]) -> list[Run]:
    """All runs in some places, each once.

    Args:
        places: folders that are searched, tables (``*.csv``), files of W&B's, and projects of
            W&B's, ``wandb:ENTITY/PROJECT``.

    Raises:
        InputError: a place is none, or nothing was found.
    """
    found: dict[str, Run] = {}
    for place in places:
        runs = list(_runs_of(place))
        if not runs:
            raise InputError(
                f"{place} holds no finished run: name folders that adapt.py left with metrics.json "
                "and config.yaml, or a results.csv of benchmark.py"
            )
        found |= {run.place: run for run in runs}
    return list(found.values())


def _runs_of(place: str) -> Iterator[Run]:
    if place.startswith(WANDB):
        yield from _of_wandb(place, read_project(place.removeprefix(WANDB)))
        return
    path = Path(place).expanduser()
    if path.is_dir():
        yield from _searched(path)
    elif path.suffix == ".csv" and path.is_file():
        yield from _of_table(path)
    elif path.suffix == ".wandb" and path.is_file():
        yield from _of_wandb(str(path), [read_file(path)])
    else:
        raise InputError(f"there is no folder or table of runs at {place}")


def _searched(folder: Path) -> Iterator[Run]:
    """The runs in a folder and below; what a run logged to W&B as well counts once."""
    for place, below, files in os.walk(folder):
        below.sort()
        path = Path(place)
        if "metrics.json" in files and "config.yaml" in files:
            yield from _of_folder(path)
            below[:] = [name for name in below if name != "wandb"]
        if "results.csv" in files:
            yield from _of_table(path / "results.csv")
        for name in sorted(files):
            if name.endswith(".wandb"):
                yield from _of_wandb(str(path / name), [read_file(path / name)])


def _of_folder(folder: Path) -> Iterator[Run]:
    """The run of a folder; none where it is training's."""
    try:
        settings = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        metrics = entry.read_json(folder / "metrics.json")
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise InputError(
            f"{folder} holds a config.yaml or metrics.json that cannot be read: leave it out"
        ) from error
    if isinstance(settings, dict) and "method" in settings:
        yield _run(str(folder.resolve()), settings, metrics)


def _of_wandb(place: str, runs: Sequence[WandbRun]) -> Iterator[Run]:
    for run in runs:
        if "method" in run.config:
            yield _run(f"{place} {run.id}", run.config, run.summary)


def _run(place: str, settings: Mapping[Any, Any], metrics: Mapping[str, Any]) -> Run:
    options = {name.removesuffix(".kind"): value for name, value in flattened(settings, ".")}
    kept = {name: value for name, value in options.items() if not _belongs(name, _ASIDE)}
    # Which network the source is stands among the metrics: no option of the run says so.
    told = {name: value for name, value in flattened(metrics) if name.startswith(_NETWORK)}
    kept |= {name.removesuffix("/kind").replace("/", "."): told[name] for name in told}
    return Run(place, kept, _numbers(metrics))


def _belongs(name: str, owners: Iterable[str]) -> bool:
    """Whether an option is one of these, or within it."""
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in flattened(metrics)
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and not name.startswith(_NETWORK)
    }


def _of_table(path: Path) -> Iterator[Run]:
    """The runs of a table: the benchmark's, or one with the columns method and seed."""
    csv.field_size_limit(2**30)  # of the benchmark's predictions, should somebody name them
    rows = list(read_rows(path))
    columns = set(rows[0]) if rows else set()
    if set(RESULTS) - {METRIC} <= columns:
        yield from _of_benchmark(path, rows)
    elif set(RUN_KEYS) <= columns:
        for line, row in enumerate(rows, start=2):
            options = {_RUN_OPTIONS.get(name, name): row[name] for name in RUN_KEYS}
            figures = {name: _number(row[name]) for name in (*MEASURES, *LAST)}
            known = {name: figure for name, figure in figures.items() if figure is not None}
            yield Run(f"{path} line {line}", options, _called(known, row))
    elif {"method", SEED} <= columns:
        scores = [name for name in rows[0] if _decimals([row.get(name) for row in rows])]
        for line, row in enumerate(rows, start=2):
            options = {name: value for name, value in row.items() if name not in scores}
            yield Run(f"{path} line {line}", options, {name: float(row[name]) for name in scores})


def _decimals(texts: Sequence[str | None]) -> bool:
    """Whether a column holds figures, rather than names or counts: numbers, some with decimals."""
    return any("." in (text or "") for text in texts) and None not in map(_number, texts)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _of_benchmark(path: Path, results: Sequence[Mapping[str, str]]) -> Iterator[Run]:
    """Each cell under each guard, alone, and as its stream's source and control."""
    whole = [dict(row) for row in results if len(row) >= len(RESULTS)]
    beside = path.with_name("references.csv")
    references = list(read_rows(beside)) if beside.is_file() else []
    ends = with_references(whole, references) if references else whole
    found: dict[tuple[str, ...], Run] = {}
    for row in ends:
        options: dict[str, Any] = {_OPTIONS.get(name, name): row[name] for name in CELL_KEYS}
        guard = "on" if row["policy"] == OURS else row["policy"]
        for method, guarded, column in (
            (row["method"], guard, "guarded"),
            (row["method"], "off", "unguarded"),
            ("source", "off", "source"),
            ("norm", "off", "control"),
        ):
            chosen = {**options, "method": method, "guard": guarded}
            scores = {
                _ACCURACY: _number(row[column]),
                "last_quarter": _number(row.get(f"{column}_last")),
            }
            known = {name: score for name, score in scores.items() if score is not None}
            place = f"{path} {' '.join(map(str, chosen.values()))}"
            found[place,] = Run(place, chosen, _called(known, row))
    yield from found.values()


def _called(figures: Mapping[str, float], row: Mapping[str, str]) -> dict[str, float]:
    """A row's figures by their names: what stands in the place of balanced accuracy, where the task
    watches another figure, goes by that one's.
    """
    metric = row.get(METRIC) or _ACCURACY
    return {name.replace(_ACCURACY, metric): figure for name, figure in figures.items()}


def table_of(
    runs: Sequence[Run],
    by: Sequence[str],
    metric: str,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Runs as the table that ``compare`` takes.

    Its columns are what is compared, the metric, the seed (with the source, where one seed met
    several), the run, and whichever other options differ between runs.

    Args:
        runs: finished.
        by: options of what is compared, whose values are put together; what belongs to them
            (``method.lr`` to ``method``) makes no condition.
        metric: which figure.
        only: names of what is compared; none: all.
        without: names of what is left out.

    Raises:
        InputError: no run has such an option or metric, or two runs cannot be told apart.
    """
    named = [
        (name, run)
        for name, run in _named(runs, by, [*only, *without])
        if name not in without and (not only or name in only)
    ]
    chosen = [run for _, run in named]
    _check_metric(chosen, metric)
    seeds, columns = _seeds(chosen), _columns(chosen, by)
    table = [
        {
            "/".join(by): name,
            SEED: seeds[run.place],
            **{column: run.options.get(column) for column in columns},
            metric: run.metrics.get(metric),
            RUN: run.place,
        }
        for name, run in named
    ]
    _refuse_twins(table, chosen, metric)
    return table


def _named(runs: Sequence[Run], by: Sequence[str], chosen: Iterable[str]) -> list[tuple[str, Run]]:
    """Runs with the names of what is compared.

    Raises:
        InputError: no run has such an option, or a chosen name.
    """
    known = sorted({name for run in runs for name in run.options})
    for name in by:
        if name not in known:
            raise InputError(f"no run has the option {name}: by= takes {', '.join(known)}")
    named = [("/".join(str(run.options.get(name)) for name in by), run) for run in runs]
    _check_named(chosen, {name for name, _ in named})
    return named


def _check_metric(runs: Sequence[Run], metric: str) -> None:
    if not any(metric in run.metrics for run in runs):
        have = sorted({name for run in runs for name in run.metrics})
        raise InputError(
            f"no run has the figure {metric}: metric= takes {', '.join(have) or 'none'}"
            f"{'' if have else ', since the streams were not labelled'}"
        )


def _check_named(chosen: Iterable[str], names: Iterable[str]) -> None:
    for name in chosen:
        if name not in names:
            raise InputError(f"{name} is not among the runs, but {', '.join(sorted(names))}")


def _columns(runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Options that make a condition: those that differ, within a group between runs of one kind."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    open_names = [name for name in names if name not in (SEED, "source")]
    if not all("network" in run.options for run in runs):  # of an earlier version, which kept none
        open_names = [name for name in open_names if not _belongs(name, ["network"])]
    columns = []
    for name in open_names:
        if _belongs(name, by):
            continue
        group = name.split(".")[0] if "." in name else None
        of_kind: dict[str, set[str]] = {}
        for run in runs:
            kind = "" if group is None else str(run.options.get(group))
            of_kind.setdefault(kind, set()).add(str(run.options.get(name)))
        if any(len(values) > 1 for values in of_kind.values()):
            columns.append(name)
    return columns


def _seeds(runs: Sequence[Run]) -> dict[str, str]:
    """Names of seeds by run; with the source where a seed met several of them."""
    sources: dict[str, set[str]] = {}
    for run in runs:
        sources.setdefault(_seed(run), set()).add(_source(run))
    several = any(len(found) > 1 for found in sources.values())
    return {run.place: f"{_seed(run)} of {_source(run)}" if several else _seed(run) for run in runs}


def _seed(run: Run) -> str:
    return str(run.options.get(SEED, 0))


def _source(run: Run) -> str:
    """The source's folder, however it was named."""
    path = Path(str(run.options.get("source", "")))
    return str(path.parent if path.name == "source.ckpt" else path)


def _refuse_twins(table: Sequence[Mapping[str, Any]], runs: Sequence[Run], metric: str) -> None:
    """Refuse two runs of the same, and say what they differ in."""
    seen: dict[tuple[str, ...], Run] = {}
    for row, run in zip(table, runs, strict=True):
        key = tuple(str(value) for name, value in row.items() if name not in (RUN, metric))
        first = seen.setdefault(key, run)
        if first is run:
            continue
        names = dict.fromkeys([*first.options, *run.options])
        differing = [name for name in names if first.options.get(name) != run.options.get(name)]
        said = (
            f" but for {differing[0]}: compare by it as well, by=[…,{differing[0]}]"
            if differing
            else ": leave one of them out"
        )
        raise InputError(f"{first.place} and {run.place} are runs of the same{said}")
