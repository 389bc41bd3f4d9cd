"""Judge a recorded trace again under other settings of the guard: no images, no model, no waiting.

    python -m holdfast.callbacks.replay runs/adapt/NAME/trace.csv guard.limits.R=0.5

The settings start from those of the run, where its ``config.yaml`` lies beside the trace, and from
its source's calibration. With the same settings the verdicts are the recorded ones. With others
they tell when the alarm *would* have come; what the model would have done after it, a trace cannot
know: the signals stay those of the recorded run.
"""

import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.callbacks.settings import GuardConfig
from holdfast.tta import entry
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.csvfile import csv_lines, read_rows
from holdfast.tta.errors import InputError, said
from holdfast.tta.options import option
from holdfast.tta.saying import warn

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from holdfast.callbacks.guard.modes import Decision
    from holdfast.tta.tasks import Task

USAGE = (
    "usage: holdfast replay TRACE_CSV_OR_RUN_FOLDER [config.yaml ...] "
    "[key=value ...]\n\n"
    "Judge a recorded trace again under other settings of the guard."
)
#: Settings on which verdicts depend; all others change what is measured in the first place.
REPLAYED = ("levels", "limits", "false_alarm", "ladder", "window")
_STATES = ("OK", "WATCH", "ALARM", "FROZEN")


@dataclass
class TraceReplayConfig:
    """Options of ``callbacks.replay``."""

    guard: GuardConfig = option(GuardConfig(), "settings of the guard")
    source: str | None = option(
        None, "source checkpoint whose calibration counts; null: none without the run's config.yaml"
    )
    output: str | None = option(None, "CSV file that the replayed trace is written to")


def replay(
    rows: Sequence[Mapping[str, str]],
    config: GuardConfig,
    calibration: Mapping[str, Any] | None = None,
    task: "Task | None" = None,
) -> "list[Decision]":
    """The decision on each row of a trace, by the rule of the live guard.

    Args:
        rows: of ``trace.csv``, all from the first on.
        config: the guard's settings.
        calibration: of the source checkpoint, for levels and limits that are not set.
        task: what its predictions are of; None: images with one label.

    Raises:
        KeyError: a row lacks a column.
        ValueError: a cell holds what no trace does.
    """
    from holdfast.callbacks.calibrated import levels_of
    from holdfast.callbacks.guard.modes import Look, Memory, judge
    from holdfast.callbacks.guard.signals import SIGNALS

    memory, levels = Memory(), levels_of(config, calibration, task)
    result = []
    for row in rows:
        values = {signal.name: _number(row[signal.name]) for signal in SIGNALS}
        known = values if any(value is not None for value in values.values()) else None
        leads = cast("Any", row["leads"] or None)
        stands_for = int(row["stands_for"] or 1)
        choice = cast("Any", row["choice"] or None)
        look = Look(int(row["batch"]), known, leads, choice, stands_for, bool(row["skipped"]))
        decision = judge(look, memory, levels, config)
        memory = decision.memory
        result.append(decision)
    return result


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def read_trace(path: Path) -> list[dict[str, str]]:
    """Rows of a ``trace.csv``.

    Raises:
        InputError: it cannot be read, is not from a guarded run, or lacks columns.
    """
    from holdfast.callbacks.guard.signals import SIGNALS
    from holdfast.callbacks.records import HANDLED

    try:
        rows = list(read_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the trace {path} cannot be read: name the trace.csv of a run of adapt.py, or its "
            "folder"
        ) from error
    if not rows:
        raise InputError(
            f"{path} holds no batch: name the trace.csv of a run of adapt.py that has seen one"
        )
    missing = {"batch", "verdict", "skipped", *HANDLED, *(signal.name for signal in SIGNALS)} - set(
        rows[0]
    )
    if missing:
        raise InputError(
            f"{path} lacks the columns {', '.join(sorted(missing))}: record it again with this "
            "version"
        )
    if not any(row["verdict"] for row in rows):
        raise InputError(
            f"{path} was recorded without the guard, so it holds nothing to judge: run adapt.py "
            "with guard=on"
        )
    if rows[0]["batch"] != "0":
        raise InputError(
            f"{path} begins at batch {rows[0]['batch']}, and a verdict depends on all batches "
            "before it: name a whole trace"
        )
    return rows


def report(rows: Sequence[Mapping[str, str]], judged: "Sequence[Decision]") -> str:
    """Recorded against replayed: batches in each state, alarms, and where the verdicts differ."""
    batches = [row["batch"] for row in rows]
    old, new = [row["verdict"] for row in rows], [decision.verdict.state for decision in judged]
    lines = [f"{'':10}" + "".join(f"{state:>8}" for state in _STATES) + "  alarms at batch"]
    for name, states in (("recorded", old), ("replayed", new)):
        counts = Counter(states)
        alarms = ", ".join(
            batch for batch, state in zip(batches, states, strict=True) if state == "ALARM"
        )
        lines.append(
            f"{name:10}"
            + "".join(f"{counts[state]:>8}" for state in _STATES)
            + f"  {alarms or '-'}"
        )
    changed = [i for i, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    lines.append(f"{len(changed)} of {len(rows)} verdicts differ" + (":" if changed else "."))
    for i in changed[:20]:
        verdict, rung = judged[i].verdict, judged[i].correction
        action = f" Correction: {rung}." if rung else ""
        lines.append(
            f"  batch {batches[i]}: {old[i]} -> {verdict.state} ({verdict.reason}) "
            f"{verdict.message}{action}"
        )
    return "\n".join([*lines, f"  and {len(changed) - 20} more"] if len(changed) > 20 else lines)


def write_replayed(
    path: Path, rows: Sequence[Mapping[str, str]], judged: "Sequence[Decision]"
) -> None:
    """Write the trace with the replayed verdicts, their reasons and corrections; ``recorded`` holds
    the old verdicts.
    """
    columns = [*rows[0], "recorded", "reason", "correction"]
    try:
        lines: list[Sequence[Any]] = [columns]
        for row, decision in zip(rows, judged, strict=True):
            verdict = decision.verdict
            new = {
                "verdict": verdict.state,
                "recorded": row["verdict"],
                "reason": verdict.reason,
                "correction": decision.correction,
                "mode": decision.memory.mode,
            }
            whole = {**row, **new}
            lines.append([whole[column] for column in columns])
        path.write_text(csv_lines(lines), encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({said(error)}): choose another, output=FILE.csv"
        ) from error


def configure(argv: Sequence[str]) -> tuple[Path, TraceReplayConfig]:
    """The trace and the settings of command-line words, which start from the recorded run's.

    Raises:
        InputError: no trace is named, or a setting is changed that no trace can tell about.
    """
    traces = [word for word in argv if _names_trace(word)]
    if len(traces) != 1:
        raise InputError("name one trace: the trace.csv of a run of adapt.py, or its folder")
    path = Path(traces[0]).expanduser()
    path = path / "trace.csv" if path.is_dir() else path
    recorded = _recorded(path.with_name("config.yaml"))
    given = read_arguments([word for word in argv if word not in traces], {})
    if not isinstance(given.get("guard", {}), dict):
        raise InputError(
            "a trace is judged again by the guard that judged it: name its settings, "
            "guard.limits.drift=.3 say"
        )
    base = resolve(TraceReplayConfig, {}, recorded)
    words = [word for word in argv if word not in traces]
    config = resolve(TraceReplayConfig, {}, read_arguments(words, {}, recorded))
    for field in fields(GuardConfig):
        if field.name not in REPLAYED and getattr(config.guard, field.name) != getattr(
            base.guard, field.name
        ):
            raise InputError(
                f"guard.{field.name} changes what is measured or done, which a trace cannot tell: "
                "run adapt.py with it, or "
                f"replay one of {', '.join(REPLAYED)}"
            )
    return path, config


def _names_trace(word: str) -> bool:
    """Whether a word is a path to a trace, though folders of sweeps often have a = in their
    names.
    """
    if "=" in word:
        return Path(word).expanduser().exists()
    return not word.endswith((".yaml", ".yml")) and not word.startswith("-")


def _recorded(path: Path) -> dict[str, Any]:
    """The source and the guard's settings in a run's ``config.yaml``; the defaults where there is
    none.
    """
    if not path.is_file():
        return {}
    content = read_arguments([str(path)], {})
    guard = dict(content.get("guard") or {})
    if guard.pop("kind", "on") != "on":
        raise InputError(
            f"{path.with_name('trace.csv')} was not judged by guard=on, so it cannot be judged "
            "again"
        )
    return {"guard": guard, "source": content.get("source")}


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        path, config = configure(argv)
        rows = read_trace(path)
        if not path.with_name("config.yaml").is_file():
            missing = "; calibration needs source=…" if config.source is None else ""
            warn(
                "no config.yaml lies beside the trace, so settings start from the "
                f"defaults{missing}"
            )
        known: tuple[Any, ...] = ()
        if config.source is not None:
            from holdfast.tta.checkpoint import SourceCheckpoint

            source = SourceCheckpoint.load(config.source)
            known = (source.calibration, source.meaning)
        try:
            judged = replay(rows, config.guard, *known)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{path} is not a trace of adapt.py ({error}): name the trace.csv of a run"
            ) from error
        print(report(rows, judged))
        if config.output is not None:
            write_replayed(Path(config.output).expanduser(), rows, judged)

    return entry.run(
        run, TraceReplayConfig, {}, USAGE, argv, configure=lambda words: configure(words)[1]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
