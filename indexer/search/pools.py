"""The candidates that a search keeps for each query, and how work is divided."""

import os
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np

from seqdata.geometry import Float32Array, IntArray

Pool = slice | IntArray
"""The stored rows to search: a run of them (no copy is made), or any."""

EngineName = Literal["auto", "cpu", "cuda", "faiss-gpu"]


class TooManyPairsError(Exception):
    """So many rows are as near as rounding can tell that another way of search is needed."""


class Engine(Protocol):
    """Finds the rows of `pool` with the greatest scores to queries (q, k) float32."""

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """The m greatest scores (q, m) float32, greatest first, and their rows (q, m)."""
        ...

    def above(
        self, queries: Float32Array, limits: Float32Array, pool: Pool, most: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Block by block, query numbers (h,) and rows (h,) of pairs whose score is at least the query's limit (q,).

        Raises:
            TooManyPairsError: Before it yields more than `most` pairs.
        """
        ...

    def half_norms(self, pool: Pool) -> Float32Array:
        """|x|²/2 of every vector (n,) of a pool that was searched."""
        ...

    def first_components(self, count: int) -> "Engine":
        """An engine of the first `count` values of every vector; what lies on a device is not copied again."""
        ...


def threads() -> int:
    """Threads of one search: OMP_NUM_THREADS where it is set, otherwise the cores of this process."""
    # FAISS and BLAS obey this variable too, and a scheduler that gives a job some cores sets it.
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    # The affinity, not the machine's cores: a container or taskset may allow this process fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool_size(pool: Pool) -> int:
    """How many rows a pool holds."""
    return pool.stop - pool.start if isinstance(pool, slice) else len(pool)


def parts(pool: Pool, step: int) -> Iterator[Pool]:
    """A pool in pieces of `step` rows."""
    for start in range(0, pool_size(pool), step):
        if isinstance(pool, slice):
            yield slice(pool.start + start, min(pool.start + start + step, pool.stop))
        else:
            yield pool[start : start + step]


def numbers_of(part: Pool) -> IntArray:
    """The rows of a pool, one by one."""
    return np.arange(part.start, part.stop) if isinstance(part, slice) else part
