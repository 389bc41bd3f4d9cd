"""The demo: a source model, a shifted target, Tent unguarded, Tent guarded and DSBR guarded. `make
demo` runs it.

python -m holdfast.benchmarks.demo [output=runs/demo] [seed=0]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.adapting.run import adapt
from holdfast.benchmarks.demo_report import curves, write_report
from holdfast.benchmarks.runs import Run
from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.datamodules import load_images
from holdfast.training.config import GROUPS as TRAIN_GROUPS
from holdfast.training.config import TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.options import option
from holdfast.tta.style import save

USAGE = (
    "usage: holdfast demo [key=value ...]\n\n"
    "Show on embedded data how adaptation "
    "collapses, and the guard."
)

#: Twenty times the rate at which adaptation helps: there entropy minimisation collapses, wherever
#: the source was trained.
_RATE = "method.lr=2e-2"
_RUNS = (
    ("source", "method=source", False),
    ("control", "method=norm", False),
    ("tent", f"method=tent {_RATE}", False),
    ("tent", f"method=tent {_RATE}", True),
    ("dsbr", f"method=dsbr {_RATE}", True),
)


@dataclass
class DemoConfig:
    """Options of the demo."""

    output: str = option("runs/demo", "folder of the results")
    seed: int = option(0, "seed of training and stream")
    epochs: int = option(7, "epochs of source training")
    passes: int = option(2, "how often the stream goes over the target")
    images: int = option(4800, "images of the target")


def demo(config: DemoConfig) -> dict[str, Any]:
    """Train, adapt, print the table, write ``summary.json`` and ``report.html``.

    Returns:
        The content of ``summary.json``.
    """
    folder = Path(config.output)
    words = [f"seed={config.seed}", "wandb.group=demo"]
    print("Training a source model on scanner_a …")
    options = [f"data.target_images={config.images}", f"epochs={config.epochs}", "calibrate=quick"]
    train(
        entry.configured(
            TrainConfig,
            TRAIN_GROUPS,
            [*words, *options, f"output={folder / 'source'}", "overwrite=true"],
        )
    )
    checkpoint = SourceCheckpoint.load(folder / "source")
    classes = tuple(checkpoint.class_names)
    runs: list[tuple[str, bool, Run]] = []
    labels: dict[str, int] = {}
    for name, method, guarded in _RUNS:
        title = _title(name, guarded)
        output = folder / title.replace(" ", "_")
        print(f"Streaming scanner_b through {title} …")
        adaptation = configure(
            [
                *words,
                *method.split(),
                f"source={folder / 'source'}",
                # The stream comes in random order, which a site may know, and images do not tell.
                *(["guard=on", "guard.order=mixed"] if guarded else ["guard=off"]),
                f"stream.passes={config.passes}",
                f"output={output}",
                "overwrite=true",
            ]
        )
        adapt(Assembly.of(adaptation))
        if not labels:
            target = load_images("phantom", adaptation.data.options, "target")
            labels = dict(zip(target.ids.tolist(), target.labels.tolist(), strict=True))
            source = load_images("phantom", adaptation.data.options, "test")
        runs.append((name, guarded, Run.read(output, title, classes, labels)))
    references, compared = runs[:2], runs[2:]
    summary = _summary(runs)
    entry.write_json(folder / "summary.json", summary)
    thresholds = levels_of(GuardConfig(), checkpoint.calibration).shown
    drawn = [(run.title, run) for _, _, run in references], [run for _, _, run in compared]
    save(curves(*drawn, len(classes), thresholds), folder / "demo.png")
    page = write_report(
        "Holdfast demo: adaptation with and without a guard",
        "A model trained on cells under one scanner meets another scanner, and adapts at twenty "
        "times the sane learning rate.",
        *drawn,
        classes,
        [("source: scanner_a", source), ("target: scanner_b", target)],
        thresholds,
    )
    (folder / "report.html").write_text(page)
    _print_table([run for _, _, run in runs])
    print(f"\nOpen {folder / 'report.html'}")
    return summary


def _summary(runs: Sequence[tuple[str, bool, Run]]) -> dict[str, Any]:
    """What ``summary.json`` holds: the two references' scores, and the figures of the runs that
    adapt.
    """
    figures = ("balanced_accuracy", "last_quarter", "alarms", "resets")
    adapting = [
        {"name": name, "guarded": guarded, **{key: run.metrics[key] for key in figures}}
        for name, guarded, run in runs[2:]
    ]
    return {
        **{name: run.metrics["balanced_accuracy"] for name, _, run in runs[:2]},
        "runs": adapting,
    }


def _print_table(runs: Sequence[Run]) -> None:
    print(f"\n{'run':<18}{'balanced accuracy':>18}{'last quarter':>14}{'resets':>8}")
    for run in runs:
        metrics = run.metrics
        scores = (
            f"{metrics['balanced_accuracy']:>16.1f} %{metrics['last_quarter']:>12.1f} "
            f"%{metrics['resets']:>8}"
        )
        print(f"{run.title:<18}{scores}")


def _title(name: str, guarded: bool) -> str:
    if name in ("source", "control"):
        return name
    return f"{name} {'guarded' if guarded else 'unguarded'}"


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(lambda: _run(argv), DemoConfig, {}, USAGE, argv)


def _run(argv: Sequence[str]) -> None:
    demo(entry.configured(DemoConfig, {}, argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
