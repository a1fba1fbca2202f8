"""Decoded frames of one process, shared by its threads: each frame in use is read and decoded once.

The frames used least recently are dropped when the budget is full. A frame that one thread is decoding is waited for by
the others, never decoded twice. Bad frames are remembered with what is wrong.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from seqdata.frames.images import BadImageError, Pixels

Fetch = Callable[[list[int]], Mapping[int, bytes | None]]
Decode = Callable[[int, bytes | None], Pixels]
DecodeInto = Callable[[bytes | None, Pixels], bool]


@dataclass(frozen=True)
class _Claim:
    """The rows of one request: ready ones, those to decode here, those that another thread is decoding."""

    ready: dict[int, Pixels | None] = field(default_factory=dict)
    to_decode: list[int] = field(default_factory=list)
    pending: dict[int, "Future[Pixels | None]"] = field(default_factory=dict)


class DecodeCache:
    """Frame rows to pixels (H, W, 3) within a budget of memory; safe to use from several threads.

    In a forked process, or one that it was sent to, the cache starts empty.

    Args:
        fetch: Reads the stored bytes of distinct rows, None for damaged ones.
        decode: Decodes the bytes of one row, or raises BadImageError.
        budget: Greatest number of bytes of pixels that stay here.
        decode_into: Decodes bytes into an array (H, W, 3) and returns whether it could.

    Attributes:
        decodes: Number of frames that were decoded.
        bad: What is wrong with each bad row.
    """

    def __init__(self, fetch: Fetch, decode: Decode, budget: int, decode_into: DecodeInto | None = None) -> None:
        self._fetch, self._decode, self._decode_into = fetch, decode, decode_into
        self.budget = budget
        self._start()

    def _start(self) -> None:
        # A lock that another thread had taken while the process was forked would stay locked in the child for ever.
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, Pixels] = OrderedDict()
        self._pending: dict[int, Future[Pixels | None]] = {}
        self._bytes = 0
        self.decodes = 0
        self._is_storing = True
        self.bad: dict[int, str] = {}

    def __getstate__(self) -> dict[str, object]:
        """Send to another process how to read, and the budget."""
        return {name: self.__dict__[name] for name in ("_fetch", "_decode", "_decode_into", "budget")}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Start empty."""
        self.__dict__.update(state)
        self._start()

    def _notice_fork(self) -> None:
        """Start empty in a forked process: the parent's lock and pending frames mean nothing there."""
        if self._process != os.getpid():
            self._start()

    def frames(self, rows: Iterable[int]) -> dict[int, Pixels | None]:
        """Read the pixels of each distinct row, None where the frame is bad.

        Errors are those of `fetch`.
        """
        self._notice_fork()
        claim = self._claim(rows)
        frames = claim.ready
        try:
            self._decode_claimed(claim.to_decode, frames)
        except BaseException as error:
            self._give_up([row for row in claim.to_decode if row not in frames], error)
            raise
        for row, future in claim.pending.items():
            # A thread that failed may have failed at another frame of the same read: this row is then read here.
            frames[row] = future.result() if future.exception() is None else self.frames([row])[row]
        return frames

    def read_into(self, row: int, target: Pixels) -> bool:
        """Decode a frame straight into an array (H, W, 3), without storing it here.

        Returns:
            False where it has to be read as others are: it is here already or is being decoded, is bad, or is of
            another size or kind.

        Errors are those of `fetch`.
        """
        self._notice_fork()
        with self._lock:
            is_new = row not in self._frames and row not in self._pending and row not in self.bad
        if not is_new or self._decode_into is None or not self._decode_into(self._fetch([row])[row], target):
            return False
        with self._lock:
            self.decodes += 1
        return True

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Store no frame that is decoded meanwhile: a pass over others leaves those in the cache where they are."""
        self._is_storing = False
        try:
            yield
        finally:
            self._is_storing = True

    def _claim(self, rows: Iterable[int]) -> _Claim:
        """Claim for this thread the rows that are neither here nor being decoded."""
        claim = _Claim()
        with self._lock:
            # dict.fromkeys: each row once, in order, so that one ranged read serves neighbours.
            for row in dict.fromkeys(rows):
                if row in self._frames:
                    self._frames.move_to_end(row)
                    claim.ready[row] = self._frames[row]
                elif row in self.bad:
                    claim.ready[row] = None
                elif row in self._pending:
                    claim.pending[row] = self._pending[row]
                else:
                    self._pending[row] = Future()
                    claim.to_decode.append(row)
        return claim

    def _decode_claimed(self, rows: list[int], frames: dict[int, Pixels | None]) -> None:
        """Decode the claimed rows into `frames`; a thread that waits for one goes on as soon as it is there."""
        encoded: Mapping[int, bytes | None] = self._fetch(rows) if rows else {}
        for row in rows:
            pixels, fault = None, ""
            try:
                pixels = self._decode(row, encoded[row])
            except BadImageError as error:
                fault = str(error)
            frames[row] = pixels
            self._store(row, pixels, fault)

    def _store(self, row: int, pixels: Pixels | None, fault: str) -> None:
        with self._lock:
            self.decodes += 1
            if pixels is None:
                self.bad[row] = fault
            elif self._is_storing:
                self._frames[row] = pixels
                self._bytes += pixels.nbytes
                while self._bytes > self.budget:
                    self._bytes -= self._frames.popitem(last=False)[1].nbytes
            # Last, under the lock: a thread that wakes finds the frame either in its future or in the cache.
            self._pending.pop(row).set_result(pixels)

    def _give_up(self, rows: list[int], error: BaseException) -> None:
        """Wake those who wait for rows that were claimed and not decoded: they read them themselves."""
        with self._lock:
            for row in rows:
                self._pending.pop(row).set_exception(error)
