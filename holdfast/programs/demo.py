"""The demo: a source model, a shifted target, Tent unguarded, Tent guarded and DSBR guarded, on a
page that needs no network. `make demo` runs it.

holdfast demo [output=runs/demo] [seed=0]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.tta import entry
from holdfast.tta.options import option

USAGE = (
    "usage: holdfast demo [key=value ...]\n\n"
    "Show on embedded data how adaptation collapses, and the guard."
)


@dataclass
class DemoConfig:
    """Options of the demo."""

    output: str = option("runs/demo", "folder of the results")
    seed: int = option(0, "seed of training and stream")
    epochs: int = option(7, "epochs of source training")
    passes: int = option(2, "how often the stream goes over the target")
    images: int = option(4800, "images of the target")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = entry.configured(DemoConfig, {}, argv)
        # Here, where work begins: torch takes seconds, and --help needs none of it.
        from holdfast.programs.shown import demo

        demo(**vars(config))

    return entry.run(run, DemoConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
