"""Every method, unguarded and with its defaults, on real shifts: the tables of docs/results.md.

python -m holdfast.benchmarks.comparison [root=DIR] [sources=DIR] [seeds=[0,1,2]] [methods=[tent]]
"""

import csv
import io
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from lightning import seed_everything
from tqdm import tqdm

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.benchmarks.sources import data_words, source_model
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.methods.settings import UpdateConfig
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.comparison [key=value ...]\n\n"
    "Compare all methods, unguarded, "
    "on real shifts."
)


class Target(NamedTuple):
    """Target images under a title: whose source model meets them, and how adapt.py is asked for
    them.
    """

    title: str
    data: str
    words: tuple[str, ...]


_TARGETS = (
    Target("nuclei fluor_360", "nuclei", ("data.target=fluor_360",)),
    Target("nuclei fluor_520x696", "nuclei", ("data.target=fluor_520x696",)),
    Target("vessels chase", "vessels", ("data.target=chase",)),
    *(
        Target(
            f"chest {shift} {severity}", "chest", (f"shift={shift}", f"shift.severity={severity}")
        )
        for shift in ("noise", "contrast")
        for severity in (3, 5)
    ),
)
_STREAMS = {
    "iid": ("stream=iid",),
    "85 %": ("stream=prevalence", "stream.label=0", "stream.fraction=0.85"),
}
#: So slow that it is measured on a shorter stream.
_SLOW = "memo"

_END = "<!-- end -->"


class Row(NamedTuple):
    """A finished run, as a line of the CSV; balanced accuracy in percent."""

    target: str
    stream: str
    seed: int
    method: str
    images: int
    balanced_accuracy: float
    images_per_second: float


class Job(NamedTuple):
    """The methods still to be run on one stream."""

    target: Target
    stream: str
    seed: int
    methods: tuple[str, ...]


@dataclass
class ComparisonConfig:
    """Options of the comparison."""

    root: str = option(
        "../shared/data", "folder of nuclei_patches.npz, vessel_patches.npz and pneumoniamnist.npz"
    )
    sources: str = option(
        "runs/sources", "folder of source models, NAME-seedN; what is missing is trained"
    )
    output: str = option("docs/results.csv", "finished runs, which are not run again")
    page: str = option("docs/results.md", "page whose tables are written anew")
    seeds: list[int] = option([0, 1, 2], "seeds of training and stream")
    methods: list[str] = option(list(METHODS), "methods to run")
    images: int = option(1024, "images of a stream, the first ones; or all where there are fewer")
    slow_images: int = option(
        128, "the same for memo, which adapts to each image by itself, over 32 views"
    )
    processes: int = option(1, "processes that share the streams")

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise InputError(f"unknown method {name!r}: {closest(name, METHODS)}")
        if min(self.images, self.slow_images, self.processes) < 1:
            raise InputError("images, slow_images and processes must be at least 1")


def compare(config: ComparisonConfig) -> None:
    """Train what is missing, run what is not in the CSV yet, and write the tables."""
    output = Path(config.output)
    jobs = _open_jobs(config, read_rows(output))
    for data, seed in dict.fromkeys((job.target.data, job.seed) for job in jobs):
        # No guard is on, and calibration takes longer than training.
        words = [*data_words(data, config.root), "calibrate=off"]
        source_model(Path(config.sources), data, seed, words)
    with tqdm(total=sum(len(job.methods) for job in jobs), unit="run", disable=None) as progress:
        for count in _run(partial(run_job, config), jobs, config.processes):
            progress.update(count)
    write_page(Path(config.page), tables(read_rows(output)))


def _open_jobs(config: ComparisonConfig, rows: Sequence[Row]) -> list[Job]:
    done = {(row.target, row.stream, row.seed, row.method) for row in rows}
    jobs = []
    for seed in config.seeds:
        for target in _TARGETS:
            for stream in _STREAMS:
                methods = tuple(
                    name
                    for name in config.methods
                    if (target.title, stream, seed, name) not in done
                )
                jobs += [Job(target, stream, seed, methods)] if methods else []
    return jobs


def _run(work: Any, jobs: Sequence[Job], processes: int) -> Iterator[int]:
    if processes == 1:
        yield from map(work, jobs)
        return
    threads = max(1, torch.get_num_threads() // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, context, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        yield from pool.map(work, jobs)


def run_job(config: ComparisonConfig, job: Job) -> int:
    """Run a stream's methods, each finished run a line of the CSV at once; returns their number."""
    source = Path(config.sources) / f"{job.target.data}-seed{job.seed}"
    data = data_words(job.target.data, config.root)
    words = [
        f"source={source}",
        *data,
        *job.target.words,
        *_STREAMS[job.stream],
        f"seed={job.seed}",
        "guard=off",
    ]
    batches = stream_batches(words)
    for name in job.methods:
        most = config.slow_images if name == _SLOW else config.images
        shown = batches[: max(1, most // len(batches[0]["image"]))]
        images, score, speed = measured([*words, f"method={name}"], shown)
        _append(
            Path(config.output),
            Row(job.target.title, job.stream, job.seed, name, images, score, speed),
        )
    return len(job.methods)


def stream_batches(words: Sequence[str]) -> list[dict[str, Any]]:
    """All batches of a stream that adapt.py would serve for these words."""
    return list(Assembly.of(configure(words)).loader)


def measured(words: Sequence[str], batches: Sequence[dict[str, Any]]) -> tuple[int, float, float]:
    """Carry a method through batches, without Lightning or guard, under the normalisation that it
    was published with.

    Args:
        words: those of adapt.py.
        batches: the stream, or its start.

    Returns:
        Number of images, balanced accuracy in percent, and images per second.
    """
    kind = configure(words).method.kind
    published = METHODS[kind].Config()
    fixed = (
        [f"method.normalization={published.normalization}"]
        if isinstance(published, UpdateConfig)
        else []
    )
    config = configure([*words, *fixed])
    seed_everything(config.seed, workers=True, verbose=False)
    checkpoint = SourceCheckpoint.load(config.source or "")
    method = Assembly.of(config, checkpoint).method()
    start = perf_counter()
    predictions = torch.cat([method(batch["image"]).argmax(1) for batch in batches])
    seconds = perf_counter() - start
    labels = torch.cat([batch["label"] for batch in batches])
    score = balanced_accuracy(predictions, labels, len(checkpoint.class_names))
    return len(labels), round(score, 2), round(len(labels) / seconds, 1)


def read_rows(path: Path) -> list[Row]:
    """The finished runs; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Row(
                target=row["target"],
                stream=row["stream"],
                seed=int(row["seed"]),
                method=row["method"],
                images=int(row["images"]),
                balanced_accuracy=float(row["balanced_accuracy"]),
                images_per_second=float(row["images_per_second"]),
            )
            for row in csv.DictReader(file)
        ]


def _append(path: Path, row: Row) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # in one write, since other processes append too
        file.write(
            line.getvalue() if file.tell() else f"{','.join(Row._fields)}\n{line.getvalue()}"
        )


def tables(rows: Sequence[Row]) -> str:
    """A table in Markdown for each kind of stream: balanced accuracy by method and target, mean ±
    deviation over seeds.
    """
    parts = []
    for stream in _STREAMS:
        here = [row for row in rows if row.stream == stream]
        titles = [
            target.title for target in _TARGETS if any(row.target == target.title for row in here)
        ]
        if not titles:
            continue
        lines = [
            f"| method | {' | '.join(titles)} | mean | images/s |",
            "|---|" + "--:|" * (len(titles) + 2),
        ]
        for name in METHODS:
            own = [row for row in here if row.method == name]
            scores = [
                [row.balanced_accuracy for row in own if row.target == title] for title in titles
            ]
            if not own:
                continue
            means = [statistics.fmean(values) for values in scores if values]
            mean = f"{statistics.fmean(means):.1f}" if len(means) == len(titles) else "–"
            speed = f"{statistics.median(row.images_per_second for row in own):.0f}"
            note = f" (first {max(row.images for row in own)})" if name == _SLOW else ""
            lines.append(
                f"| `{name}`{note} | {' | '.join(map(_spread, scores))} | {mean} | {speed} |"
            )
        parts.append(f"### {_HEADINGS[stream]}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


_HEADINGS = {
    "iid": "Classes as in the target (`stream=iid`)",
    "85 %": "85 % of one class (`stream=prevalence`)",
}


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def write_page(path: Path, text: str, writer: str = "holdfast.benchmarks.comparison") -> None:
    """Put the tables between the page's markers, which name their writer, and leave what is around
    them.
    """
    start = f"<!-- written by {writer} -->"
    page = path.read_text() if path.is_file() else f"# Results\n\n{start}\n{_END}\n"
    if page.count(start) != 1 or _END not in page.split(start)[1]:
        raise InputError(f"{path} lacks the lines {start} and {_END}, between which the tables go")
    before, rest = page.split(start)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{start}\n\n{text}\n\n{_END}{rest.split(_END, 1)[1]}")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: compare(entry.configured(ComparisonConfig, {}, argv)),
        ComparisonConfig,
        {},
        USAGE,
        argv,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
