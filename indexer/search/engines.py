"""Engines of exact search: which stored vectors have the greatest score to a query, in blocks, the matrix never whole.

The score is x·q - |x|²/2: among the stored vectors x it falls as the distance |x - q| rises, and costs one matrix
product. It carries float32 rounding; `indexer.search.exact` recomputes the distances of what an engine finds.
"""

from collections.abc import Iterator

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.pools import Pool, TooManyPairsError, numbers_of, parts, pool_size
from seqdata.geometry import Float32Array, IntArray

SCORE_VALUES = 1 << 24  # float32 scores held at once: 64 MiB
# float32 values widened from float16 at once: 128 MiB; few large products, as threads meet after each.
WIDE_VALUES = 1 << 25
WIDEN_VALUES = 1 << 17  # float16 values widened at a time: they stay in the cache
# The bits of a float16 once they stand in a float32, and the difference of the exponents' biases (see `widen`).
FLOAT16_BITS = np.uint32(0x8FFFFFFF).view(np.int32)
FLOAT16_SCALE = np.float32(2.0**112)
# Queries that are multiplied one by one: a product of so few rows packs the vectors first, which costs more than to
# read them again (4 queries at 4,096 dimensions: 92 against 40 ms of processor time).
SINGLE = 8
QUERIES = 256  # queries of one product; more gain nothing and shorten the block
FIRST_COLUMNS = 1024  # scores ranked before there is a floor


class NumpyEngine:
    """Matrix products on the CPU; float16 vectors are widened a block at a time."""

    def __init__(self, vectors: StoredVectors) -> None:
        """`vectors` (n, k) float32 or float16, mapped or not. Half squared norms are kept once they were needed."""
        self._vectors = vectors
        self._half = np.full(len(vectors), np.nan, np.float32)

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`."""
        leaders = _Leaders(len(queries), m)
        for first, scores, numbers in self._scores(queries, pool):
            leaders.offer(first, scores, numbers)
        return leaders.scores, leaders.rows

    def above(
        self, queries: Float32Array, limits: Float32Array, pool: Pool, most: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """See `Engine.above`."""
        for first, scores, numbers in self._scores(queries, pool):
            is_above = scores >= limits[first : first + len(scores), None]
            most -= int(np.count_nonzero(is_above))
            if most < 0:
                raise TooManyPairsError
            lines, columns = np.nonzero(is_above)
            yield lines + first, numbers[columns]

    def half_norms(self, pool: Pool) -> Float32Array:
        """See `Engine.half_norms`."""
        halves: Float32Array = self._half[pool]
        return halves

    def first_components(self, count: int) -> "NumpyEngine":
        """See `Engine.first_components`."""
        return NumpyEngine(self._vectors[:, :count])

    def _scores(self, queries: Float32Array, pool: Pool) -> Iterator[tuple[int, Float32Array, IntArray]]:
        """Yield (first query, scores (q', b), row numbers (b,)): each block is read once for all queries.

        float32 vectors are multiplied where they lie, in as few products as the scores' memory allows: two threads
        meet at the end of each. Others, and those that a file holds at an odd place, are copied block by block.
        """
        run = min(len(queries), QUERIES)
        step = SCORE_VALUES // run
        if self._vectors.dtype != np.float32 or not self._vectors.flags.aligned:
            step = min(step, WIDE_VALUES // self._vectors.shape[1])
        step = min(max(step, 1), pool_size(pool))
        buffer = np.empty(run * step, np.float32)
        # One for all blocks: touching fresh pages for each costs as much as widening into them.
        wide = None if self._vectors.dtype == np.float32 else np.empty((step, self._vectors.shape[1]), np.float32)
        for part in parts(pool, step):
            block = self._block(part, wide)
            half, numbers = self._halves(part, block), numbers_of(part)
            for first in range(0, len(queries), run):
                query_block = queries[first : first + run]
                scores = buffer[: len(query_block) * len(block)].reshape(len(query_block), len(block))
                if len(query_block) <= SINGLE:
                    for query, row in zip(query_block, scores, strict=True):
                        np.matmul(block, query, out=row)
                else:
                    np.matmul(query_block, block.T, out=scores)
                scores -= half
                yield first, scores, numbers

    def _block(self, part: Pool, wide: Float32Array | None) -> Float32Array:
        """Stored vectors as float32, others than those in `wide`, which holds one block."""
        block = self._vectors[part]
        return block if block.dtype == np.float32 else widen(block, wide)

    def _halves(self, part: Pool, block: Float32Array) -> Float32Array:
        half = self._half[part]
        if np.isnan(half).any():
            half = half_norms(block)
            self._half[part] = half
        return half


def half_norms(block: Float32Array) -> Float32Array:
    """|x|²/2 of every vector (b, k): (b,) float32."""
    squares: Float32Array = np.einsum("nd,nd->n", block, block)
    squares /= 2
    return squares


def widen(block: StoredVectors, into: Float32Array | None = None) -> Float32Array:
    """float16 vectors (b, k) as float32, twice as fast as NumPy's own conversion; not for infinity or NaN.

    The first rows of `into` (at least b, k) are overwritten and returned, where it is given.

    Sign, exponent and mantissa move to their places in a float32, whose exponent is then 112 too small.
    """
    wide = np.empty(block.shape, np.float32) if into is None else into[: len(block)]
    step = max(1, WIDEN_VALUES // block.shape[1])
    for start in range(0, len(block), step):
        part = wide[start : start + step]
        bits = part.view(np.int32)
        np.copyto(bits, block[start : start + step].view(np.int16))  # the sign fills all upper bits
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, FLOAT16_BITS, out=bits)
        np.multiply(part, FLOAT16_SCALE, out=part)
    return wide


class _Leaders:
    """The m greatest scores of every query over blocks that come one after another."""

    def __init__(self, queries: int, m: int) -> None:
        self.scores = np.full((queries, m), -np.inf, np.float32)
        self.rows = np.zeros((queries, m), np.int64)
        self._seen = np.zeros(queries, np.int64)

    def offer(self, first: int, scores: Float32Array, rows: IntArray) -> None:
        """Take in scores (q', b) of queries `first`... to `rows` (b,).

        Columns come in runs that grow fourfold: what the first ones reach keeps most of the rest out.
        """
        start, width = 0, scores.shape[1]
        while start < width:
            # Pieces grow fourfold: the floor that the first columns set rejects most of those that follow.
            stop = min(width, start + max(FIRST_COLUMNS, 3 * int(self._seen[first])))
            self._take(first, scores[:, start:stop], rows[start:stop])
            self._seen[first] += stop - start
            start = stop

    def _take(self, first: int, scores: Float32Array, rows: IntArray) -> None:
        part, (count, m) = slice(first, first + len(scores)), (len(scores), self.scores.shape[1])
        leaders = self.scores[part]
        floor = leaders[:, -1:]
        if scores.shape[1] > m and np.isneginf(floor).any():
            # Nothing to compare with yet: partition is cheaper than a sort of all columns.
            columns = np.argpartition(scores, -m, axis=1)[:, -m:].ravel()
            lines = np.repeat(np.arange(count), m)
        else:
            lines, columns = np.divmod(np.flatnonzero(scores > floor), scores.shape[1])
        if len(lines) == 0:
            return
        # All queries are merged in one sort: pairs sorted by query, then by falling score, have their rank within the
        # query as position less that of the query's first; the first m of each stay.
        owner = np.concatenate([np.repeat(np.arange(count), m), lines])
        values = np.concatenate([leaders.ravel(), scores[lines, columns]])
        numbers = np.concatenate([self.rows[part].ravel(), rows[columns]])
        order = np.lexsort((-values, owner))
        owner = owner[order]
        rank = np.arange(len(owner)) - np.searchsorted(owner, np.arange(count))[owner]
        selected = order[rank < m]
        self.scores[part], self.rows[part] = values[selected].reshape(count, m), numbers[selected].reshape(count, m)
