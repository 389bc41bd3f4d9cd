"""SIGTERM and Ctrl-C while a stream runs: what is begun is finished first."""

import signal
import threading
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from holdfast.tta.distributed import place
from holdfast.tta.saying import say


class Interrupts:
    """Both signals, which wait for the end of the batch; between two of them they do not.

    Attributes:
        busy: whether a batch is being served.
        asked: the signal that came; None: none did.
    """

    def __init__(self) -> None:
        self.busy = False
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """Take the two signals over; other threads than the main one cannot."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)

    def release(self) -> None:
        """Give them back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def answer(self) -> None:
        """End the run as the signal asks for.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
            SIGTERMException: it was SIGTERM, or another process was told to stop.
        """
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SIGTERMException

    def _hear(self, number: int, frame: Any) -> None:
        again, self.asked = self.asked == signal.SIGINT == number, number
        if again or not (self.busy or place()[1] > 1):
            self.answer()
        if number == signal.SIGINT:
            say("stopping behind this batch; Ctrl-C again stops at once")
