"""Reading the next batches while the present one is trained."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
_END = object()


def prefetch(items: Iterable[Item], load: Callable[[Item], Loaded], depth: int = 2) -> Iterator[Loaded]:
    """Yield `load(item)` in order; one worker thread takes and loads the next `depth` items meanwhile.

    Errors of `items` and `load` rise at the place where the item would have come.
    """
    iterator = iter(items)

    def take() -> Loaded | object:
        item = next(iterator, _END)
        return _END if item is _END else load(item)  # type: ignore[arg-type]

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        ahead: deque[Future[Loaded | object]] = deque(pool.submit(take) for _ in range(depth))
        while (loaded := ahead.popleft().result()) is not _END:
            ahead.append(pool.submit(take))
            yield loaded  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
