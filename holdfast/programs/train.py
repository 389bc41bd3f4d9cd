"""What ``train.py`` does: train a source model; images in, one checkpoint out that carries all that
adaptation needs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.training.config import GROUPS, TrainConfig, configure
from holdfast.tta import entry
from holdfast.tta.processes import is_first
from holdfast.tta.saying import heed
from holdfast.tta.stopping import stopped_folder

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from holdfast.tta.checkpoint import SourceCheckpoint

USAGE = (
    "usage: holdfast train [config.yaml ...] [key=value ...]\n"
    "       holdfast train resume=DIR\n\n"
    "Train a source model, or adopt one with weights=FILE, and write output/source.ckpt.\n"
    "Images of your own: data=folder data.root=DIR, or data=table data.path=FILE.csv."
)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        from holdfast.training.run import check, recalibrate, resume, train

        stopped = stopped_folder(argv)
        if stopped is not None:
            _tell(resume(stopped) / "source.ckpt")
            return
        config = configure(argv)
        if config.check is not None:
            print(f"checked, and nothing was trained; contact sheet: {check(config)}")
            return
        heed(config.trainer)
        only = config.calibrate.kind == "only"
        file = recalibrate(config) if only else train(config) / "source.ckpt"
        _tell(file)

    return entry.run(run, TrainConfig, GROUPS, USAGE, argv, configure=configure)


def _tell(file: Path) -> None:
    from holdfast.tta.checkpoint import SourceCheckpoint

    if is_first():
        print(f"{file}: {_told(SourceCheckpoint.load(file))}")


def _told(checkpoint: "SourceCheckpoint") -> str:
    """The score of a source model in words, of its test images where they have labels."""
    from holdfast.tta.results import headline

    metrics, figure = checkpoint.metrics, checkpoint.meaning.watch
    called = figure.replace("_", " ")
    test = headline(metrics, figure)
    if test is not None:
        return f"test {called} {test:.1f} %"
    val = metrics.get(f"val_{figure}")
    score = float("nan") if val is None else val
    return f"validation {called} {score:.1f} % (there are no labelled test images)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
