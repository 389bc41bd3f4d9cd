"""Look into a run: whether its lines are those that were written, and what they say fits together.

    python -m holdfast.callbacks.audit runs/adapt/NAME

Every line of ``predictions.csv`` (of masks ``cases.csv``), ``trace.csv`` and ``events.jsonl`` ends
with the short hash of the line before; the first with that of source and stream. A line that was
changed, dropped or put in shows in the next one, and of the last one in ``audit.json``.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.callbacks.chained import ChainedLine, Misfit, lines_of, seal_of
from holdfast.callbacks.replay import configure as recorded
from holdfast.callbacks.replay import replay
from holdfast.tta import entry
from holdfast.tta.config import read_arguments
from holdfast.tta.csvfile import read_rows
from holdfast.tta.errors import InputError
from holdfast.tta.saying import warn

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from holdfast.tta.checkpoint import SourceCheckpoint

USAGE = (
    "usage: holdfast audit RUN_FOLDER\n\n"
    "Say whether the lines of a run are those that were written, whether counts and source fit,\n"
    "and whether its verdicts follow from its trace; or name the first line that does not fit.\n"
    "Exit status 0: all fits; 1: something does not."
)
#: What a run leaves to be looked into by.
AUDIT = "audit.json"
PREDICTIONS, CASES = "predictions.csv", "cases.csv"
TRACE, EVENTS = "trace.csv", "events.jsonl"
#: What predictions and trace both say of a batch.
_SHARED = ("verdict", "mode")
#: Exit status where something does not fit.
_MISFIT = 1


@dataclass
class AuditConfig:
    """The audit has no options."""


def _is_whole(facts: Mapping[str, Any]) -> bool:
    """Whether ``AUDIT`` says what it must."""
    ends = facts.get("files")
    names = {"source", "weights"} <= facts.keys()
    return (
        names
        and isinstance(ends, dict)
        and all(isinstance(end, dict) and {"lines", "link"} <= end.keys() for end in ends.values())
    )


class Audit:
    """One look into the folder of a run, finished or not.

    Args:
        folder: of the run.

    Raises:
        InputError: there is no run in it that can be looked into.

    Example:
        ``Audit(Path("runs/adapt/pilot")).check()``
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished = (folder / AUDIT).is_file()
        self.facts: Mapping[str, Any] = self._facts()
        #: Where a row an image, or case, stands.
        self.table = CASES if (folder / CASES).is_file() else PREDICTIONS
        self._ends: dict[str, tuple[int, str]] = {}

    def check(self) -> str:
        """Hold everything against everything.

        Returns:
            What was found, a sentence.

        Raises:
            Misfit: at the first thing that does not fit.
        """
        trace = list(self._lines(TRACE))
        predictions = self._check_predictions(trace)
        events = sum(1 for _ in self._lines(EVENTS))
        if self.finished:
            self._check_order()
            self._check_ends()
        self._check_source(trace)
        more = "" if self.finished else "; the run is not finished"
        return (
            f"{self.folder}: {predictions} predictions, {len(trace)} batches and {events} events "
            f"fit together{more}"
        )

    def _facts(self) -> Mapping[str, Any]:
        if self.finished:
            found = entry.read_json(self.folder / AUDIT)
            if not _is_whole(found):
                raise Misfit(f"{AUDIT} is not what a run leaves")
            return found
        from holdfast.tta.streamfile import NAME, load_stream

        stopped = load_stream(self.folder / NAME)
        if stopped is None:
            raise InputError(
                f"{self.folder} holds neither {AUDIT} nor {NAME}: name the folder of a run of "
                "adapt.py of this version"
            )
        return stopped

    def _lines(self, name: str) -> Iterator[ChainedLine]:
        """The lines of a file, whose end is kept."""
        path = self.folder / name
        if not path.is_file():
            raise Misfit(f"{name} is not there")
        count, link = 0, ""
        for line in lines_of(path, seal_of(self.facts)):
            count, link = count + 1, line.link
            yield line
        self._ends[name] = count, link

    def _check_predictions(self, trace: Sequence[ChainedLine]) -> int:
        """Hold each prediction against its batch; returns how many there are."""
        batches, count = {line.cells["batch"]: line for line in trace}, 0
        known = _in_batches(self._lines(self.table))
        for number, (batch, lines) in enumerate(known):
            first = lines[0].number
            row = batches.get(batch)
            if row is None and not self.finished and number >= len(batches):
                break  # killed before the batch was in the trace
            if row is None:
                raise Misfit(f"{TRACE} has no row of batch {batch}, which {self.table} has")
            if batch != str(number):
                raise Misfit(f"{self.table}, line {first}, is of batch {batch}, not {number}")
            self._check_batch(lines, row)
            count += len(lines)
        return count

    def _check_batch(self, lines: Sequence[ChainedLine], row: ChainedLine) -> None:
        """All predictions of a batch say the same of it, and what its row of the trace says."""
        due = {name: row.cells[name] for name in _SHARED}
        due["weights"] = lines[0].cells["weights"]
        for line in lines:
            for name, value in due.items():
                if line.cells[name] != value:
                    raise Misfit(
                        f"{self.table}, line {line.number}, has {name} {line.cells[name]!r}, and "
                        f"its batch {value!r}"
                    )

    def _check_masks(self, lines: Sequence[ChainedLine]) -> None:
        """Each mask is the one that was written, of a case that came twice the later one."""
        from holdfast.callbacks.cases import MASKS
        from holdfast.callbacks.maskfiles import hash_of

        latest = {line.cells["mask"]: line for line in lines if line.cells.get("mask")}
        for name, line in latest.items():
            file = self.folder / MASKS / Path(name).name
            if not file.is_file() or hash_of(file) != line.cells["mask_hash"]:
                raise Misfit(f"{self.table}, line {line.number}, is not of the mask in {file}")

    def _check_order(self) -> None:
        """Each image of the stream has its prediction, in its order, or a reason."""
        lines = list(self._lines(self.table))
        served = [line for line in lines if line.cells["batch"]]
        unread = {line.cells["id"] for line in lines if not line.cells["batch"]}
        order = (row["id"] for row in read_rows(self.folder / "stream.csv"))
        for line in served:
            name = line.cells["id"]
            if next((due for due in order if due == name or due not in unread), None) != name:
                raise Misfit(f"{self.table}, line {line.number}, is not the image that was due")
        left = next((due for due in order if due not in unread), None)
        if left is not None:
            raise Misfit(f"{self.table} ends without {left}, which is in stream.csv")
        self._check_masks(served)

    def _check_ends(self) -> None:
        """Hold last lines and counts against what the run said of them when it was done."""
        for name, end in self.facts["files"].items():
            count, link = self._ends.get(name, (0, ""))
            if count != end["lines"]:
                raise Misfit(f"{name} has {count} lines, and had {end['lines']} at the end")
            if count and link != end["link"]:
                raise Misfit(f"the last line of {name} is not the one that was written")
        batches = entry.read_json(self.folder / "metrics.json").get("batches")
        if batches != self._ends[TRACE][0]:
            raise Misfit(f"metrics.json tells of {batches} batches, which {TRACE} has not got")

    def _check_source(self, trace: Sequence[ChainedLine]) -> None:
        """The source is the one that was adapted, its calibration leads to the verdicts, and
        ``adapted.ckpt`` holds the last weights.
        """
        from holdfast.tta.checkpoint import SourceCheckpoint, read_adapted
        from holdfast.tta.fingerprint import fingerprint, values_now

        given = read_arguments([str(self.folder / "config.yaml")], {})
        try:
            source = SourceCheckpoint.load(given["source"], given.get("model"))
        except InputError as error:
            warn(f"neither source nor verdicts were looked at: {error}")
            return
        if source.hash != self.facts["source"]:
            raise Misfit(f"the source {given['source']} is not the one that was adapted")
        adapts = given.get("serve", {}).get("adapt", True)  # a frozen service has no guard
        if given["guard"]["kind"] == "on" and adapts and trace:
            self._check_verdicts(trace, source)
        if self.finished:
            adapted = read_adapted(self.folder / "adapted.ckpt", source)
            if fingerprint(values_now(adapted.state.values())) != self.facts["weights"]:
                raise Misfit("adapted.ckpt does not hold the weights that the run ended with")

    def _check_verdicts(self, trace: Sequence[ChainedLine], source: "SourceCheckpoint") -> None:
        """Judge the trace again: verdicts and modes are what its numbers lead to."""
        _, config = recorded([str(self.folder)])
        rows = [line.cells for line in trace]
        judged = replay(rows, config.guard, source.calibration, source.meaning)
        for line, decision in zip(trace, judged, strict=True):
            said = tuple(line.cells[name] for name in _SHARED)
            due = (decision.verdict.state, decision.memory.mode)
            if said != due:
                raise Misfit(
                    f"{TRACE}, line {line.number}, says {' and '.join(said)}, where its numbers "
                    f"lead to {' and '.join(due)}"
                )


def _in_batches(lines: Iterator[ChainedLine]) -> Iterator[tuple[str, list[ChainedLine]]]:
    """Predictions by batch, without the images that could not be read."""
    for batch, own in groupby(lines, lambda line: str(line.cells["batch"])):
        found = list(own)
        if batch:
            yield batch, found


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    status = 0

    def run() -> None:
        nonlocal status
        if len(argv) != 1 or argv[0].startswith("-"):
            raise InputError("name one folder of a run of adapt.py, and nothing else")
        try:
            print(Audit(Path(argv[0]).expanduser()).check())
        except Misfit as misfit:
            print(f"{argv[0]} does not fit: {misfit}", file=sys.stderr)
            status = _MISFIT

    return entry.run(run, AuditConfig, {}, USAGE, argv) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
