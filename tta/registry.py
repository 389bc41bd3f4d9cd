"""Things by name that others can add to: methods, shifts, streams, networks."""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast, overload

from holdfast.tta.errors import InputError, said
from holdfast.tta.expected import closest
from holdfast.tta.saying import warn

T = TypeVar("T")
E = TypeVar("E")
Out = TypeVar("Out")


class Registry(Mapping[str, T], Generic[T]):
    """Our own entries, those that a program registers, and those of installed distributions.

    A distribution adds to a registry by an entry point of its group. Nothing of it is imported
    before it is asked for by name, or all names are: who uses only what we bring never meets it. A
    plug-in that is broken is named in one warning when all names are asked for, and its name says
    why when it is asked for.

    Args:
        what: an entry is, in a word.
        group: of entry points.
        own: the entries that we bring.
        check: refuses an entry that is none, by an ``InputError``; it gets the name as well.

    Example:
        >>> shapes = Registry("shape", "holdfast.shapes", {"square": 4})
        >>> shapes.register("triangle", 3)
        3
        >>> list(shapes)
        ['square', 'triangle']
    """

    def __init__(
        self,
        what: str,
        group: str,
        own: Mapping[str, T],
        check: Callable[[str, Any], None] = lambda name, entry: None,
    ) -> None:
        self.what, self.group, self._check = what, group, check
        self._entries: dict[str, T] = dict(own)
        #: Entry points that nobody has asked for yet, by name; None: they were not looked for.
        self._waiting: dict[str, EntryPoint] | None = None
        #: Why an entry point cannot be used, by name.
        self._broken: dict[str, str] = {}
        #: What is to be said of plug-ins that are left out, once all names are asked for.
        self._left_out: list[str] = []

    @overload
    def register(self, name: str) -> Callable[[E], E]: ...

    @overload
    def register(self, name: str, entry: E) -> E: ...

    def register(self, name: str, entry: E | None = None) -> E | Callable[[E], E]:
        """Add an entry; from then on programs and Python know it by its name.

        Args:
            name: by which it is asked for, as in ``method=NAME``.
            entry: what goes by it; None: the class that this decorates.

        Raises:
            InputError: it is none, or the name is taken. The same definition may come again, as it
                does when a notebook's cell is run twice.

        Example:
            >>> from holdfast.tta.methods import METHODS, register_method
            >>> from holdfast.tta.methods.tent import Tent
            >>> @register_method("calm_tent")
            ... class CalmTent(Tent):
            ...     def objective(self, images, prediction):
            ...         return 0.1 * super().objective(images, prediction)
            >>> "calm_tent" in METHODS
            True
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise InputError(
                f"a {self.what} cannot be called {name!r}: choose letters, digits and underscores"
            )
        if name in self and not self._same(name, entry):
            raise InputError(
                f"there is a {self.what} {name!r} already: register yours under another name"
            )
        self._check(name, entry)
        self._entries[name] = cast(T, entry)
        self._points().pop(name, None)
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries and name in self._points():
            self._load(name)
        if name in self._entries:
            return self._entries[name]
        if name in self._broken:
            raise InputError(f"{self.what}={name} cannot be used: {self._broken[name]}")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is such an entry, be its plug-in broken: to ask for it says why."""
        return name in self._entries or name in self._points() or name in self._broken

    def __iter__(self) -> Iterator[str]:
        for name in list(self._points()):
            self._load(name)
        while self._left_out:
            warn(self._left_out.pop(0))
        return iter(list(self._entries))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def refuse_unknown(self, name: str) -> None:
        """Refuse a name that is not there.

        Raises:
            InputError: it is not; the sentence has the likeliest ones.
        """
        if name not in self:
            raise InputError(f"unknown {self.what} {name!r}: {closest(name, self)}")

    def view(self, convert: Callable[[T], Out], **fixed: Out) -> Mapping[str, Out]:
        """What ``convert`` makes of each entry, now and of those that come later, behind some fixed
        ones.
        """
        return _Converted(self, convert, fixed)

    def _same(self, name: str, entry: object) -> bool:
        """Whether the entry equals that of this name, or is defined where that was, or is to be."""
        place = _place(entry)
        if name in self._points():
            return place == self._points()[name].value
        there = self._entries.get(name)
        return there is not None and (there == entry or place == _place(there) is not None)

    def _points(self) -> dict[str, EntryPoint]:
        if self._waiting is None:
            self._waiting = {}
            for point in entry_points(group=self.group):
                self._note(self._waiting, point)
        return self._waiting

    def _note(self, waiting: dict[str, EntryPoint], point: EntryPoint) -> None:
        """Put an entry point among those that wait; a name that is taken stays with who has it."""
        name = point.name
        if name in self._entries:
            self._left_out.append(
                f"{self.what}={name} of {_owner(point)} is left out: the name is taken, and its "
                "author should choose another"
            )
        elif name in waiting and waiting[name].value != point.value:
            both = " and ".join(sorted({_owner(waiting.pop(name)), _owner(point)}))
            self._breaks(name, f"{both} both have one of that name; uninstall one of them")
        elif name not in self._broken:
            waiting[name] = point

    def _load(self, name: str) -> None:
        """Import what an entry point names; where that fails, note why."""
        point = self._points().pop(name, None)
        if point is None:  # the import of another plug-in has registered it
            return
        try:
            entry = point.load()
            self._check(name, entry)
        except (Exception, SystemExit) as error:  # of whatever kind: it is somebody else's code
            told = (
                said(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            )
            told = " ".join(told.split()).rstrip(".")
            self._breaks(name, f"{_owner(point)} is broken ({told}); update or uninstall it")
        else:
            self._entries[name] = entry

    def _breaks(self, name: str, why: str) -> None:
        self._broken[name] = why
        self._left_out.append(f"{self.what}={name} is left out: {why}")


def instances_of(kind: type[T]) -> Callable[[str, object], None]:
    """A check that lets in what is of a class."""

    def check(name: str, entry: object) -> None:
        if not isinstance(entry, kind):
            raise InputError(f"{entry!r} is no {kind.__module__}.{kind.__qualname__}: make it one")

    return check


def subclasses_of(kind: type[T]) -> Callable[[str, object], None]:
    """A check that lets in the subclasses of a class."""

    def check(name: str, entry: object) -> None:
        if not (isinstance(entry, type) and issubclass(entry, kind)):
            raise InputError(
                f"{entry!r} is no subclass of {kind.__module__}.{kind.__qualname__}: make it one"
            )

    return check


class _Converted(Mapping[str, Out]):
    """A registry's entries, converted; see ``Registry.view``."""

    def __init__(
        self, registry: Registry[Any], convert: Callable[[Any], Out], fixed: Mapping[str, Out]
    ) -> None:
        self._registry, self._convert, self._fixed = registry, convert, fixed

    def __getitem__(self, name: str) -> Out:
        return self._fixed[name] if name in self._fixed else self._convert(self._registry[name])

    def __contains__(self, name: object) -> bool:
        return name in self._fixed or name in self._registry

    def __iter__(self) -> Iterator[str]:
        return iter([*self._fixed, *self._registry])

    def __len__(self) -> int:
        return len(self._fixed) + len(self._registry)


def _owner(point: EntryPoint) -> str:
    """The distribution that an entry point belongs to, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _place(entry: object) -> str | None:
    """Where a class or function is defined, as entry points write it; None of anything else."""
    module, name = getattr(entry, "__module__", None), getattr(entry, "__qualname__", None)
    return f"{module}:{name}" if module and name else None
