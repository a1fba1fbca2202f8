"""Reading ahead: the next items are loaded while the present one is used, and the frames of one by several threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from seqdata.frames.cache import DecodeCache
from seqdata.frames.images import Pixels

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
_END = object()


def decode_threads() -> int:
    """Decoding threads by default: the cores of this process, shared with torchrun's others on the machine, at least 2.

    JPEG decoders let other threads run, and a card takes frames faster than one core decodes them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def prefetch(items: Iterable[Item], load: Callable[[Item], Loaded], depth: int = 2) -> Iterator[Loaded]:
    """Load items ahead, in order, in one thread.

    One thread, since taking items in order is part of their meaning; what loads an item may use more (`read_frames`).
    Errors of `items` and `load` rise at the place where the item would have come.

    Args:
        items: What is loaded.
        load: Loads one item.
        depth: Items that are taken and loaded while one is in use.

    Yields:
        `load(item)` of each item.

    Example:
        >>> list(prefetch([1, 2, 3], lambda number: number * number))
        [1, 4, 9]
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


def read_frames(cache: DecodeCache, rows: list[int], threads: int = 0) -> dict[int, Pixels | None]:
    """Read frames through a cache, decoded by several threads.

    Args:
        cache: The cache.
        rows: Distinct frame rows.
        threads: Number of threads; 0 for `decode_threads()`.

    Returns:
        Pixels (H, W, 3) by row, None where a frame is bad.

    Raises:
        Exception: As `DecodeCache.frames`.
    """
    count = min(threads or decode_threads(), max(1, len(rows)))
    parts = [part.tolist() for part in np.array_split(np.asarray(rows, np.int64), count)]
    if len(parts) == 1:
        return cache.frames(parts[0])
    # Threads of one call, not of the process: starting one costs some 50 µs, a frame of 640×480 takes 1.6 ms to decode,
    # and no pool is left behind for a fork to inherit. Parts are contiguous, so each is one ranged read.
    with ThreadPoolExecutor(len(parts), thread_name_prefix="decode") as pool:
        return {row: frame for part in pool.map(cache.frames, parts) for row, frame in part.items()}
