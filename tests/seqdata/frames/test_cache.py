"""The cache of decoded frames among threads: what one thread fails to read, another still gets where it can."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seqdata.errors import InputError
from seqdata.frames.cache import DecodeCache
from seqdata.frames.images import Pixels


def test_a_frame_whose_read_failed_at_another_frame_is_asked_for_again() -> None:
    """One thread's read of frames 8, 9, 10 fails at 10; a thread that waited for 9 reads 9 itself and has it."""
    reading, fails = threading.Event(), threading.Event()

    def fetch(rows: list[int]) -> dict[int, bytes]:
        if 10 in rows:
            reading.set()
            assert fails.wait(10)
            raise InputError("gone")
        return {row: bytes([row]) for row in rows}

    def decode(row: int, data: bytes | None) -> Pixels:
        assert data is not None
        return np.full((1, 1, 3), data[0], dtype=np.uint8)

    cache = DecodeCache(fetch, decode, 0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.frames, [8, 9, 10])
        assert reading.wait(10)
        second = pool.submit(cache.frames, [9])
        time.sleep(0.2)  # the second thread waits by now; were it later, it would find nothing to wait for
        fails.set()
        with pytest.raises(InputError, match="gone"):
            first.result(10)
        found = second.result(10)[9]
    assert found is not None
    assert int(found[0, 0, 0]) == 9
