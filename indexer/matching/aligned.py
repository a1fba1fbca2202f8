"""Sequences matched frame by frame: the mean distance of frame descriptors along the aligned diagonal.

Source: SeqSLAM's difference matrix without contrast enhancement or search over velocities
(`indexer.matching.seqslam` has
both); the aligned diagonal is the form in which P1 and P2 run sequence matching. With metric l2 over a trained
projection's frame vectors it is SeqMatchNet's distance.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from indexer.arrays import unit
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

Metric = Literal["l1", "l2", "cosine"]
"""Distance of two frame descriptors: mean absolute difference a value, plain L2, or 1 minus the cosine."""
METRICS: tuple[Metric, ...] = ("l1", "l2", "cosine")

FrameReader = Callable[[IntArray], npt.NDArray[np.floating]]
"""Frame descriptors (n, p) of frame rows (n,), in this order."""

BLOCK_VALUES = 1 << 25  # float32 values of one block of the distance matrix: 128 MiB


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
    """The k nearest database windows by their centre frames alone; parameters and returns as `match_aligned`.

    Convention: the centre of L frames is index (L - 1) // 2.
    """
    queries, database = _centre(query_windows), _centre(database_windows)
    return match_aligned(
        query_frames, queries, database_frames, database, k, metric=metric, block=block, progress=progress
    )


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
    """The k nearest database windows by the mean distance of the L frame pairs at equal places in the windows.

    `query_frames` (fq, p) and `database_frames` (fd, p) float32 hold each distinct frame once;
    `query_windows` (nq, L) and `database_windows` (nd, L) int64 are rows of them. Returns distances (nq, k)
    float32 (mean over the pairs, by `metric`), nearest first with ties by row, and rows (nq, k) int64 of the
    database windows; k is cut to nd. Frame and window distances are held for a block of queries at a time,
    about `block` float32 values each, never the whole matrix. `progress` is called with the number of
    queries done.

    Raises: ContractError on shapes that do not fit, or k < 1.
    """
    check_windows(query_frames, query_windows, database_frames, database_windows, k)
    k = min(k, len(database_windows))
    distances = np.empty((len(query_windows), k), np.float32)
    rows = np.empty((len(query_windows), k), np.int64)
    used, columns = np.unique(database_windows, return_inverse=True)
    columns = columns.reshape(database_windows.shape)
    database = database_frames[used]
    for part in window_blocks(query_windows, max(len(used), len(database_windows)), block):
        frames, lines = np.unique(query_windows[part], return_inverse=True)
        apart = frame_distances(query_frames[frames], database, metric)
        means = _diagonals(apart, lines.reshape(query_windows[part].shape), columns)
        distances[part], rows[part] = smallest(means, k)
        if progress is not None:
            progress(part.stop)
    return distances, rows


def frame_distances(query_frames: Float32Array, database_frames: Float32Array, metric: Metric = "l1") -> Float32Array:
    """Distances (q, d) float32 of frame descriptors (q, p) and (d, p), every frame to every frame.

    Convention: see `Metric`. l2 and cosine are matrix products in float32, which lose digits near zero. A descriptor of
    zeros has cosine 0 to everything.
    """
    import faiss

    queries = np.ascontiguousarray(query_frames, dtype=np.float32)
    database = np.ascontiguousarray(database_frames, dtype=np.float32)
    if metric == "cosine":
        return np.asarray(1 - unit(queries) @ unit(database).T, np.float32)
    kind = faiss.METRIC_L1 if metric == "l1" else faiss.METRIC_L2
    apart: Float32Array = faiss.pairwise_distances(queries, database, metric=kind)
    if metric == "l1":
        apart /= queries.shape[1]
        return apart
    root: Float32Array = np.sqrt(np.maximum(apart, 0, out=apart), out=apart)
    return root


def smallest(values: Float32Array, k: int) -> tuple[Float32Array, IntArray]:
    """The k least values of each line (n, m) in rising order, ties by column, and their columns (n, k)."""
    if k < values.shape[1]:
        limit = np.partition(values, k - 1, axis=1)[:, k - 1 : k]
        columns = np.stack([_first_k(line, edge, k) for line, edge in zip(values, limit[:, 0], strict=True)])
    else:
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    chosen = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(chosen, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _first_k(line: Float32Array, edge: np.float32, k: int) -> IntArray:
    """Columns, rising, of the k least values; of those equal to the k-th least, the first columns."""
    below = np.flatnonzero(line < edge)
    level = np.flatnonzero(line == edge)[: k - len(below)]
    return np.sort(np.concatenate([below, level]))


def _diagonals(apart: Float32Array, lines: IntArray, columns: IntArray) -> Float32Array:
    """Mean over l of apart[lines[:, l], columns[:, l]] for every pair of windows: (q, d) float32."""
    total = apart[np.ix_(lines[:, 0], columns[:, 0])]
    for place in range(1, lines.shape[1]):
        total += apart[np.ix_(lines[:, place], columns[:, place])]
    total /= lines.shape[1]
    return total


def window_blocks(windows: IntArray, width: int, block: int) -> Iterator[slice]:
    """Runs of query windows whose distinct frames, times `width`, stay near `block` values (one window at least)."""
    step = max(1, block // max(width, 1) - windows.shape[1] + 1)
    for start in range(0, len(windows), step):
        yield slice(start, min(start + step, len(windows)))


def _centre(windows: IntArray) -> IntArray:
    return windows[:, [(windows.shape[1] - 1) // 2]]


def check_windows(
    query_frames: Float32Array,
    query_windows: IntArray,
    database_frames: Float32Array,
    database_windows: IntArray,
    k: int,
) -> None:
    """Raise ContractError for frames and windows that cannot be matched; parameters as `match_aligned`."""
    if query_frames.ndim != 2 or database_frames.ndim != 2 or query_frames.shape[1] != database_frames.shape[1]:
        raise ContractError(f"frames of shape {query_frames.shape} and {database_frames.shape} cannot be matched")
    if query_windows.shape[1:] != database_windows.shape[1:] or query_windows.ndim != 2:
        raise ContractError(f"windows of shape {query_windows.shape} and {database_windows.shape} differ in length")
    if k < 1 or len(database_windows) == 0:
        raise ContractError("matching needs k >= 1 and at least one database window")
