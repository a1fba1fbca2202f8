"""Exact nearest rows: an engine proposes by matrix product, distances are recomputed, near ties are settled.

This is the one exact search of the program: indexes, evaluation, validation and mining rank by it.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from indexer.arrays import StoredVectors
from indexer.search.engines import NumpyEngine, half_norms
from indexer.search.half_engine import HalfEngine
from indexer.search.pools import Engine, EngineName, Pool, TooManyPairsError, numbers_of, parts, pool_size
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, Float64Array, IntArray

SLACK = 8  # candidates beyond k: most queries are then settled without a second look
REFINE_VALUES = 1 << 17  # float32 values gathered at once while distances are recomputed: they stay in the cache
PAIRS = 1 << 20  # near ties recomputed at once: 24 MiB of numbers
CLOSE_VALUES = 1 << 22  # float64 values of one block while near ties are settled: 32 MiB
UNIT = float(np.finfo(np.float32).eps) / 2
UNIT64 = float(np.finfo(np.float64).eps) / 2
# Sums of float32 squares outside lose digits to overflow or underflow, and are computed in float64 instead.
LEAST_SQUARE, GREATEST_SQUARE = 1e-30, 1e38
OUTLIER = 16.0  # a row is an outlier if its squared length is so many times the median's
MOST_OUTLIERS = 64

Neighbours = tuple[Float32Array, IntArray]
"""Distances (q, k) float32 and rows (q, k) int64, in the order of (distance, row)."""


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


def nearest_rows(
    queries: npt.ArrayLike,
    database: npt.ArrayLike,
    k: int,
    *,
    groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    engine: EngineName = "auto",
) -> Neighbours:
    """Find the k nearest database vectors of every query, exactly.

    Distances are norms of differences, so they hold for vectors with a common offset, for nearly equal ones, and for
    values from 1e-25 to 1e19; equal distances are ordered by row. An answer depends on its query and the database
    alone, not on the other queries.

    Args:
        queries: Finite vectors (q, d), taken as float32.
        database: Finite vectors (n, d), float32 or float16, mapped or not.
        k: Neighbours a query, at least 1; cut to n.
        groups: Labels of the queries (q,) and of the database (n,), the city say: every query is searched among the
            vectors of its own label only.
        engine: What proposes candidates; `auto` is a GPU where torch is loaded and sees one.

    Returns:
        L2 distances (q, k) float32, nearest first, and database rows (q, k) int64. With `groups`, a query whose group
        has fewer than k vectors ends in distance infinity and row -1.

    Raises:
        ContractError: If shapes do not fit, k < 1, or a value is not finite.

    Example:
        >>> distances, rows = nearest_rows([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0], [0.0, 1.0]], k=2)
        >>> rows.tolist(), distances.tolist()
        ([[1, 2]], [[1.0, 1.0]])
        >>> nearest_rows([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]], k=2, groups=(["a"], ["a", "b"]))[1].tolist()
        [[0, -1]]
    """
    table = np.asarray(database)
    if table.dtype not in (np.float32, np.float16):
        table = table.astype(np.float32)
    points = np.ascontiguousarray(queries, np.float32)
    if k < 1 or points.ndim != 2 or table.ndim != 2 or points.shape[1] != table.shape[1]:
        raise ContractError(
            f"the {k} nearest of a database {table.shape} to queries {points.shape}: two tables of one width and a "
            "k of at least 1 are needed"
        )
    if not (np.isfinite(points).all() and np.isfinite(table).all()):
        raise ContractError("a descriptor holds NaN or infinity; check the model's weights")
    vectors = ExactVectors(table, engine)
    if groups is None:
        return vectors.nearest(points, k)
    labels = np.asarray(groups[0]), np.asarray(groups[1])
    if (len(labels[0]), len(labels[1])) != (len(points), len(table)):
        raise ContractError("groups: one label is needed for every query and every database vector")
    return in_groups(lambda lines, rows: vectors.nearest(points[lines], k, rows), labels, min(k, len(table)))


def in_groups(
    search: Callable[[IntArray, IntArray], Neighbours], groups: tuple[npt.NDArray[Any], npt.NDArray[Any]], k: int
) -> Neighbours:
    """Search every query among the database rows of its own group.

    Args:
        search: Called with query numbers (g,) and rising database rows of one group; returns the nearest of those rows.
        groups: Labels of the queries (q,) and of the database rows (n,).
        k: Columns of the result.

    Returns:
        Distances (q, k) and rows (q, k); infinity and -1 where a group has fewer rows.
    """
    distances = np.full((len(groups[0]), k), np.inf, np.float32)
    nearest = np.full((len(groups[0]), k), -1, np.int64)
    for label in np.unique(groups[0]):
        lines, rows = np.flatnonzero(groups[0] == label), np.flatnonzero(groups[1] == label)
        if len(rows):
            group_distances, group_rows = search(lines, rows)
            columns = min(k, group_rows.shape[1])
            distances[lines, :columns], nearest[lines, :columns] = group_distances[:, :columns], group_rows[:, :columns]
    return distances, nearest


class ExactVectors:
    """Stored vectors (n, k), float32 or float16, with exact nearest rows: the k least by (distance, row)."""

    def __init__(self, vectors: StoredVectors, engine: EngineName | Engine = "auto") -> None:
        """Search `vectors`, mapped or not, by an engine or the one of that name."""
        self._vectors = vectors
        self._engine = choose_engine(vectors, engine) if isinstance(engine, str) else engine

    def nearest(self, queries: Float32Array, k: int, rows: IntArray | None = None) -> Neighbours:
        """Find the stored vectors nearest to queries.

        A distance is the norm of a difference, so it does not depend on the other queries, and is 0 for a stored vector
        itself. Where the product's rounding could have hidden a nearer row, all rows within it are recomputed.

        Args:
            queries: Finite projected vectors (q, d) float32.
            k: Neighbours a query; cut to what there is.
            rows: Search among these rows (m,) only.

        Returns:
            L2 distances (q, k) float32 and rows (q, k) int64, equal distances by row.
        """
        pool = as_pool(rows, len(self._vectors))
        count = pool_size(pool)
        k = min(k, count)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        m = min(count, k + SLACK)
        if m == count:
            # Every row is a candidate: no score is needed, and none that overflowed can leave one out.
            return self._ordered(queries, np.broadcast_to(numbers_of(pool), (len(queries), count)), k)
        # Values beyond 1e19 overflow here; such scores are not finite, and those queries are settled in float64.
        with np.errstate(over="ignore", invalid="ignore"):
            scores, candidates = self._engine.best(queries, m, pool)
            nearest = self._ordered(queries, candidates, k)
            self._settle(queries, scores[:, -1], nearest, pool)
        return nearest

    def first_components(self, count: int) -> "ExactVectors":
        """The same vectors by their first `count` values; what lies on a device stays there."""
        return ExactVectors(self._vectors[:, :count], self._engine.first_components(count))

    def _ordered(self, queries: Float32Array, candidates: IntArray, k: int) -> Neighbours:
        """The k nearest of candidate rows (q, m)."""
        lines = np.repeat(np.arange(len(queries)), candidates.shape[1])
        distances = distances_between(queries, lines, self._vectors, candidates.ravel()).reshape(candidates.shape)
        order = np.lexsort((candidates, distances), axis=1)[:, :k]
        return np.take_along_axis(distances, order, 1), np.take_along_axis(candidates, order, 1)

    def _settle(self, queries: Float32Array, floor: Float32Array, nearest: Neighbours, pool: Pool) -> None:
        """Search again, in place, for queries (q, d) of which a row that was not proposed may be as near as the k-th.

        `floor` (q,) is the least score that was proposed: all other rows have a lower one.
        """
        distances, rows = nearest
        halves = self._engine.half_norms(pool)
        largest = float(halves.max())
        unsure = np.flatnonzero(self._is_unsure(queries, floor, distances[:, -1], largest))
        if len(unsure) == 0:
            return
        outliers = find_outliers(halves)
        if len(outliers):
            # One long row would widen the bound of every query: such rows are compared by themselves.
            others = np.ones(len(halves), np.bool_)
            others[outliers] = False
            largest = float(halves[others].max())
            candidates = np.broadcast_to(numbers_of(pool)[outliers], (len(unsure), len(outliers)))
            more = self._ordered(queries[unsure], candidates, len(outliers))
            distances[unsure], rows[unsure] = merge((distances[unsure], rows[unsure]), more)
            unsure = unsure[self._is_unsure(queries[unsure], floor[unsure], distances[unsure, -1], largest)]
        if len(unsure):
            better = self._recount(queries[unsure], (distances[unsure], rows[unsure]), largest, pool)
            distances[unsure], rows[unsure] = better

    def _is_unsure(
        self, queries: Float32Array, floor: Float32Array, last: Float32Array, largest: float
    ) -> npt.NDArray[np.bool_]:
        """Whether queries (q,) may have missed a row; `last` (q,) are distances of their k-th."""
        # Written so that scores and bounds that are not finite count as unsure: minus infinity is the score of a row
        # that overflowed, or stands for no row at all.
        return ~(np.isfinite(floor) & (floor < self._limits(queries, last, largest)))

    def _limits(self, queries: Float32Array, last: Float32Array, largest: float) -> Float64Array:
        """The least computed score (q,) that a row as near as `last` may have, among rows of |x|²/2 <= `largest`."""
        squared = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
        limits: Float64Array = (squared - last.astype(np.float64) ** 2) / 2
        return limits - rounding(squared, largest, self._vectors.shape[1])

    def _recount(self, queries: Float32Array, nearest: Neighbours, largest: float, pool: Pool) -> Neighbours:
        """The nearest rows of queries, from all rows whose score is within rounding of the k-th."""
        limits = self._limits(queries, nearest[0][:, -1], largest).astype(np.float32)
        most = max(PAIRS, 4 * nearest[0].size)
        try:
            if not np.isfinite(limits).all():
                raise TooManyPairsError
            for lines, rows in self._engine.above(queries, limits, pool, most):
                nearest = self._merge_pairs(queries, nearest, lines, rows)
        except TooManyPairsError:
            nearest = self._nearest_closely(queries, nearest[0].shape[1], pool)
        return nearest

    def _merge_pairs(self, queries: Float32Array, nearest: Neighbours, lines: IntArray, rows: IntArray) -> Neighbours:
        """Neighbours (q, k) with the better of pairs (query number, row), recomputed in bounded blocks."""
        k = nearest[0].shape[1]
        for start in range(0, len(lines), PAIRS):
            line, row = lines[start : start + PAIRS], rows[start : start + PAIRS]
            distances = distances_between(queries, line, self._vectors, row)
            order = np.lexsort((row, distances, line))
            line, row, distances = line[order], row[order], distances[order]
            # Sorted by query, a pair's place among its query's is its position less that of the query's first.
            place = np.arange(len(line)) - np.searchsorted(line, line)
            is_near = place < k
            more = np.full(nearest[0].shape, np.inf, np.float32), np.full(nearest[0].shape, -1, np.int64)
            more[0][line[is_near], place[is_near]] = distances[is_near]
            more[1][line[is_near], place[is_near]] = row[is_near]
            nearest = merge(nearest, more)
        return nearest

    def _nearest_closely(self, queries: Float32Array, k: int, pool: Pool) -> Neighbours:
        """The nearest rows where float32 products cannot tell rows apart: collapsed, repeated or extreme vectors.

        Products are float64 and about the centre of the pool, where a common offset is gone: differences of nearby
        float32 values are exact. Rows repeated more than k times are left out, as the first k of them come first.
        """
        pool = self._first_copies(pool, k)
        centre = self._centre(pool)
        shifted = queries.astype(np.float64) - centre
        squared = np.einsum("qd,qd->q", shifted, shifted)
        nearest = np.full((len(queries), k), np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        step = max(1, CLOSE_VALUES // max(self._vectors.shape[1], len(queries)))
        slack = 2 * (4 * np.sqrt(self._vectors.shape[1]) + 8)
        for part in parts(pool, step):
            block = self._vectors[part].astype(np.float64) - centre
            numbers, norms = numbers_of(part), np.einsum("nd,nd->n", block, block)
            squares = norms + squared[:, None] - 2 * (shifted @ block.T)
            squares -= slack * UNIT64 * (norms + squared[:, None])  # now the least that each may be
            few = min(k, squares.shape[1])
            columns = np.argpartition(squares, few - 1, axis=1)[:, :few]
            more = self._ordered(queries, numbers[columns], few)
            nearest = merge(nearest, more)
            limits = nearest[0][:, -1:].astype(np.float64) ** 2 * (1 + slack * UNIT)
            lines, columns = np.nonzero(squares <= limits)
            nearest = self._merge_pairs(queries, nearest, lines, numbers[columns])
        return nearest

    def _first_copies(self, pool: Pool, k: int) -> Pool:
        """The pool without rows that equal k rows before them."""
        numbers = numbers_of(pool)
        order = np.argsort(numbers)
        # Of 64 bits: two different rows of a million share a digest with a chance of 1 in 40 million.
        digests = np.empty(len(numbers), np.uint64)
        step = max(1, CLOSE_VALUES // self._vectors.shape[1])
        for start in range(0, len(numbers), step):
            block = np.ascontiguousarray(self._vectors[numbers[order[start : start + step]]])
            digests[start : start + len(block)] = [xxhash.xxh3_64_intdigest(row.data) for row in block]
        by_digest = np.argsort(digests, kind="stable")
        ranked = digests[by_digest]
        copies = np.empty(len(numbers), np.int64)
        copies[by_digest] = np.arange(len(numbers)) - np.searchsorted(ranked, ranked)
        return pool if (copies < k).all() else numbers[order[copies < k]]

    def _centre(self, pool: Pool) -> Float64Array:
        """The mean (d,) of the pool's vectors, without outliers."""
        step = max(1, CLOSE_VALUES // self._vectors.shape[1])
        norms = np.concatenate([np.einsum("nd,nd->n", block, block) for block in self._wide(pool, step)])
        is_usual = norms <= OUTLIER * np.median(norms)
        total, start = np.zeros(self._vectors.shape[1]), 0
        for block in self._wide(pool, step):
            total += block[is_usual[start : start + len(block)]].sum(axis=0)
            start += len(block)
        centre: Float64Array = total / int(is_usual.sum())
        return centre

    def _wide(self, pool: Pool, step: int) -> Iterator[Float64Array]:
        """The pool's vectors in blocks of `step` rows, float64."""
        for part in parts(pool, step):
            yield self._vectors[part].astype(np.float64)


def nearest_row(queries: Float32Array, vectors: Float32Array) -> IntArray:
    """Find the row (q,) int64 of the one nearest vector (n, d) of every query (q, d), the first of equally near ones.

    As `ExactVectors.nearest` with k = 1, and in a third of its time where n is small: only the queries whose two best
    scores are within rounding are searched again.
    """
    halves = half_norms(vectors)
    largest = float(halves.max())
    rows = np.empty(len(queries), np.int64)
    step = max(1, CLOSE_VALUES // len(vectors))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            scores = block @ vectors.T
            scores -= halves
            best = scores.argmax(axis=1)
            squared = np.einsum("qd,qd->q", block, block, dtype=np.float64)
            limits = scores[np.arange(len(block)), best] - 2 * rounding(squared, largest, vectors.shape[1])
            # Scores that are not finite count 0 rows within the limit, and are searched again as well.
            unsure = np.flatnonzero(np.count_nonzero(scores >= limits.astype(np.float32)[:, None], axis=1) != 1)
        if len(unsure):
            best[unsure] = ExactVectors(vectors, "cpu").nearest(block[unsure], 1)[1][:, 0]
        rows[start : start + step] = best
    return rows


def rounding(squared: Float64Array, largest: float, size: int) -> Float64Array:
    """A bound (q,) of a score's float32 error: some seven standard deviations of a sum rounded `size` times.

    `squared` (q,) are |q|², `largest` is the greatest |x|²/2. Below the smallest normal number digits are lost as well.
    """
    length = 4 * np.sqrt(size) + 8
    bound: Float64Array = length * UNIT * (np.sqrt(squared * 2 * largest) + squared + 2 * largest)
    return bound + size * float(np.finfo(np.float32).tiny)


def find_outliers(halves: Float32Array) -> IntArray:
    """Positions in |x|²/2 (n,) of the few rows that are much longer than most; none where they are many."""
    outliers = np.flatnonzero(~(halves <= OUTLIER * np.median(halves)))
    return outliers if len(outliers) <= min(MOST_OUTLIERS, len(halves) - 1) else outliers[:0]


def merge(nearest: Neighbours, more: Neighbours) -> Neighbours:
    """The first k of neighbours (q, k) and others (q, m) in the order of (distance, row), each row once."""
    k = nearest[0].shape[1]
    distances, rows = np.hstack([nearest[0], more[0]]), np.hstack([nearest[1], more[1]])
    order = np.lexsort((rows, distances), axis=1)
    distances, rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)
    # A row has one distance to a query, so both its mentions lie side by side.
    is_repeat = np.zeros(rows.shape, np.bool_)
    is_repeat[:, 1:] = rows[:, 1:] == rows[:, :-1]
    first = np.argsort(is_repeat, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, first, 1), np.take_along_axis(rows, first, 1)


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
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            difference = vectors[rows[part]] - queries[lines[part]]
            squares[part] = np.einsum("hd,hd->h", difference, difference)
        distances: Float32Array = np.sqrt(squares)
    extreme = np.flatnonzero(~((squares > LEAST_SQUARE) & (squares < GREATEST_SQUARE)))
    for start in range(0, len(extreme), step):
        pairs = extreme[start : start + step]
        wide = vectors[rows[pairs]].astype(np.float64) - queries[lines[pairs]]
        distances[pairs] = np.sqrt(np.einsum("hd,hd->h", wide, wide))
    return distances


def choose_engine(vectors: StoredVectors, name: EngineName = "auto") -> Engine:
    """Choose what proposes candidates among these vectors.

    On a CPU the blocked product of NumPy's BLAS was faster than `faiss.knn` at every shape tried (1 to 256 queries;
    20k x 128, 200k x 256, 50k x 4,096).

    Args:
        vectors: The stored vectors (n, k).
        name: A device, or `auto`: a GPU where torch is loaded, sees one, and the vectors fit into half of its free
            memory; otherwise NumPy.

    Returns:
        The engine.

    Raises:
        MissingDependencyError: If the device that `name` asks for is not there.
    """
    # Looked up, not imported: searching must not be what loads torch.
    torch = sys.modules.get("torch")
    if name == "cpu" or (name == "auto" and not (torch is not None and torch.cuda.is_available())):
        return HalfEngine(vectors) if vectors.dtype == np.float16 else NumpyEngine(vectors)
    from indexer.search.gpu_engines import AutoEngine, FaissGpuEngine, cuda_engine, current_cuda  # heavy

    if name == "auto":
        return AutoEngine(vectors, current_cuda())
    return cuda_engine(vectors) if name == "cuda" else FaissGpuEngine(vectors)
