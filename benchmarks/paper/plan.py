"""The study's points: a centre, and one axis at a time around it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from holdfast.benchmarks.cell import Cell, Task
from holdfast.benchmarks.grid import Setting, settings, shard_of
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.plan import Model, data_words, present_targets, variant_of
from holdfast.benchmarks.tables import Row, key_of
from holdfast.tta.methods import METHODS
from holdfast.tta.methods.settings import UpdateConfig

#: What names a row of ``results.csv``.
STREAM = ("data", "target", "shift", "severity", "stream", "batch_size", "images", "seed")
KEYS = (*STREAM, "method", "optimizer", "lr")
#: Before adaptation: the source itself, and the control, which has its weights and the methods'
#: statistics.
REFERENCES = ("source", "norm")


class Stream(NamedTuple):
    """A stream of a length."""

    setting: Setting
    images: int


#: Streams with what runs on each.
Plan = list[tuple[Stream, list[Cell]]]


def create_plan(config: PaperConfig) -> Plan:
    """The streams of this shard with their cells, references first; one seed after the other."""
    targets = [*present_targets(config)]
    narrow = [target for target in targets if target in (config.batch_targets or targets)]
    first, *shifts = config.shifts
    optimizer, *optimizers = config.optimizers
    rate, *rates = config.rates
    batch_size, *batch_sizes = config.batch_sizes
    length, *lengths = config.lengths
    plan: dict[Stream, list[Cell]] = {}

    def add(
        targets: list[str], shift: str, batch_size: int, length: int, cells: Iterable[Cell]
    ) -> None:
        axes = ([shift], [config.severity], config.streams, config.seeds)
        for setting in settings(targets, *axes, batch_sizes=[batch_size]):
            plan.setdefault(Stream(setting, length), []).extend(cells)

    def cells(labels: Iterable[str], optimizer: str = optimizer, rate: float = rate) -> list[Cell]:
        return [_cell(config, label, optimizer, rate) for label in labels]

    centre = cells([*REFERENCES, *config.methods, *config.central])
    centre += [cell for other in optimizers for cell in cells(config.methods, optimizer=other)]
    centre += [cell for other in rates for cell in cells(config.methods, rate=other)]
    add(targets, first, batch_size, length, centre)
    for shift in shifts:
        add(targets, shift, batch_size, length, cells([*REFERENCES, *config.methods]))
    for longer in lengths:
        add(targets, first, batch_size, longer, cells([*REFERENCES, *config.close]))
    for size in batch_sizes:
        add(narrow, first, size, length, cells([*REFERENCES, *config.close]))
    ordered = sorted(plan.items(), key=lambda item: config.seeds.index(item[0].setting.seed))
    return shard_of([(stream, _once(cells)) for stream, cells in ordered], config.shard)


def plan_tasks(
    config: PaperConfig, plan: Plan, models: Mapping[Setting, Model], results: Iterable[Row]
) -> list[Task]:
    """What is still to be run.

    Args:
        config: options.
        plan: from ``create_plan``.
        models: the source model of each stream, all trained.
        results: rows that are there.
    """
    finished = {key_of(row, KEYS) for row in results}
    tasks = []
    for stream, cells in plan:
        model = models[stream.setting]
        words = data_words(config, stream.setting.data, stream.setting.target)
        left = tuple(cell for cell in cells if key_of(row_of(stream, cell), KEYS) not in finished)
        if left:
            tasks.append(
                Task(
                    *(stream.setting, left, str(model.folder), model.seed, words),
                    images=stream.images,
                    normalizations=False,
                )
            )
    return tasks


def row_of(stream: Stream, cell: Cell) -> Row:
    """The columns that name a cell's row."""
    names = {**stream.setting._asdict(), "images": stream.images}
    return {**names, "method": cell.variant.label, "optimizer": cell.optimizer, "lr": cell.lr}


def _once(cells: Iterable[Cell]) -> list[Cell]:
    return list({(cell.variant.label, cell.optimizer, cell.lr): cell for cell in cells}.values())


def _cell(config: PaperConfig, label: str, optimizer: str, rate: float) -> Cell:
    variant = variant_of(config, label)
    if not issubclass(METHODS[variant.kind].Config, UpdateConfig):
        return Cell(variant, None, None)
    return Cell(variant, optimizer, float(f"{config.lr[optimizer] * rate:.6g}"))
