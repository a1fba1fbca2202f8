"""Long steps say that they began and how far they are, to whoever listens: a program that shows progress, or nobody.

A step may lie deep below the function that a program calls, as the listing of a dump does below a build; it is
announced here rather than handed down through every function between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int, str], None]
"""A callback: name of the step, items finished (`ENDED` at its end), items in all (0: unknown), what an item is."""
ENDED = -1


class _Announcer:
    """The process's listener."""

    listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a callback hear of every step that this process takes meanwhile.

    >>> with listening(print), step("read", 2, "row") as advance:
    ...     advance(1)
    read 0 2 row
    read 1 2 row
    read -1 2 row
    """
    before = _Announcer.listener
    _Announcer.listener = listener
    try:
        yield
    finally:
        _Announcer.listener = before


@contextmanager
def step(name: str, total: int = 0, unit: str = "item") -> Iterator[Callable[[int], None]]:
    """Announce a step that may take seconds; also a decorator of a function that is one.

    Args:
        name: What is done, as people read it: "list the dump".
        total: Items in all; 0 where that is not known before.
        unit: What an item is, in the singular.

    Yields:
        A callback that takes the number of items that are finished.
    """

    def advance(count: int) -> None:
        if _Announcer.listener is not None:
            _Announcer.listener(name, count, total, unit)

    advance(0)
    try:
        yield advance
    finally:
        advance(ENDED)
