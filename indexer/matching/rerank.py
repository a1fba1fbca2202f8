"""The first places of a shortlist in the order of their aligned frame distance.

With SeqNet's descriptors as the shortlist and its single-frame vectors as frame descriptors this is the hierarchical
search HVPR (docs/methods.md#hvpr).
"""

from dataclasses import replace

import numpy as np
import polars as pl

from indexer.arrays import unit
from indexer.evaluation.prediction_sets import PredictionSet
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.evaluation.truth import common_depth, pools_of, windows_of
from indexer.matching.aligned import METRIC_NAMES, FrameReader, Metric
from indexer.matching.frame_vectors import FrameVectors, ThumbnailReader, read_once
from indexer.search.exact import distances_between
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress

BLOCK_VALUES = 1 << 24  # values of the frame descriptors of one block of pairs: 64 MiB


def rerank(
    predictions: pl.DataFrame,
    query_windows: IntArray,
    database_windows: IntArray,
    read: FrameReader,
    k: int,
    *,
    metric: Metric = "l1",
    block: int = BLOCK_VALUES,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Order the first `k` predictions of each query by aligned frame distance; the others follow as they were.

    Equal distances keep their former order. Distances become the matcher's; ranks after `k` were not matched and get
    infinity.

    Args:
        predictions: Table contract `predictions`.
        query_windows: Frame rows (nq, L).
        database_windows: Frame rows (nd, L).
        read: Reads frame descriptors; called once for the distinct frames of a block.
        k: Places of each query to order.
        metric: How two frames are compared.
        block: Values of frame descriptors in memory at once.
        progress: Called with (pairs compared, pairs in all).

    Returns:
        Table contract `predictions`.

    Raises:
        ContractError: If k < 1.
    """
    if k < 1:
        raise ContractError(f"re-ranking {k} places: at least one is needed")
    top = predictions.filter(pl.col("rank") <= k)
    queries, database = top["query"].to_numpy(), top["database"].to_numpy()
    distances = np.empty(top.height, np.float32)
    # Queries of a block follow each other in the track, so their windows share most of the frames that are read.
    step = _pairs_a_block(query_windows, read, block) if top.height else 1
    for start in range(0, top.height, step):
        part = slice(start, min(start + step, top.height))
        distances[part] = _aligned(query_windows[queries[part]], database_windows[database[part]], read, metric)
        if progress is not None:
            progress(part.stop, top.height)
    # Sorted by the former rank within equal distances, so that a tie changes nothing.
    matched = top.with_columns(pl.Series("distance", distances)).sort("query", "distance", "rank", maintain_order=True)
    matched = matched.with_columns(pl.int_range(1, pl.len() + 1).over("query").cast(pl.Int16).alias("rank"))
    rest = predictions.filter(pl.col("rank") > k).with_columns(pl.lit(np.inf, pl.Float32).alias("distance"))
    return pl.concat([matched, rest]).sort("query", "rank")


def pair_distances(left: Float32Array, right: Float32Array, metric: Metric) -> Float32Array:
    """Compute distances (n,) float32 of frame descriptors (n, p), row to row; see `indexer.matching.aligned.Metric`."""
    if metric == "l1":
        return np.asarray(np.abs(left - right).mean(axis=1), np.float32)
    rows = np.arange(len(left))
    if metric == "l2":
        return distances_between(left, rows, right, rows)
    left, right = unit(left), unit(right)
    # Half the squared distance of unit vectors is 1 - cosine, without the digits that 1 - x loses near 1.
    distances = np.square(distances_between(left, rows, right, rows)) / np.float32(2)
    return np.where(left.any(axis=1) & right.any(axis=1), distances, np.float32(1))


def _pairs_a_block(windows: IntArray, read: FrameReader, block: int) -> int:
    """How many pairs to match at once: both windows' frames, and what comparing them takes, stay near `block`."""
    size = int(read(windows[0, :1]).shape[1])
    return max(1, block // (2 * size * (int(windows.shape[1]) + 1)))


def _aligned(queries: IntArray, database: IntArray, read: FrameReader, metric: Metric) -> Float32Array:
    """Mean distance (m,) of the aligned frames of windows (m, L) and (m, L)."""
    rows, inverse = np.unique(np.concatenate([queries, database]), return_inverse=True)
    frames = np.asarray(read(rows), np.float32)
    left, right = np.split(inverse.reshape(-1, queries.shape[1]), 2)
    positions = range(queries.shape[1])
    total = sum(pair_distances(frames[left[:, at]], frames[right[:, at]], metric) for at in positions)
    return np.asarray(total, np.float32) / np.float32(len(positions))


def rerank_frames(
    dataset: Dataset,
    protocol: Protocol,
    predictions: pl.DataFrame,
    info: PredictionsInfo,
    k: int,
    *,
    vectors: FrameVectors | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Order the first `k` predictions of each query by the aligned distance of a dataset's frames (see `rerank`).

    Each distinct frame of the shortlists is read once and stays in memory as float32. Windows that share a frame with
    the query are left out first, and ranks beyond those that every query then has (see `truth.common_depth`).

    Args:
        dataset: The dataset.
        protocol: Cuts the windows.
        predictions: Table contract `predictions`.
        info: What the predictions answer.
        k: Places of each query to order.
        vectors: Frame descriptors; None for thumbnails.
        metric: How frames are compared; None for l1 of thumbnails, cosine of `vectors`.
        progress: Called with (frames read, frames in all).

    Returns:
        Table contract `predictions` and what it answers.

    Raises:
        ContractError: If the predictions answer other windows, or k < 1.
    """
    sides = windows_of(dataset, protocol, info)
    queries, database = (dataset.frame_rows(side) for side in sides)
    shared = shared_pairs(queries, database)
    depth = common_depth(predictions, shared, pools_of(protocol, *sides))
    table = without_pairs(predictions, shared).filter(pl.col("rank") <= depth)
    top = table.filter(pl.col("rank") <= k)
    # Only frames of a shortlist are read: a fraction of the split where k is small.
    used = [queries[top["query"].to_numpy()].ravel(), database[top["database"].to_numpy()].ravel()]
    frames = np.unique(np.concatenate(used))
    reader = ThumbnailReader(dataset, frames) if vectors is None else vectors.read
    frame_metric: Metric = metric or ("l1" if vectors is None else "cosine")
    result = rerank(table, queries, database, read_once(reader, frames, progress), k, metric=frame_metric)
    source = "thumbnails" if vectors is None else vectors.name
    method = f"{info.method}, first {k} re-ranked ({source}, {METRIC_NAMES[frame_metric]})"
    return result, info.model_copy(update={"method": method})


def rerank_set(
    predictions: PredictionSet,
    k: int,
    suffix: str,
    *,
    vectors: FrameVectors | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> PredictionSet:
    """Re-rank the first `k` of a set (see `rerank_frames`); the result is stored in a file of its own beside the set's.

    Args:
        predictions: The set; it stays as it is.
        k: Places of each query that are re-ranked.
        suffix: End of the name of the new file.
        vectors: Frame descriptors; default: thumbnails.
        metric: How frames are compared; default: l1 for thumbnails, else cosine.
        progress: Called with frames read and frames in all.

    Raises:
        ContractError: If the set answers other windows, or k < 1.
    """
    table, info = rerank_frames(
        predictions.dataset,
        predictions.protocol,
        predictions.table,
        predictions.info,
        k,
        vectors=vectors,
        metric=metric,
        progress=progress,
    )
    plain = predictions.path
    path = None if plain is None else plain.with_name(f"{plain.stem}-{suffix}.parquet")
    return replace(predictions, table=table, info=info, path=path, is_stored=False)
