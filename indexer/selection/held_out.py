"""Held-out queries, by which an index is measured, with the exact nearest of its rows."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from indexer.search.exact import Readable, distances_between
from indexer.search.kinds import spread_rows
from seqdata.geometry import Float32Array, IntArray

K = 10
CANDIDATES = 32  # the K that count, and room for rows just as near as the last of them
QUERIES = 500
NOT_A_ROW = -1
NEVER = -2  # no search answers it, unlike -1
DATABASE_ROWS = "database rows"
FLOAT32 = "float32 vectors"
FLOAT16 = "the float16 vectors that the index keeps"


class Searcher(Protocol):
    """Anything that finds near rows."""

    def nearest(self, queries: Float32Array, k: int, rows: IntArray | None = None) -> tuple[Float32Array, IntArray]:
        """Distances (q, k) and rows (q, k)."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Queries (q, k), none where nothing can be measured, and the rows (q, m) that are their exact nearest.

    `rows` (q,): the database row that a query is, which never counts as its answer, or -1. `near` holds every row no
    further than the exact tenth, so that equal ones count, and -2 where it holds none. `queries_of` says where the
    queries are from, `truth` what the exact search compared.
    """

    queries: Float32Array
    rows: IntArray
    near: IntArray
    queries_of: str = DATABASE_ROWS
    truth: str = FLOAT32

    @property
    def k(self) -> int:
        """How many neighbours to ask for: ten, and one more where queries are rows, which find themselves."""
        return K if (self.rows == NOT_A_ROW).all() else K + 1

    def recall(self, neighbours: IntArray) -> float:
        """The mean share of the ten nearest among the rows found (q, k), of which the query itself is left out."""
        others = neighbours if self.k == K else self._others(neighbours)
        return float((others[:, :, None] == self.near[:, None]).any(axis=2).mean())

    def _others(self, neighbours: IntArray) -> IntArray:
        """Neighbours (q, k) of (q, k + 1) without the query itself, or without the last where it is not among them."""
        # A stable sort of booleans moves the query itself to the end and leaves the others in order, for all lines.
        order = np.argsort(neighbours == self.rows[:, None], axis=1, kind="stable")[:, : neighbours.shape[1] - 1]
        return np.take_along_axis(neighbours, order, 1)


def hold_out(
    vectors: Readable,
    exact: Searcher,
    seed: int,
    queries: Float32Array | None = None,
    queries_of: str = DATABASE_ROWS,
    truth: str = FLOAT32,
) -> HeldOut:
    """Take queries by which an index is measured, with their exact nearest.

    Args:
        vectors: The database (n, k), projected.
        exact: Finds the exact nearest of them.
        seed: Of the draw of rows.
        queries: Projected queries (q, k) float32; None for up to 500 rows spread over the database.
        queries_of: Whose the queries are, in words.
        truth: What `exact` compares, in words.

    Returns:
        The queries that can be judged (see `judge`), with their nearest rows.
    """
    if queries is None:
        # Another draw than that of the rows that train a quantiser: its centres fit those best.
        rows = spread_rows(len(vectors), min(QUERIES, len(vectors)), seed + 1)
        queries = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    else:
        rows = np.full(len(queries), NOT_A_ROW)
    neighbours = exact.nearest(queries, CANDIDATES + 1)[1]
    lines = np.repeat(np.arange(len(neighbours)), neighbours.shape[1])
    # Recomputed from the vectors, so that ties are ties: scores of matrix products carry rounding.
    distances = distances_between(queries, lines, vectors, neighbours.ravel()).reshape(neighbours.shape)
    return judge(queries, rows, distances, neighbours, len(vectors), queries_of, truth)


def judge(
    queries: Float32Array,
    rows: IntArray,
    distances: Float32Array,
    neighbours: IntArray,
    total: int,
    queries_of: str,
    truth: str = FLOAT32,
) -> HeldOut:
    """Mark which rows count as the exact ten nearest of each query: all that lie no further than its tenth.

    A query whose tenth lies as far as its last candidate is left out, because rows beyond the candidates may be just as
    near. With ten rows or fewer all queries are left out.

    Args:
        queries: Projected queries (q, k).
        rows: The database row (q,) that a query is, or -1.
        distances: Distances (q, `CANDIDATES` + 1) of the nearest rows, or of all where there are fewer.
        neighbours: These rows (q, `CANDIDATES` + 1).
        total: Rows of the database.
        queries_of: Whose the queries are, in words.
        truth: What was compared, in words.

    Returns:
        The queries that can be judged.
    """
    # A query that is a row of the database would be its own nearest: at infinity it comes last and counts as no answer.
    distances = np.where(neighbours == rows[:, None], np.inf, distances)
    order = np.lexsort((neighbours, distances), axis=1)
    distances, neighbours = np.take_along_axis(distances, order, 1), np.take_along_axis(neighbours, order, 1)
    if total <= K:
        return HeldOut(queries[:0], rows[:0], neighbours[:0], queries_of, truth)
    counted = distances <= distances[:, K - 1 : K]
    # The last column may be the query itself, at infinity; so the last but one tells whether the ties end within the
    # list.
    is_known = ~counted[:, -2] | (neighbours.shape[1] == total)
    return HeldOut(queries[is_known], rows[is_known], np.where(counted, neighbours, NEVER)[is_known], queries_of, truth)
