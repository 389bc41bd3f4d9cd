"""What ``adapt.py`` does: adapt a source model to an unlabelled stream, guarded, and leave
predictions with their evidence.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.adapting.config import GROUPS, AcceptConfig, AdaptConfig, configure, configured
from holdfast.tta import entry
from holdfast.tta.folder import held
from holdfast.tta.saying import heed
from holdfast.tta.stopping import stopped_folder

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from holdfast.adapting.assembly import Assembly

USAGE = (
    "usage: holdfast adapt source=DIR_OR_CKPT [config.yaml ...] [key=value ...]\n"
    "       holdfast adapt resume=DIR\n\n"
    "Carry a source model through a stream of target images, adapting as it goes.\n"
    "holdfast adapt accept … says by a few labels whether to deploy that: accept --help."
)
ACCEPT_USAGE = (
    "usage: holdfast adapt accept source=DIR_OR_CKPT [labels=FILE.csv] [config.yaml ...] "
    "[key=value ...]\n\n"
    "Serve the stream by the source, by each choice of statistics and by the method, and say by a "
    "few\nlabels which to deploy. Exit status 0: the guarded method; 4: do not adapt; 3: not "
    "settled.\n"
    "Options are those of a run; it leaves acceptance.json and acceptance.html in output,\n"
    "runs/accept/NAME."
)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    if argv[:1] == ["accept"]:
        return _main_accept(argv[1:])
    status = 0

    def run() -> None:
        nonlocal status
        from holdfast.adapting.assembly import Assembly
        from holdfast.adapting.run import adapt, check, resume
        from holdfast.results import Adapted

        stopped = stopped_folder(argv)
        if stopped is not None:
            print(Adapted(*resume(stopped)))
            return
        assembly = Assembly.of(*configured(AdaptConfig, argv))
        config = assembly.config
        if config.check is not None:
            print(f"checked, and nothing was adapted; contact sheet: {check(assembly)}")
        elif config.preflight.kind == "only":
            status = _look(assembly)
        else:
            heed(config.trainer)
            print(Adapted(*adapt(assembly)))

    return entry.run(run, AdaptConfig, GROUPS, USAGE, argv, configure=configure) or status


def _look(assembly: "Assembly") -> int:
    """Look at the first images, and no more; returns the exit status."""
    from holdfast.adapting.outputs import write_look
    from holdfast.callbacks.preflight import EXIT

    look = assembly.preflight()
    print(look)
    if assembly.config.output is not None:  # and nothing else, for a run's results may lie there
        folder = Path(assembly.config.output).expanduser()
        with held(folder):
            write_look(folder, look)
    return EXIT[look.advice]


def _main_accept(argv: Sequence[str]) -> int:
    status = 0

    def run() -> None:
        nonlocal status
        from holdfast.adapting.accept import accept
        from holdfast.adapting.assembly import Assembly
        from holdfast.tta import acceptance

        assembly = Assembly.of(*configured(AcceptConfig, argv))
        heed(assembly.config.trainer)
        folder, found = accept(assembly)
        print(f"{found}\n{folder / 'acceptance.html'}")
        status = acceptance.EXIT[found.advice]

    def configure_(words: Sequence[str]) -> AcceptConfig:
        return configured(AcceptConfig, words)[0]

    return entry.run(run, AcceptConfig, GROUPS, ACCEPT_USAGE, argv, configure=configure_) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
