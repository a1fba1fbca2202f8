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


def test_a_forked_process_decodes_into_arrays_without_the_locks_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_into(data: bytes | None, target: Pixels) -> bool:
        target[:] = 7
        return True

    cache = DecodeCache(lambda rows: dict.fromkeys(rows, b""), lambda row, data: target, 0, decode_into)
    target = np.zeros((1, 1, 3), np.uint8)
    # As another thread of the parent may have it at the fork: nobody in the child gives it back.
    lock = cache._lock
    lock.acquire()
    monkeypatch.setattr("seqdata.frames.cache.os.getpid", lambda: -1)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(cache.read_into, 3, target)
        try:
            assert reading.result(5)
        finally:
            lock.release()
    assert target.max() == 7
