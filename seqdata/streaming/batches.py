"""An epoch in batches: threads that share one cache of decoded frames read ahead, rank only slices, state is a step."""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from seqdata.errors import ContractError
from seqdata.frames.buffers import Buffers
from seqdata.frames.cache import DecodeCache
from seqdata.frames.decode import channels_first
from seqdata.frames.images import Pixels
from seqdata.geometry import BoolArray, IntArray
from seqdata.streaming.shuffle import Shuffle, open_blocks

Sequence = dict[str, Any]


FORMAT = 1
"""Of the state that is saved."""
AHEAD = 2
"""Batches read ahead: one that is being read while another waits; more only take memory."""
CACHE_BYTES = 1 << 30
"""Bytes of decoded frames that a stream caches by default."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamSettings:
    """How a stream reads and orders: see `Dataset.stream`."""

    seed: int = 0
    epoch: int = 0
    shuffle: Shuffle = "blocks"
    size: tuple[int, int] | None = None
    cache_bytes: int = CACHE_BYTES
    device: str = "cpu"


class Readable(Protocol):
    """What batches need of a stream: its windows by step, in an order that can be changed, over one cache of frames."""

    settings: StreamSettings
    cache: DecodeCache

    @property
    def id(self) -> str:
        """What is streamed, whatever its order."""

    def __len__(self) -> int:
        """Windows of the epoch."""

    def read(self, index: int) -> tuple[list[Pixels], BoolArray]:
        """Frames of the window at a step, and which of them are replaced (L,)."""

    def read_into(self, index: int, target: Pixels) -> bool:
        """Decode a window of one frame into an array (H, W, 3); return False where `read` is needed."""

    def describe(self, steps: IntArray) -> Sequence:
        """All fields but pixels of `steps` (B,), stacked."""

    def reordered(self, *, seed: int, epoch: int, shuffle: Shuffle) -> "Readable":
        """The same windows in another order, over the same cache."""


class Batches:
    """One epoch of a stream in batches, once through; made by `Stream.batches`. Close it, or use it in a `with`.

    Convention: batch s of the epoch holds steps s·B … s·B + B − 1 of the stream, B = `batch_size` counted over all
    ranks; rank r of R gets steps p with p mod R = r, in order. Yields dicts as `Stream` items do, stacked: `frames`
    uint8 (b, L, 3, H, W) channels last in memory, `row` (b,), `positions`, `easting`, `northing`, `replaced` (b, L),
    and lists of texts; `step` is s. `replaced` of the object counts the replaced frames that were yielded.

    Memory: the stream's cache and three batches. The last batch may be short; `drop_last` leaves it out.

    Raises:
        ContractError: When B does not divide among the ranks, or a short last batch leaves a rank without windows.
    """

    def __init__(
        self,
        stream: Readable,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        threads: int = 2,
        drop_last: bool = False,
    ) -> None:
        _check(batch_size, rank, world, threads)
        left = len(stream) % batch_size
        if 0 < left < world and not drop_last:
            raise ContractError(f"the last batch has {left} windows for {world} ranks; pass drop_last=True")
        self._stream = stream
        self._size, self._rank, self._world = batch_size, rank, world
        self._count = len(stream) // batch_size + (left > 0 and not drop_last)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._buffers = Buffers()
        self._ahead: deque[_Batch] = deque()
        self._step = 0
        self._yielded_none = True
        self.replaced = 0

    def __len__(self) -> int:
        """Batches in the epoch, the same for every rank."""
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        """Itself: an epoch goes on where it stands."""
        return self

    def __next__(self) -> Sequence:
        """The next batch. Raises: as `Stream.__getitem__`; StopIteration at the end, which closes it."""
        if self._step >= self._count:
            self.close()
            raise StopIteration
        while len(self._ahead) <= AHEAD and self._step + len(self._ahead) < self._count:
            self._ahead.append(self._start(self._step + len(self._ahead)))
        try:
            frames, replaced = self._ahead[0].result()
        except BaseException:
            self._cancel()
            raise
        # Only now: had a read failed, the next call would meet the same batch again.
        self._ahead.popleft()
        if self._yielded_none:
            self._warn_of_small_cache(frames)
        step, self._step = self._step, self._step + 1
        self.replaced += int(replaced.sum())
        described = self._stream.describe(self._steps(step))
        return {"frames": channels_first(frames), **described, "replaced": replaced, "step": step}

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands after the batches yielded so far: plain values, alike on every rank."""
        settings = self._stream.settings
        return {
            "format": FORMAT,
            "stream": self._stream.id,
            "shuffle": settings.shuffle,
            "seed": settings.seed,
            "epoch": settings.epoch,
            "batch_size": self._size,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, which any rank of any number of ranks may have saved.

        Args:
            state: What `state_dict` returned; seed, epoch and shuffle are taken from it.

        Raises:
            ContractError: If it belongs to other windows or another batch size, or is no such state.
        """
        own = self.state_dict()
        if state.keys() != own.keys() or state["format"] != FORMAT:
            raise ContractError(f"not a stream's state of format {FORMAT}; its fields are {', '.join(sorted(state))}")
        if state["stream"] != own["stream"]:
            raise ContractError("the stream's state belongs to another dataset or other windows; open those to resume")
        if state["batch_size"] != self._size:
            raise ContractError(f"the stream's state counts batches of {state['batch_size']}; resume with that size")
        if not 0 <= state["step"] <= self._count:
            raise ContractError(f"the stream's state stands at step {state['step']} of {self._count}")
        self._cancel()
        self._stream = self._stream.reordered(seed=state["seed"], epoch=state["epoch"], shuffle=state["shuffle"])
        self._step = state["step"]

    def close(self) -> None:
        """End the threads; what was read ahead is dropped."""
        self._cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> "Batches":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _warn_of_small_cache(self, frames: Pixels) -> None:
        """Say so when the cache is too small for the frames of all open blocks: they would be decoded over and over."""
        self._yielded_none = False
        blocks = open_blocks(len(self._stream)) // self._world
        needed, budget = blocks * (frames.shape[1] + 2) * frames[0, 0].nbytes, self._stream.cache.budget
        if needed > budget and self._stream.settings.shuffle == "blocks":
            log.warning(
                "the frames of %d open blocks need %d MB, the cache has %d MB: frames will be decoded many times; "
                "give a smaller size or more cache_bytes",
                blocks,
                needed >> 20,
                budget >> 20,
            )

    def _cancel(self) -> None:
        while self._ahead:
            self._ahead.pop().cancel()

    def _steps(self, step: int) -> IntArray:
        """Steps of the stream that this rank has in batch `step`."""
        start, stop = step * self._size, min((step + 1) * self._size, len(self._stream))
        # Every R-th step: a lane of the order belongs to one rank, so no two ranks decode one frame (see `shuffle`).
        return np.arange(start + self._rank, stop, self._world)

    def _start(self, step: int) -> "_Batch":
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="seqdata-stream")
        return _Batch(self._stream, self._steps(step), self._pool, self._threads, self._buffers)


def _check(batch_size: int, rank: int, world: int, threads: int) -> None:
    if batch_size < 1 or threads < 1 or not 0 <= rank < world:
        raise ContractError(f"batch size {batch_size}, threads {threads}, rank {rank} of {world}: not possible")
    if batch_size % world:
        raise ContractError(f"a batch of {batch_size} windows does not divide among {world} ranks")


class _Batch:
    """A batch being read: each thread reads some of its windows and writes their frames into the batch's array."""

    def __init__(
        self, stream: Readable, steps: IntArray, pool: ThreadPoolExecutor, parts: int, buffers: Buffers
    ) -> None:
        self._stream, self._steps, self._buffers = stream, steps, buffers
        self._lock = threading.Lock()
        self._frames: Pixels | None = None
        self._replaced: dict[int, BoolArray] = {}
        parts = min(parts, len(steps))
        self._tasks = [pool.submit(self._read, range(part, len(steps), parts)) for part in range(parts)]

    def _read(self, positions: range) -> None:
        for position in positions:
            # Once the first window has told the size, single frames are decoded where they belong: the copy of a frame
            # takes a tenth of its decoding.
            if self._frames is not None and self._stream.read_into(
                int(self._steps[position]), self._frames[position, 0]
            ):
                self._replaced[position] = np.zeros(1, np.bool_)
                continue
            pixels, self._replaced[position] = self._stream.read(int(self._steps[position]))
            frames = self._array((len(self._steps), len(pixels), *pixels[0].shape))[position]
            for target, frame in zip(frames, pixels, strict=True):
                if target.shape != frame.shape:
                    raise ContractError("frames of different sizes cannot be stacked; give size=(height, width)")
                target[...] = frame

    def _array(self, shape: tuple[int, ...]) -> Pixels:
        """The batch's array; the first window that is read knows how large frames are."""
        with self._lock:
            # Recycled memory: pages of a new batch array would cost more than the copy into them.
            if self._frames is None:
                self._frames = self._buffers.take(shape)
            return self._frames

    def result(self) -> tuple[Pixels, BoolArray]:
        """Frames (b, L, H, W, 3) and which are replaced (b, L), once all is read. Raises: what a task raised."""
        for task in self._tasks:
            task.result()
        assert self._frames is not None  # noqa: S101  (a batch has windows)
        return self._frames, np.stack([self._replaced[position] for position in range(len(self._steps))])

    def cancel(self) -> None:
        """Leave out what no thread has begun."""
        for task in self._tasks:
            task.cancel()
