"""Decoded frames of one process, shared by its threads: each frame in use is read and decoded once.

The frames used least recently leave when the budget is full. A frame that one thread is decoding is waited for by the
others, never decoded twice. Bad frames are remembered with what is wrong.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from seqdata.frames.images import BadImageError, Pixels

Fetch = Callable[[list[int]], dict[int, bytes]]
Decode = Callable[[int, bytes], Pixels]


class DecodeCache:
    """Frame rows to pixels (H, W, 3), at most `budget` bytes of them held; safe to use from several threads.

    `fetch` gives the stored bytes of distinct rows, `decode` the pixels of one row or BadImageError. `decodes` counts
    frames that were decoded, `bad` says what is wrong with each bad row. In a forked process it starts empty.
    """

    def __init__(self, fetch: Fetch, decode: Decode, budget: int) -> None:
        self._fetch, self._decode = fetch, decode
        self.budget = budget
        self._start()

    def _start(self) -> None:
        # A lock that another thread held while the process was forked would stay held in the child for ever.
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Pixels] = OrderedDict()
        self._pending: dict[int, Future[Pixels | None]] = {}
        self._bytes = 0
        self.decodes = 0
        self.bad: dict[int, str] = {}

    def __getstate__(self) -> dict[str, object]:
        """What another process needs: how to read, and the budget."""
        return {name: self.__dict__[name] for name in ("_fetch", "_decode", "budget")}

    def __setstate__(self, state: dict[str, object]) -> None:
        """An empty cache."""
        self.__dict__.update(state)
        self._start()

    def frames(self, rows: Iterable[int]) -> dict[int, Pixels | None]:
        """Pixels of each distinct row, None where the frame is bad. Raises: as `fetch`."""
        if self._process != os.getpid():
            self._start()
        found, mine, awaited = self._claim(rows)
        try:
            self._fill(mine, found)
        except BaseException as error:
            self._give_up([row for row in mine if row not in found], error)
            raise
        for row, future in awaited.items():
            # A thread that failed may have failed at another frame of the same read: this row is then asked for here.
            found[row] = future.result() if future.exception() is None else self.frames([row])[row]
        return found

    def _claim(
        self, rows: Iterable[int]
    ) -> tuple[dict[int, Pixels | None], list[int], dict[int, "Future[Pixels | None]"]]:
        """Which rows are here, which this thread must decode, and which another thread is decoding."""
        found: dict[int, Pixels | None] = {}
        mine: list[int] = []
        awaited: dict[int, Future[Pixels | None]] = {}
        with self._lock:
            for row in dict.fromkeys(rows):
                if row in self._held:
                    self._held.move_to_end(row)
                    found[row] = self._held[row]
                elif row in self.bad:
                    found[row] = None
                elif row in self._pending:
                    awaited[row] = self._pending[row]
                else:
                    self._pending[row] = Future()
                    mine.append(row)
        return found, mine, awaited

    def _fill(self, mine: list[int], found: dict[int, Pixels | None]) -> None:
        """Decode the claimed rows; whoever waits for one goes on as soon as it is there."""
        encoded = self._fetch(mine) if mine else {}
        for row in mine:
            pixels, fault = None, ""
            try:
                pixels = self._decode(row, encoded[row])
            except BadImageError as error:
                fault = str(error)
            found[row] = pixels
            self._keep(row, pixels, fault)

    def _keep(self, row: int, pixels: Pixels | None, fault: str) -> None:
        with self._lock:
            self.decodes += 1
            if pixels is None:
                self.bad[row] = fault
            else:
                self._held[row] = pixels
                self._bytes += pixels.nbytes
                while self._bytes > self.budget:
                    self._bytes -= self._held.popitem(last=False)[1].nbytes
            self._pending.pop(row).set_result(pixels)

    def _give_up(self, rows: list[int], error: BaseException) -> None:
        """Let those who wait for rows that were claimed and not decoded go on and ask for them themselves."""
        with self._lock:
            for row in rows:
                self._pending.pop(row).set_exception(error)
