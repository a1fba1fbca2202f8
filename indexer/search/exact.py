"""Exact nearest rows: an engine proposes by matrix product, distances are recomputed, near ties are settled."""

import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexer.arrays import Stored
from indexer.search.engines import NumpyEngine
from indexer.search.pools import Engine, EngineName, Pool, pool_size
from seqdata.geometry import Float32Array, IntArray

SLACK = 8  # candidates beyond k: most queries are then settled without a second look
REFINE_VALUES = 1 << 17  # float32 values gathered at once while distances are recomputed: they stay in the cache
UNIT = float(np.finfo(np.float32).eps) / 2


class Readable(Protocol):
    """Vectors (n, k) that can be read by row: an array, mapped or not, or those that an index file keeps."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, k)."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: IntArray, /) -> npt.NDArray[Any]:
        """The vectors of rows (m,): (m, k), float32 or float16."""
        ...


class ExactVectors:
    """Stored vectors (n, k), float32 or float16, with exact nearest rows: the k least by (distance, row)."""

    def __init__(self, vectors: Stored, engine: EngineName | Engine = "auto") -> None:
        """Search `vectors`, mapped or not, by an engine or the one of that name."""
        self._vectors = vectors
        self._engine = choose_engine(vectors, engine) if isinstance(engine, str) else engine

    def nearest(self, queries: Float32Array, k: int, rows: IntArray | None = None) -> tuple[Float32Array, IntArray]:
        """Plain L2 distances (q, k) float32 and rows (q, k) int64 of the vectors nearest to queries, ties by row.

        Queries are projected already. With `rows`, among those only. k is cut to what there is. A distance is the
        norm of a difference, so it does not depend on the other queries, and is 0 for a stored vector itself. Where
        the product's rounding could have hidden a nearer row, all rows within that rounding are recomputed.
        """
        pool = as_pool(rows, len(self._vectors))
        count = pool_size(pool)
        k = min(k, count)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        m = min(count, k + SLACK)
        scores, found = self._engine.best(queries, m, pool)
        lines = np.repeat(np.arange(len(queries)), m)
        apart = distances_between(queries, lines, self._vectors, found.ravel()).reshape(found.shape)
        order = np.lexsort((found, apart), axis=1)[:, :k]
        distances, nearest = np.take_along_axis(apart, order, 1), np.take_along_axis(found, order, 1)
        if m < count:
            self._settle(queries, scores[:, -1], distances, nearest, pool)
        return distances, nearest

    def _settle(
        self, queries: Float32Array, floor: Float32Array, distances: Float32Array, nearest: IntArray, pool: Pool
    ) -> None:
        """Recompute, in place, the queries for which a row that was not proposed may be as near as the k-th."""
        squared = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
        limit = (squared - distances[:, -1].astype(np.float64) ** 2) / 2 - self._rounding(squared, pool)
        unsure = np.flatnonzero(floor >= limit)
        if len(unsure) == 0:
            return
        k = distances.shape[1]
        lines, rows = self._engine.above(queries[unsure], limit[unsure].astype(np.float32), pool)
        apart = distances_between(queries[unsure], lines, self._vectors, rows)
        order = np.lexsort((rows, apart, lines))
        first = np.searchsorted(lines[order], np.arange(len(unsure)))
        kept = order[first[:, None] + np.arange(k)]
        distances[unsure], nearest[unsure] = apart[kept], rows[kept]

    def _rounding(self, squared: np.ndarray[tuple[int], np.dtype[np.float64]], pool: Pool) -> Float32Array:
        """A bound (q,) of a score's float32 error: some seven standard deviations of a sum rounded k times."""
        largest = 2 * self._engine.largest(pool)
        length = 4 * np.sqrt(self._vectors.shape[1]) + 8
        bound: Float32Array = length * UNIT * (np.sqrt(squared * largest) + squared + largest)
        return bound


def as_pool(rows: IntArray | None, count: int) -> Pool:
    """Rows to search as a pool: a slice where they follow each other, so that nothing is copied."""
    if rows is None:
        return slice(0, count)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def distances_between(queries: Float32Array, lines: IntArray, vectors: Readable, rows: IntArray) -> Float32Array:
    """Plain L2 distances (h,) float32 of the pairs queries[lines], vectors[rows], from their differences."""
    squares = np.empty(len(rows), np.float32)
    step = max(1, REFINE_VALUES // vectors.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        difference = vectors[rows[part]] - queries[lines[part]]
        squares[part] = np.einsum("hd,hd->h", difference, difference)
    distances: Float32Array = np.sqrt(squares)
    return distances


def choose_engine(vectors: Stored, name: EngineName = "auto") -> Engine:
    """The engine for these vectors; `auto` is a GPU where torch is loaded and sees one, otherwise NumPy.

    On a CPU the blocked product of NumPy's BLAS was faster than `faiss.knn` at every shape tried (1 to 256 queries;
    20k×128, 200k×256, 50k×4,096). Raises: MissingDependencyError where the asked-for device is not there.
    """
    if name == "auto":
        torch = sys.modules.get("torch")
        name = "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return NumpyEngine(vectors)
    from indexer.search.gpu_engines import FaissGpuEngine, cuda_engine

    return cuda_engine(vectors) if name == "cuda" else FaissGpuEngine(vectors)
