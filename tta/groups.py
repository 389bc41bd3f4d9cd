"""Groups of options whose choices are imported once one is asked for: torch takes seconds, and
``--help`` and a misspelt word need none of it.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points


class Group(Mapping[str, type]):
    """The choices of a group, with the dataclass of each one's options.

    Args:
        module: where they are.
        name: of the mapping there.
        points: group of entry points by which other distributions add to it; None: they cannot.
    """

    def __init__(self, module: str, name: str, points: str | None = None) -> None:
        self._module, self._name, self._points = module, name, points

    def __getitem__(self, name: str) -> type:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __contains__(self, name: object) -> bool:
        return name in self._choices

    def added(self) -> list[str]:
        """Names that ``configs/`` may not have: of everything, where somebody may have added to it,
        and else none, for each of ours has its file.
        """
        may = self._points is not None and bool(entry_points(group=self._points))
        return list(self) if may or self.imported else []

    @property
    def imported(self) -> bool:
        """Whether the choices are there already, and whoever may have added to them."""
        return self._module in sys.modules

    @property
    def _choices(self) -> Mapping[str, type]:
        choices: Mapping[str, type] = getattr(import_module(self._module), self._name)
        return choices


DATA = Group("holdfast.datamodules", "DATA")
METHODS = Group("holdfast.tta.methods", "HYPERPARAMETERS", "holdfast.methods")
NETWORKS = Group("holdfast.tta.networks", "MODELS", "holdfast.networks")
STREAMS = Group("holdfast.datamodules.streams", "STREAMS", "holdfast.streams")
SHIFTS = Group("holdfast.datamodules.shifts", "SHIFTS", "holdfast.shifts")
GUARDS = Group("holdfast.callbacks.registry", "GUARDS")
PREFLIGHTS = Group("holdfast.callbacks.preflight", "PREFLIGHTS")
CALIBRATIONS = Group("holdfast.callbacks.calibration", "CALIBRATIONS")
