"""Compare finished runs for a paper: means, paired tests against a baseline, LaTeX, a diagram."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.folder import held, writing
from holdfast.tta.options import option

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from holdfast.comparing.found import Comparison

USAGE = (
    "usage: holdfast compare RUNS … [baseline=NAME] [key=value ...]\n\n"
    "Compare methods over the streams and seeds that all of them met, as a paper does it.\n"
    "RUNS are folders, searched for runs of adapt.py, results.csv of benchmark.py and offline\n"
    "runs of W&B's; tables with the columns method and seed; or wandb:ENTITY/PROJECT."
)
#: What learns nothing, and is the baseline where none is named; then whatever is unguarded.
_BASELINES = ("norm", "source", "norm/off", "source/off", "off")


@dataclass
class CompareConfig:
    """Options of ``holdfast compare``."""

    baseline: str | None = option(
        None, "what the others are held against; null: norm, else source, else guard off"
    )
    by: Any = option("method", "what is compared: an option, or several, [method,guard]")
    metric: str = option("balanced_accuracy", "figure of metrics.json, e.g. auroc/macro")
    only: list[str] = option([], "names of what to compare; none: all")
    without: list[str] = option([], "names of what to leave out")
    pairs: Literal["seeds", "conditions"] = option(
        "seeds", "what is paired: seeds of each condition, or conditions, as means over seeds"
    )
    bootstrap: int = option(10_000, "resamples of pairs for the intervals")
    output: str | None = option(
        None, "folder of comparison.csv, comparison.tex and critical_difference.pdf; null: none"
    )

    def __post_init__(self) -> None:
        if self.bootstrap < 1:
            raise InputError("bootstrap must be at least 1")

    @property
    def names(self) -> list[str]:
        """The options of what is compared."""
        return [self.by] if isinstance(self.by, str) else [str(name) for name in self.by]


def compared(places: Sequence[str], config: CompareConfig) -> "Comparison":
    """Read runs and compare them.

    Args:
        places: as ``read_runs`` takes them.
        config: how to.
    """
    from holdfast.comparing.comparison import compare
    from holdfast.comparing.runs import read_runs, table_of

    runs = read_runs(places)
    table = table_of(runs, config.names, config.metric, config.only, config.without)
    by = "/".join(config.names)
    return compare(
        table,
        config.baseline or _baseline([str(row[by]) for row in table]),
        by=by,
        metric=config.metric,
        pairs=config.pairs,
        resamples=config.bootstrap,
    )


def _baseline(names: Sequence[str]) -> str:
    for name in _BASELINES:
        if name in names:
            return name
    raise InputError(f"name what to compare with, baseline=NAME: {', '.join(dict.fromkeys(names))}")


def _configured(argv: Sequence[str]) -> CompareConfig:
    """The configuration of the words that name no runs."""
    words = [word for word in argv if not _names_place(word)]
    return entry.configured(CompareConfig, {}, words)


def _names_place(word: str) -> bool:
    """Whether a word names runs, though folders of sweeps often have a = in their names."""
    if word.startswith("-") or word.endswith((".yaml", ".yml")):
        return False
    return "=" not in word or word.startswith("wandb:") or Path(word).expanduser().exists()


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        places = [word for word in argv if _names_place(word)]
        config = _configured(argv)
        if not places:
            raise InputError("name what to compare: folders of runs, holdfast compare runs/adapt")
        from holdfast.comparing.outputs import write

        found = compared(places, config)
        print(found)
        if config.output is None:
            return
        folder = Path(config.output).expanduser()
        with held(folder), writing(folder / "comparison.csv"):
            paths = write(found, folder)
        print("\n" + "\n".join(map(str, paths)))

    return entry.run(run, CompareConfig, {}, USAGE, argv, configure=_configured)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
