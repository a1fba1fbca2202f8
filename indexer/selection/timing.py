"""How long each phase of a build took."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Phases(dict[str, float]):
    """Seconds by phase; entered again, a phase counts on, and time in a phase within another is the inner one's."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        """Go on from the phases that were `before`."""
        super().__init__(before or {})
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time of the block as this phase's."""
        self._count()
        self._open.append(phase)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def waiting(self, phase: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that each took to come is this phase's."""
        source = iter(items)
        while True:
            with self.timed(phase):
                item = next(source, None)
            if item is None:
                return
            yield item

    def _count(self) -> None:
        now = time.monotonic()
        if self._open:
            self[self._open[-1]] = self.get(self._open[-1], 0.0) + now - self._since
        self._since = now
