"""Sequences matched frame by frame: the mean distance of frame descriptors along the aligned diagonal.

This is SeqSLAM's difference matrix without contrast enhancement and without a search over velocities
(`indexer.matching.seqslam` has both), the form in which both papers run sequence matching (docs/methods.md#seqslam).
With metric l2 over a trained projection's frame vectors it is SeqMatchNet's distance (docs/methods.md#seqmatchnet).

`match_single`, `match_aligned` and `indexer.matching.seqslam.match_seqslam` take the same arguments: ways to match the
same windows of the same frames, of which `indexer.matching.baselines` takes one by name.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from indexer.arrays import unit
from indexer.search.exact import distances_between, nearest_rows
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

Metric = Literal["l1", "l2", "cosine"]
"""Distance of two frame descriptors: mean absolute difference a value, plain L2, or 1 minus the cosine."""
METRICS: tuple[Metric, ...] = ("l1", "l2", "cosine")
METRIC_NAMES: dict[Metric, str] = {"l1": "SAD", "l2": "L2", "cosine": "cosine"}
"""What tables of results call them; SAD is the sum of absolute differences of SeqSLAM."""

FrameReader = Callable[[IntArray], npt.NDArray[np.floating]]
"""Frame descriptors (n, p) of frame rows (n,), in this order."""

BLOCK_VALUES = 1 << 25  # float32 values of one block of the distance matrix: 128 MiB
NEAR_SHARE = 0.05
"""Pairs whose squared distance is a smaller share of their squared norms are computed from differences. A product is
rounded to some ten units in the last place (6e-8) of the norms, so that the others are right to about 1e-5."""


def match_single(
    query_frames: Float32Array,
    query_windows: IntArray,
    database_frames: Float32Array,
    database_windows: IntArray,
    k: int,
    *,
    metric: Metric = "l1",
    block: int = BLOCK_VALUES,
    progress: Callable[[int], None] | None = None,
) -> tuple[Float32Array, IntArray]:
    """Find the k nearest database windows by their centre frames alone.

    Convention: the centre of L frames is index (L - 1) // 2.

    Args, Returns and Raises are those of `match_aligned`.

    Example:
        >>> frames = np.array([[0.0], [1.0], [5.0], [6.0]], np.float32)
        >>> match_single(frames, np.array([[0, 1, 2]]), frames, np.array([[2, 3, 3], [1, 0, 1]]), k=1)[1].tolist()
        [[1]]
    """
    check_windows(query_frames, query_windows, database_frames, database_windows, k)
    centre = (query_windows.shape[1] - 1) // 2
    queries, database = query_windows[:, centre], database_windows[:, centre]
    query_vectors, vectors = query_frames[queries], database_frames[database]
    # A descriptor of zeros has no direction: no L2 distance of unit vectors stands for its cosine.
    has_direction = query_vectors.any(axis=1).all() and vectors.any(axis=1).all()
    if metric == "l1" or (metric == "cosine" and not has_direction):
        windows = queries[:, None], database[:, None]
        return match_aligned(
            query_frames, windows[0], database_frames, windows[1], k, metric=metric, block=block, progress=progress
        )
    if metric == "cosine":
        query_vectors, vectors = unit(query_vectors), unit(vectors)
    distances, rows = nearest_rows(query_vectors, vectors, min(k, len(vectors)), engine="cpu")
    if progress is not None:
        progress(len(queries))
    if metric == "cosine":
        distances = np.asarray(np.square(distances) / 2, np.float32)  # of unit vectors |a - b|² = 2 - 2 cos(a, b)
    return distances, rows


def match_aligned(
    query_frames: Float32Array,
    query_windows: IntArray,
    database_frames: Float32Array,
    database_windows: IntArray,
    k: int,
    *,
    metric: Metric = "l1",
    block: int = BLOCK_VALUES,
    progress: Callable[[int], None] | None = None,
) -> tuple[Float32Array, IntArray]:
    """Find the k nearest database windows by the mean distance of the L frame pairs at equal places in the windows.

    Frame and window distances are computed for a block of queries at a time, never as one whole matrix.

    Args:
        query_frames: Descriptors (fq, p) float32, each distinct frame once.
        query_windows: Rows (nq, L) of `query_frames`.
        database_frames: Descriptors (fd, p) float32.
        database_windows: Rows (nd, L) of `database_frames`.
        k: Neighbours of each query, cut to nd.
        metric: How two frames are compared.
        block: Values of the distance matrix in memory at once.
        progress: Called with the number of queries finished.

    Returns:
        Distances (nq, k) float32, nearest first with ties by row, and rows (nq, k) of the database windows.

    Raises:
        ContractError: If shapes do not fit, or k < 1.
    """
    check_windows(query_frames, query_windows, database_frames, database_windows, k)
    k = min(k, len(database_windows))
    distances = np.empty((len(query_windows), k), np.float32)
    rows = np.empty((len(query_windows), k), np.int64)
    used, columns = np.unique(database_windows, return_inverse=True)
    columns = columns.reshape(database_windows.shape)
    database = database_frames[used]
    for part in window_blocks(query_windows, max(len(used), len(database_windows)), block):
        # Windows overlap: each distinct frame is compared once, and its distances are added up along the diagonals.
        frames, lines = np.unique(query_windows[part], return_inverse=True)
        matrix = frame_distances(query_frames[frames], database, metric)
        means = _diagonal_means(matrix, lines.reshape(query_windows[part].shape), columns)
        distances[part], rows[part] = smallest(means, k)
        if progress is not None:
            progress(part.stop)
    return distances, rows


def frame_distances(query_frames: Float32Array, database_frames: Float32Array, metric: Metric = "l1") -> Float32Array:
    """Compute the distances (q, d) float32 of frame descriptors (q, p) and (d, p), every frame to every frame.

    Convention: see `Metric`. A descriptor of zeros has cosine 0 to everything.
    """
    queries = np.ascontiguousarray(query_frames, dtype=np.float32)
    database = np.ascontiguousarray(database_frames, dtype=np.float32)
    if metric == "l1":
        import faiss  # heavy: half a second, needed by no reader of stored results

        sums: Float32Array = faiss.pairwise_distances(queries, database, metric=faiss.METRIC_L1)
        sums /= queries.shape[1]
        return sums
    if metric == "l2":
        largest = max(np.abs(queries).max(initial=0), np.abs(database).max(initial=0))
        # Squares beyond 1e-30 … 1e30 would leave float32's range in a sum.
        scale = largest if largest > 0 and not 1e-15 < largest < 1e15 else np.float32(1)
        return np.sqrt(_squared_distances(queries / scale, database / scale)) * scale
    queries, database = unit(queries), unit(database)
    distances = _squared_distances(queries, database) / np.float32(2)
    distances[~queries.any(axis=1)] = 1
    distances[:, ~database.any(axis=1)] = 1
    return distances


def _squared_distances(queries: Float32Array, database: Float32Array) -> Float32Array:
    """Squared L2 distances (q, d) by a matrix product, from differences where that would lose digits."""
    # Float32 subtraction of two near numbers is exact, so a common offset costs no digits once it is taken away.
    origin = database[:1]
    queries, database = queries - origin, database - origin
    query_squares, squares = (np.einsum("np,np->n", side, side) for side in (queries, database))
    norms = query_squares[:, None] + squares
    result: Float32Array = norms - 2 * (queries @ database.T)
    lines, rows = np.nonzero(result < NEAR_SHARE * norms)
    result[lines, rows] = np.square(distances_between(queries, lines, database, rows))
    return result


def smallest(values: Float32Array, k: int) -> tuple[Float32Array, IntArray]:
    """Select the k least values of each line (n, m) in rising order, ties by column, and their columns (n, k).

    Example:
        >>> smallest(np.array([[3, 1, 1, 2]], np.float32), k=2)[1].tolist()
        [[1, 2]]
    """
    if k < values.shape[1]:
        # A partition alone would break ties at the k-th value by chance; a full sort of every line takes far longer.
        limit = np.partition(values, k - 1, axis=1)[:, k - 1 : k]
        columns = np.stack([_first_k(line, edge, k) for line, edge in zip(values, limit[:, 0], strict=True)])
    else:
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    least = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(least, axis=1, kind="stable")
    return np.take_along_axis(least, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _first_k(line: Float32Array, edge: np.float32, k: int) -> IntArray:
    """Columns, rising, of the k least values; of those equal to the k-th least, the first columns."""
    below = np.flatnonzero(line < edge)
    level = np.flatnonzero(line == edge)[: k - len(below)]
    return np.sort(np.concatenate([below, level]))


def _diagonal_means(matrix: Float32Array, lines: IntArray, columns: IntArray) -> Float32Array:
    """Mean over l of matrix[lines[:, l], columns[:, l]] for every pair of windows: (q, d) float32."""
    # One gathered matrix a position, added up in place: the (q, d, L) array would be L times as large.
    total = matrix[np.ix_(lines[:, 0], columns[:, 0])]
    for position in range(1, lines.shape[1]):
        total += matrix[np.ix_(lines[:, position], columns[:, position])]
    total /= lines.shape[1]
    return total


def window_blocks(windows: IntArray, width: int, block: int) -> Iterator[slice]:
    """Yield runs of query windows whose distinct frames, times `width`, stay near `block` values (one at least)."""
    # n overlapping windows in a row use n + L - 1 distinct frames.
    step = max(1, block // max(width, 1) - windows.shape[1] + 1)
    for start in range(0, len(windows), step):
        yield slice(start, min(start + step, len(windows)))


def check_windows(
    query_frames: Float32Array,
    query_windows: IntArray,
    database_frames: Float32Array,
    database_windows: IntArray,
    k: int,
) -> None:
    """Raise ContractError for frames and windows that cannot be matched; arguments as of `match_aligned`."""
    if query_frames.ndim != 2 or database_frames.ndim != 2 or query_frames.shape[1] != database_frames.shape[1]:
        raise ContractError(f"frames of shape {query_frames.shape} and {database_frames.shape} cannot be matched")
    if query_windows.shape[1:] != database_windows.shape[1:] or query_windows.ndim != 2:
        raise ContractError(f"windows of shape {query_windows.shape} and {database_windows.shape} differ in length")
    if k < 1 or len(database_windows) == 0:
        raise ContractError("matching needs k >= 1 and at least one database window")
