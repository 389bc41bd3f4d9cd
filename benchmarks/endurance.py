"""What a long run costs as it goes on: memory, speed and disk, at shares of its stream.

python -m holdfast.benchmarks.endurance source=runs/train/here [images=100000] [report=true]
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep

from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.endurance source=DIR_OR_CKPT [key=value ...]\n\n"
    "Adapt to many images of the phantom, and tell memory, speed and disk along the way."
)
#: Percent of the stream at which the run is looked at; memory is to be flat behind the first.
SHARES = (1, *range(10, 101, 10))
#: Seconds between looks.
_LOOK = 0.2
#: Bytes of a MB, and kB of a MB as /proc counts them.
_BYTES, _KILO = 1e6, 1024


@dataclass
class EnduranceConfig:
    """Options of the endurance run."""

    source: str | None = option(None, "source checkpoint, or the folder of one; required")
    images: int = option(100_000, "images of the stream")
    batch_size: int = option(64, "images of a batch")
    report: bool = option(True, "whether the run writes a report")
    wandb: str = option("offline", "offline: as W&B logs without a server; or disabled")
    method: str = option("tent", "adaptation method")
    guard: str = option("on", "guard")
    output: str = option("runs/endurance", "folder of the run, which must not be there yet")

    def __post_init__(self) -> None:
        if self.wandb not in ("offline", "disabled"):
            raise InputError(f"wandb={self.wandb} is neither offline nor disabled")
        if min(self.images, self.batch_size) < 1 or self.images // self.batch_size < max(SHARES):
            raise InputError("images must be 100 batches of batch_size or more, to be told apart")
        if not Path("/proc/self/status").is_file():
            raise InputError("memory is read from /proc, which Linux alone has")


@dataclass(frozen=True)
class Footprint:
    """How a run stands.

    Attributes:
        seconds: since it was started.
        images: that it has served.
        memory: of its process, MB.
        others: of the processes that it started, W&B's among them, MB.
        disk: of its folder, MB.
    """

    seconds: float
    images: int
    memory: float
    others: float
    disk: float


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = entry.configured(EnduranceConfig, {}, argv)
        if config.source is None:
            raise InputError("source is missing: name the checkpoint of train.py, source=DIR")
        print(table(measured(config), config.images))

    return entry.run(run, EnduranceConfig, {}, USAGE, argv)


def measured(config: EnduranceConfig) -> list[Footprint]:
    """A run from its start to its end, looked at again and again.

    Raises:
        InputError: the run failed.
    """
    out, looks = Path(config.output), []
    words = [f"source={config.source}", f"data.target_images={config.images}", "data=phantom"]
    words += [f"stream.batch_size={config.batch_size}", f"report={config.report}".lower()]
    words += [f"method={config.method}", f"guard={config.guard}", f"wandb.mode={config.wandb}"]
    words += ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", f"output={out}"]
    command = [sys.executable, "-m", "holdfast", "adapt", *words]
    environment = {**os.environ, "WANDB_MODE": config.wandb}
    started = perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        batches = _lines(out / "trace.csv")
        while process.poll() is None:
            images = min(config.images, max(0, next(batches) - 1) * config.batch_size)
            looks.append(_look(process.pid, perf_counter() - started, images, out))
            sleep(_LOOK)
    finally:
        process.kill()
        _, said = process.communicate()
    if process.returncode:
        raise InputError(f"the run failed: {said.strip().splitlines()[-1]}")
    looks = [look for look in looks if look.memory]  # one that ended meanwhile has none
    return [*looks, replace(looks[-1], disk=_disk(out))]


def reached(looks: Sequence[Footprint], images: int) -> list[Footprint]:
    """The first look at or behind each share of the stream, or the last there is."""
    return [
        next((look for look in looks if look.images >= share * images / 100), looks[-1])
        for share in SHARES
    ]


def table(looks: Sequence[Footprint], images: int) -> str:
    """The figures as a table of a page, and what the end of the run took."""
    lines = [
        "| of the stream | images | images/s since | memory, MB | of W&B, MB | folder, MB |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    before = next((look for look in looks if look.images), looks[0])
    at = reached(looks, images)
    for share, look in zip(SHARES, at, strict=True):
        rate = (look.images - before.images) / max(look.seconds - before.seconds, _LOOK)
        lines.append(
            f"| {share} % | {look.images:,} | {rate:,.0f} | {look.memory:.0f} | "
            f"{look.others:.0f} | {look.disk:.1f} |"
        )
        before = look
    first, end, last = at[0], at[-1], looks[-1]
    grown, within = (100 * (memory / first.memory - 1) for memory in (end.memory, _most(looks, at)))
    most = max(look.memory for look in looks if look.seconds >= end.seconds)
    lines += [
        "",
        f"Memory grew by {grown:.1f} % from {SHARES[0]} % to the end of the stream, and by "
        f"{within:.1f} % at most on the way. Scores, tables and report took "
        f"{last.seconds - end.seconds:.0f} s more, {most:.0f} MB at most, and left "
        f"{last.disk:.1f} MB.",
    ]
    return "\n".join(lines)


def _most(looks: Sequence[Footprint], at: Sequence[Footprint]) -> float:
    """The most memory between the first share and the end of the stream."""
    start, end = at[0].seconds, at[-1].seconds
    return max(look.memory for look in looks if start <= look.seconds <= end)


def _lines(path: Path) -> Iterator[int]:
    """How many lines a file has that grows, whenever it is asked; 0 until it is there."""
    count = place = 0
    while True:
        if path.is_file():
            with path.open("rb") as file:
                file.seek(place)
                more = file.read()
            count, place = count + more.count(b"\n"), place + len(more)
        yield count


def _look(process: int, seconds: float, images: int, folder: Path) -> Footprint:
    others = sum(_memory(child) for child in _children(process))
    return Footprint(seconds, images, _memory(process), others, _disk(folder))


def _memory(process: int) -> float:
    """MB of a process that lie in memory; 0 of one that ended."""
    try:
        told = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    sizes = [line.split()[1] for line in told.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0]) / _KILO if sizes else 0.0


def _children(process: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_children(child)]
    return found


def _disk(folder: Path) -> float:
    """MB of all files of a folder."""
    sizes = 0
    for path in folder.rglob("*"):
        try:
            sizes += path.lstat().st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return sizes / _BYTES


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
