"""A tracker that dies, and a run that goes on without it."""

from typing import Any

from holdfast.tta.errors import said
from holdfast.tta.saying import warn

#: What a connection raises whose other end is gone; a full disk is such an error too.
_GONE = (OSError, EOFError)


class Surviving:
    """A tracker's object whose calls never end the run: where the tracker is gone, one warning says
    so, and further calls come to nothing.

    Args:
        inner: the object, or a part of it.
        whole: the one that it is a part of.
    """

    def __init__(self, inner: Any, whole: "Surviving | None" = None) -> None:
        self._inner, self._whole, self._lost = inner, whole or self, False

    @property
    def lost(self) -> bool:
        """Whether the tracker is gone."""
        return self._whole._lost

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if callable(value) and not isinstance(value, type):
            return lambda *words, **more: self._call(value, *words, **more)
        if hasattr(value, "update"):  # a summary or configuration, which writes as well
            return Surviving(value, self._whole)
        return value

    def _call(self, call: Any, *words: Any, **more: Any) -> Any:
        if self._whole._lost:
            return None
        try:
            return call(*words, **more)
        except _GONE as error:
            self._whole._lost = True
            warn(f"W&B takes no more ({said(error)}): the run goes on without it")
            return None
