"""Memory of frames and batches, used again: touching fresh pages costs more than the copy into them."""

import math
import weakref

import numpy as np

from seqdata.frames.images import Pixels


class Buffers:
    """Hands out arrays; the memory of one comes back when neither it nor any view of it is held by anyone."""

    def __init__(self) -> None:
        self._free: list[Pixels] = []

    def __reduce__(self) -> tuple[type["Buffers"], tuple[()]]:
        """Another process begins with none."""
        return Buffers, ()

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """An array of `shape` uint8, its content undefined."""
        memory = self._memory(math.prod(shape))
        lease = _Lease(memory.__array_interface__)
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.asarray(lease).reshape(shape)

    def _memory(self, size: int) -> Pixels:
        """A free array of exactly `size` bytes, or a new one; free ones of another size are given up."""
        while self._free:
            memory = self._free.pop()
            if len(memory) == size:
                return memory
        return np.empty(size, dtype=np.uint8)


class _Lease:
    """The owner that NumPy sees: every view of the memory keeps it alive, and nothing else does."""

    def __init__(self, interface: dict[str, object]) -> None:
        self.__array_interface__ = interface
