"""What a long run costs as it goes on: memory, speed and disk, at shares of its stream, which is of
the phantom.

python -m holdfast.benchmarks.endurance source=runs/train/here [images=100000] [report=true]
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep

import psutil

from holdfast.benchmarks import pages
from holdfast.benchmarks.script import script
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Percent of the stream at which the run is looked at; memory is to be flat behind the first.
SHARES = (1, *range(10, 101, 10))
#: Seconds between looks, and bytes of a MB.
_LOOK, _BYTES = 0.2, 1e6
_HEAD = ("of the stream", "images", "images/s since", "memory, MB", "of W&B, MB", "folder, MB")


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


def measured(config: EnduranceConfig) -> list[Footprint]:
    """A run from its start to its end, looked at again and again.

    Raises:
        InputError: no source is named, or the run failed.
    """
    if config.source is None:
        raise InputError("source is missing: name the checkpoint of train.py, source=DIR")
    out, looks = Path(config.output), []
    words = [f"source={config.source}", f"data.target_images={config.images}", "data=phantom"]
    words += [f"stream.batch_size={config.batch_size}", f"report={config.report}".lower()]
    words += [f"method={config.method}", f"guard={config.guard}", f"wandb.mode={config.wandb}"]
    words += ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", f"output={out}"]
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "adapt", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WANDB_MODE": config.wandb},
    )
    try:
        while process.poll() is None:
            images = min(config.images, max(0, _lines(out / "trace.csv") - 1) * config.batch_size)
            with suppress(psutil.Error):  # it ended meanwhile
                sizes = memory(psutil.Process(process.pid))
                look = Footprint(perf_counter() - started, images, *sizes, disk(out))
                looks += [look] if look.memory else []
            sleep(_LOOK)
    finally:
        process.kill()
        _, said = process.communicate()
    if process.returncode:
        raise InputError(f"the run failed: {said.strip().splitlines()[-1]}")
    return [*looks, replace(looks[-1], disk=disk(out))]


def reached(looks: Sequence[Footprint], images: int) -> list[Footprint]:
    """The first look at or behind each share of the stream, or the last there is."""
    return [
        next((look for look in looks if look.images >= share * images / 100), looks[-1])
        for share in SHARES
    ]


def table(looks: Sequence[Footprint], images: int) -> str:
    """The figures as a table of a page, and what the end of the run took."""
    before = next((look for look in looks if look.images), looks[0])
    at, lines = reached(looks, images), []
    for share, look in zip(SHARES, at, strict=True):
        rate = (look.images - before.images) / max(look.seconds - before.seconds, _LOOK)
        sizes = [f"{look.memory:.0f}", f"{look.others:.0f}", f"{look.disk:.1f}"]
        lines.append([f"{share} %", f"{look.images:,}", f"{rate:,.0f}", *sizes])
        before = look
    first, end, last = at[0], at[-1], looks[-1]
    on_the_way = [k.memory for k in looks if first.seconds <= k.seconds <= end.seconds]
    grown, within = (100 * (size / first.memory - 1) for size in (end.memory, max(on_the_way)))
    most = max(look.memory for look in looks if look.seconds >= end.seconds)
    return (
        f"{pages.table(_HEAD, lines, texts=0)}\n\n"
        f"Memory grew by {grown:.1f} % from {SHARES[0]} % to the end of the stream, and by "
        f"{within:.1f} % at most on the way. Scores, tables and report took "
        f"{last.seconds - end.seconds:.0f} s more, {most:.0f} MB at most, and left "
        f"{last.disk:.1f} MB."
    )


def _lines(path: Path) -> int:
    """How many lines a file has that grows; 0 until it is there."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def memory(process: psutil.Process) -> tuple[float, float]:
    """MB that lie in memory of a process, and of those that it started and they started.

    Raises:
        psutil.Error: it ended.
    """
    others = 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            others += child.memory_info().rss
    return process.memory_info().rss / _BYTES, others / _BYTES


def disk(folder: Path) -> float:
    """MB of all files of a folder."""
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            sizes += path.lstat().st_size
    return sizes / _BYTES


def endurance(config: EnduranceConfig) -> str:
    """The table of a run."""
    return table(measured(config), config.images)


main = script(EnduranceConfig, endurance)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
