"""From options to tasks: which streams with which cells, and what of them is still to be run."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from holdfast.benchmarks.cell import StreamCells, Variant, create_cell
from holdfast.benchmarks.config import OFF, BenchmarkConfig
from holdfast.benchmarks.grid import SUBSET, Grid, MethodAtRate, Setting, create_grid, settings
from holdfast.benchmarks.sources import SourceModel, data_words, present_targets
from holdfast.benchmarks.tables import STREAM_KEYS, Row, Table, key_of
from holdfast.tta.errors import InputError


class PlannedStream(NamedTuple):
    """A stream of a length."""

    setting: Setting
    images: int


#: Streams with the cases that run on each.
Plan = list[tuple[PlannedStream, list[MethodAtRate]]]


def create_plan(config: BenchmarkConfig) -> Plan:
    """The streams with their cases; what two parts have in common is there once.

    Data that is not there is left out, and so is half of two classes: it is one class for good.

    Raises:
        InputError: no stream is left.
    """
    present = present_targets(config)
    plan: dict[PlannedStream, list[MethodAtRate]] = {}
    for part in [config.of_part(part) for part in config.parts or [{}]]:
        for setting, cases in _grid(part, present):
            known = plan.setdefault(PlannedStream(setting, part.images), [])
            known += [case for case in cases if case not in known]
    if not plan:
        raise InputError(f"streams=[{SUBSET}] needs data of three classes or more")
    return list(plan.items())


def _grid(config: BenchmarkConfig, present: Mapping[str, int]) -> Grid:
    """The balanced part of the product of the axes."""
    targets = [target for target in config.data.targets if target in present]
    classes = {target.partition("/")[0]: count for target, count in present.items()}
    axes = (config.shifts, config.severities, config.streams, config.seeds)
    streams = [
        setting
        for setting in settings(targets, *axes, config.networks, config.batch_sizes)
        if setting.stream != SUBSET or classes[setting.data] > 2
    ]
    cases = [
        MethodAtRate(method, rate)
        for method in config.methods
        # A method without a learning rate runs once, whatever the rates of a part.
        for rate in (config.rates if variant_of(config, method).learns else [1.0])
    ]
    return create_grid(streams, cases, config.cells, config.per_stream)


def plan_tasks(
    config: BenchmarkConfig,
    plan: Plan,
    models: Mapping[Setting, SourceModel],
    results: tuple[Table, Iterable[Row]],
    references: Iterable[Row],
) -> list[StreamCells]:
    """What is still to be run.

    Args:
        config: options.
        plan: from ``create_plan``.
        models: the source model of each stream, all trained.
        results: the table, and the rows that are there.
        references: rows that are there.
    """
    table, rows = results
    finished = {key_of(row, table.keys) for row in rows}
    measured = {key_of(row, STREAM_KEYS) for row in references}
    tasks = []
    for stream, cases in plan:
        setting, model = stream.setting, models[stream.setting]
        words = data_words(config, setting.data, setting.target)
        names = {**setting._asdict(), "images": stream.images}
        cells = []
        for case in cases:
            variant = variant_of(config, case.method)
            cell = create_cell(variant, case.rate, str(model.folder), words, setting.batch_size)
            left = [
                policy
                for policy in _policies(config, variant)
                if key_of({**names, **cell.names, "policy": policy}, table.keys) not in finished
            ]
            cells += [replace(cell, policies=tuple(left))] if left else []
        normalizations = config.compared and key_of(names, STREAM_KEYS) not in measured
        if cells or normalizations:
            tasks.append(
                StreamCells(
                    setting=setting,
                    images=stream.images,
                    cells=tuple(cells),
                    source=str(model.folder),
                    model=model.seed,
                    data=words,
                    compared=config.compared,
                    normalizations=normalizations,
                )
            )
    return tasks


def _policies(config: BenchmarkConfig, variant: Variant) -> tuple[str, ...]:
    """The guards of a cell: where methods also run alone, those that learn nothing run so only."""
    alone = OFF in config.guards and not variant.learns
    return (OFF,) if alone else config.guards


def variant_of(config: BenchmarkConfig, label: str) -> Variant:
    """The method, or variant of one, that goes by this label."""
    options: dict[str, Any] = dict(config.variants.get(label, {"kind": label}))
    return Variant(label, options.pop("kind"), tuple(options.items()))
