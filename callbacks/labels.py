"""Labels that come while a stream runs, or days later: what they say of the candidates against what
is served.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.datamodules.labelfile import LabelFile, Labelled, known_as
from holdfast.tta.betting import PairedTest
from holdfast.tta.distributed import objects_of_all, place
from holdfast.tta.errors import InputError

#: Whose prediction left.
SERVED = "served"
#: Images that wait for their labels; of more the oldest are forgotten. 50,000 take some 15 MB.
MEMORY = 50_000
#: Candidates beside what is served, which share the level: the source's statistics, the batch's or
#: the method's own, the corrected ones, and the adapted model.
_CANDIDATES = 4
#: What a book remembers beside its tests and the file.
_REMEMBERED = ("_names", "_said", "_counted", "_told", "_images", "_since", "_serving", "_matched")
#: The class of a candidate that said nothing.
_SILENT = -1


class Arrived(NamedTuple):
    """What a look at the file came to.

    Attributes:
        labels: that were counted.
        ids: of the images whose labels came in, counted or not.
        warnings: a sentence for each mistake in the file that was not told before.
        heard: of each image whose label came in, its class and what each candidate called it.
    """

    labels: int
    warnings: tuple[str, ...]
    ids: tuple[str, ...] = ()
    heard: tuple[tuple[int, Mapping[str, int]], ...] = ()


class LabelVerdict(NamedTuple):
    """What the labels say.

    Attributes:
        better: the candidate that is shown to be better than what is served; of several the one
            with the strongest evidence, and None without.
        worse: candidates that are shown to be worse than what is served.
        labels: counted since what is served last changed.
        level: most chance of ever naming a better one while none is, and likewise a worse one.
    """

    better: str | None
    worse: tuple[str, ...]
    labels: int
    level: float


class LabelBook:
    """Holds what was served, and what each candidate said, against labels that come in a file.

    Each candidate has a paired test, balanced by class, which may be looked at after every label
    (``tta.betting``). A label counts once, for each candidate that spoke of its image: where an id
    is in the file twice before it counted, the last label does. Labels of images that are not known
    yet, or no longer, wait. Images count as independent of each other, so of a patient with many
    images label a few.

    Args:
        path: CSV with the columns id and label, which may grow.
        class_names: names of the classes.
        level: of what is said, see ``LabelVerdict``; shared evenly by four candidates.
        called: the class that a site's own word stands for (``data.classes``).

    Raises:
        InputError: the file cannot be read, or names a label that is no class.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("id,label\\n")
        >>> book = LabelBook(path, ["benign", "malignant"], 0.05)
        >>> logits = torch.eye(2)
        >>> book.remember(["scan 1", "scan 2"], {"served": logits, "source": logits})
        >>> _ = path.write_text("id,label\\nscan 2,malignant\\n")
        >>> book.read().labels, book.verdict().better
        (1, None)
    """

    def __init__(
        self,
        path: str | Path,
        class_names: Sequence[str],
        level: float,
        called: Mapping[str, str | None] | None = None,
    ) -> None:
        self.class_names, self.level = tuple(class_names), level
        self._open = partial(LabelFile, path, class_names, called=called)
        self._open().checked()
        self._file = self._open()
        self._labels: dict[str, int] = {}
        #: What was said of each image that has not counted: its number, and a class for each name.
        self._said: dict[str, tuple[int, ...]] = {}
        self._names = [SERVED]
        self._due: list[str] = []
        self._counted: set[str] = set()
        self._told: set[str] = set()
        self._tests: dict[str, PairedTest] = {}
        self._images = self._since = self._matched = 0
        self._serving: str | None = None

    def strange(self, ids: Iterable[str]) -> int:
        """How many images the file names so far, where none of them is one of these; else 0."""
        given = self._open().checked()
        return 0 if any(known_as(name) in given for name in ids) else len(given)

    def remember(self, ids: Sequence[str], predictions: Mapping[str, Tensor]) -> None:
        """Keep what was said of a batch, of all processes together.

        Args:
            ids: (N,) of the images; what is said of one again replaces what was said before.
            predictions: (N, C) logits or probabilities, of ``served`` and of candidates by name; a
                row with NaN says nothing.
        """
        self._names += [name for name in predictions if name not in self._names]
        silent = [_SILENT] * len(ids)
        said = {name: _classes(values) for name, values in predictions.items()}
        rows = zip(
            map(known_as, ids), *(said.get(name, silent) for name in self._names), strict=True
        )
        for number, (name, *row) in enumerate(rows, self._images):
            if name not in self._counted:
                self._said.pop(name, None)
                self._said[name] = (number, *row)
                self._due += [name] if name in self._labels else []
        self._images += len(ids)
        while len(self._said) > MEMORY:
            del self._said[next(iter(self._said))]

    def read(self) -> Arrived:
        """Count the labels that came in since, in the order in which their images left: a run that
        was stopped reads the whole file again, in the file's own order. All processes do so at
        once.

        Without news it costs a look at the file's size and time.
        """
        news: Labelled | None = objects_of_all(self._news())[0]  # all go by the first process
        if news is not None:
            self._labels, self._due = news.labels, list(news.labels)
        waiting = {name for name in self._due if name in self._said}
        due = sorted(waiting, key=lambda name: self._said[name][0])
        heard = tuple((self._labels[name], self._said_of(name)) for name in due)
        counted = sum(self._count(name) for name in due)
        self._due = []
        warnings = () if news is None else news.refused
        new = tuple(sentence for sentence in warnings if sentence not in self._told)
        self._told.update(new)
        self._matched += counted
        return Arrived(counted, new, tuple(due), heard)

    @property
    def known(self) -> int:
        """How many images' labels have come in."""
        return len(self._counted)

    def class_of(self, name: str) -> str:
        """The class that an image's label names."""
        return self.class_names[self._labels[name]]

    def verdict(self) -> LabelVerdict:
        """What all labels since the last change of what is served say."""
        least = math.log(_CANDIDATES / self.level)
        ahead = {name: test.better.log_wealth for name, test in self._tests.items()}
        shown = {name: wealth for name, wealth in ahead.items() if wealth >= least}
        worse = [name for name, test in self._tests.items() if test.worse.log_wealth >= least]
        better = max(shown, key=shown.__getitem__) if shown else None
        return LabelVerdict(better, tuple(worse), self._matched, self.level)

    def restart(self, serving: str | None = None) -> None:
        """Begin anew, since what is served changed.

        Labels that were counted are not counted again: they led to the change, maybe. Those that
        come later count, also of images that left before the change: for these, the candidate that
        serves now stands for what is served.

        Args:
            serving: the candidate that serves from now on; None: none of them alone, and images
                from before the change count no more.
        """
        self._tests, self._matched = {}, 0
        self._since, self._serving = self._images, serving

    def marked(self) -> Callable[[], None]:
        """The way back to where the book stands now, in memory; the file is then read again."""
        kept = {name: copy.copy(getattr(self, name)) for name in _REMEMBERED}
        tests = {name: test.state_dict() for name, test in self._tests.items()}

        def go_back() -> None:
            for name, value in kept.items():
                setattr(self, name, value)
            self._begin_anew(tests)

        return go_back

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, but for the file, which is read again."""
        rows = [self._padded(row) for row in self._said.values()]
        return {
            "names": list(self._names),
            "ids": list(self._said),
            "numbers": torch.tensor([row[0] for row in rows], dtype=torch.int64),
            "said": torch.tensor([row[1:] for row in rows], dtype=torch.int32),
            "counted": sorted(self._counted),
            "told": sorted(self._told),
            "tests": {name: test.state_dict() for name, test in self._tests.items()},
            "images": self._images,
            "since": self._since,
            "serving": self._serving,
            "matched": self._matched,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._names = list(state_dict["names"])
        numbers, said = state_dict["numbers"].tolist(), state_dict["said"].tolist()
        rows = zip(state_dict["ids"], numbers, said, strict=True)
        self._said = {name: (number, *row) for name, number, row in rows}
        self._counted, self._told = set(state_dict["counted"]), set(state_dict["told"])
        self._images, self._since = state_dict["images"], state_dict["since"]
        self._serving, self._matched = state_dict["serving"], state_dict["matched"]
        self._begin_anew(state_dict["tests"])

    def _begin_anew(self, tests: Mapping[str, Any]) -> None:
        """Take up tests, and read the file from its start."""
        self._tests = {}
        for name, state in tests.items():
            self._tests[name] = PairedTest(len(self.class_names))
            self._tests[name].load_state_dict(state)
        self._file = self._open()
        self._labels, self._due = {}, []

    def _news(self) -> Labelled | None:
        """The file's labels where it changed; None in other processes than the first."""
        if place()[0] or not self._file.changed():
            return None
        try:
            return self._file.read()
        except InputError as error:  # it was whole at the start: what came before still counts
            return Labelled(self._labels, (str(error),))

    def _padded(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """What was said of an image, also for names that came in later."""
        return row + (_SILENT,) * (1 + len(self._names) - len(row))

    def _said_of(self, name: str) -> dict[str, int]:
        """What each that spoke of an image called it, also ``served``."""
        row = self._padded(self._said[name])[1:]
        pairs = zip(self._names, row, strict=True)
        return {who: what for who, what in pairs if what != _SILENT}

    def _count(self, name: str) -> bool:
        """Let an image's label speak; whether it said anything of what is served."""
        spoke, number = self._said_of(name), self._said.pop(name)[0]
        self._counted.add(name)
        served, label = spoke.pop(SERVED, _SILENT), self._labels[name]
        if number < self._since:
            served = spoke.get(self._serving, _SILENT) if self._serving else _SILENT
        if served == _SILENT or not spoke:
            return False
        for who, what in spoke.items():
            test = self._tests.setdefault(who, PairedTest(len(self.class_names)))
            test.add(label, float(what == label) - float(served == label))
        return True


def _classes(logits: Tensor) -> list[int]:
    """The class of each row; ``_SILENT`` where it holds NaN."""
    labels = logits.detach().argmax(1)
    said: list[int] = torch.where(logits.isnan().any(1), _SILENT, labels).tolist()
    return said
