"""Run the study, or put its shards together; then summary, page and pictures."""

from pathlib import Path
from typing import Any

from holdfast.benchmarks import tables, workers
from holdfast.benchmarks.comparison import write_page
from holdfast.benchmarks.options import output_folder
from holdfast.benchmarks.paper import pictures
from holdfast.benchmarks.paper.cell import RESULTS, run_task
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.paper.page import markdown
from holdfast.benchmarks.paper.plan import KEYS, create_plan, plan_tasks
from holdfast.benchmarks.paper.summary import as_table, summarize
from holdfast.benchmarks.plan import missing_models, plan_models
from holdfast.benchmarks.provenance import merge_models, record_models
from holdfast.tta import entry
from holdfast.tta.folder import held
from holdfast.tta.style import save

__all__ = ["as_table", "run_study"]

_COLUMNS = {"results": RESULTS, "errors": (*KEYS, "error")}


def run_study(config: PaperConfig) -> dict[str, Any]:
    """Run the cells that are not there yet, or put shards together; then write summary and
    pictures, and a page if asked.

    Returns:
        The content of ``summary.json``.
    """
    with held(Path(config.output).expanduser()):
        return _run_study(config)


def _run_study(config: PaperConfig) -> dict[str, Any]:
    folder = output_folder(config)
    if config.merge:
        parts = [Path(part).expanduser() for part in config.merge]
        merge_models(folder, parts)
        tables.merge(folder, parts, {"results": KEYS}, _COLUMNS)
    else:
        run_cells(config, folder)
    rows = tables.latest(tables.read(folder / "results.csv"), KEYS)
    summary = summarize(rows, config)
    entry.write_json(folder / "summary.json", summary)
    figures = pictures.draw(rows, config)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    if config.page is not None:
        page = Path(config.page)
        write_page(page, markdown(rows, config), "benchmark.py study=paper")
        images = page.with_suffix("")
        images.mkdir(exist_ok=True)
        (images / "results.csv").write_bytes((folder / "results.csv").read_bytes())
        for name, figure in figures.items():
            save(figure, images / f"{name}.png")
    return summary


def run_cells(config: PaperConfig, folder: Path) -> None:
    """Train the source models that are missing, and run the cells that are."""
    plan = create_plan(config)
    models = plan_models(config, [stream.setting for stream, _ in plan])
    workers.train_models(missing_models(config, models.values()), config.processes)
    record_models(folder, models.values())
    tasks = plan_tasks(config, plan, models, tables.read(folder / "results.csv"))
    total = sum(len(cells) for _, cells in plan)
    left = sum(len(task.cells) for task in tasks)
    workers.run_cells(run_task, tasks, config.processes, folder, _COLUMNS, total=total, left=left)
