"""Reading the next batch while the present one is trained."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
_END = object()


def prefetch(items: Iterable[Item], load: Callable[[Item], Loaded]) -> Iterator[Loaded]:
    """Yield `load(item)` in order; one worker thread takes and loads the next item meanwhile.

    Errors of `items` and `load` rise at the place where the item would have come.
    """
    iterator = iter(items)

    def take() -> Loaded | object:
        item = next(iterator, _END)
        return _END if item is _END else load(item)  # type: ignore[arg-type]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        ahead = pool.submit(take)
        while (loaded := ahead.result()) is not _END:
            ahead = pool.submit(take)
            yield loaded  # type: ignore[misc]
