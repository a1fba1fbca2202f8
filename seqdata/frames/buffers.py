"""Recycled memory of frames and batches: touching fresh pages costs more than the copy into them."""

import math
import weakref

import numpy as np

from seqdata.frames.images import Pixels


class Buffers:
    """Arrays whose memory is used again once nothing refers to them or to a view of them."""

    def __init__(self) -> None:
        self._free: list[Pixels] = []

    def __reduce__(self) -> tuple[type["Buffers"], tuple[()]]:
        """Start without memory in another process."""
        return Buffers, ()

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """Return an array of `shape` uint8 with undefined content."""
        memory = self._memory(math.prod(shape))
        lease = _Lease(memory.__array_interface__)
        # NumPy keeps the lease, not `memory`, as the base of every view. When the last view is gone the lease dies, and
        # its finalizer, which alone still refers to the memory, puts it back. Not at exit: nobody would take it.
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.asarray(lease).reshape(shape)

    def _memory(self, size: int) -> Pixels:
        """A free array of exactly `size` bytes, or a new one; free ones of another size are dropped."""
        # Emptying the list by `pop` is safe without a lock: list methods are atomic, and a finalizer may run anywhere.
        while self._free:
            memory = self._free.pop()
            if len(memory) == size:
                return memory
        return np.empty(size, dtype=np.uint8)


class _Lease:
    """The owner that NumPy sees: every view of the memory keeps it alive, and nothing else does."""

    def __init__(self, interface: dict[str, object]) -> None:
        self.__array_interface__ = interface
