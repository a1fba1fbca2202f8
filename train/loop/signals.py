"""Ending a run on Ctrl-C or SIGTERM without losing what it has done."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from seqdata.errors import Termination


class Stopped(Exception):  # noqa: N818 - not an error: it carries the request up to the loop
    """A signal to stop came, and the run is between two steps, where it can be saved."""


class Stop:
    """A context in which the first Ctrl-C or SIGTERM only raises a flag; the second one ends at once.

    Off the main thread, where Python has no signal handlers, the flag stays down.
    """

    def __init__(self) -> None:
        self.requested = False
        self.is_termination = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {name: signal.signal(name, self._receive) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for name, handler in self._handlers.items():
            signal.signal(name, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Termination if number == signal.SIGTERM else KeyboardInterrupt
        self.requested, self.is_termination = True, number == signal.SIGTERM

    def check(self) -> None:
        """Raise `Stopped` when the flag is up."""
        if self.requested:
            raise Stopped
