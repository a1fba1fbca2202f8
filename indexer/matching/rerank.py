"""Re-ranking a shortlist: the first K predictions of each query, put in order by matching their frames one by one.

Source: HVPR (hierarchical place recognition): a sequence descriptor's shortlist of 20, re-ranked by the mean distance
of aligned frame descriptors.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from indexer.arrays import unit
from indexer.evaluation.prediction_sets import PredictionSet
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.evaluation.truth import common_depth, pools_of, windows_of
from indexer.matching.aligned import FrameReader, Metric
from indexer.matching.frame_vectors import FrameVectors, ThumbnailReader, held
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress

BLOCK_VALUES = 1 << 24  # values of the frame descriptors held for one block of pairs: 64 MiB


def rerank(
    predictions: pl.DataFrame,
    query_windows: IntArray,
    database_windows: IntArray,
    read: FrameReader,
    k: int,
    *,
    metric: Metric = "l1",
    block: int = BLOCK_VALUES,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Predictions whose first `k` of each query are ordered by aligned frame distance; the others follow as they were.

    `query_windows` (nq, L) and `database_windows` (nd, L) are frame rows, `read` gives those frames' descriptors and is
    asked for each distinct frame of a block once. Distances become the matcher's; ranks after `k` were not matched and
    get inf. Equal distances keep their former order. `progress(done, total)` counts pairs.

    Raises: ContractError when k < 1.
    """
    if k < 1:
        raise ContractError(f"re-ranking {k} places: at least one is needed")
    top = predictions.filter(pl.col("rank") <= k)
    queries, database = top["query"].to_numpy(), top["database"].to_numpy()
    apart = np.empty(top.height, np.float32)
    step = _pairs_a_block(query_windows, read, block) if top.height else 1
    for start in range(0, top.height, step):
        part = slice(start, min(start + step, top.height))
        apart[part] = _aligned(query_windows[queries[part]], database_windows[database[part]], read, metric)
        if progress is not None:
            progress(part.stop, top.height)
    matched = top.with_columns(pl.Series("distance", apart)).sort("query", "distance", "rank", maintain_order=True)
    matched = matched.with_columns(pl.int_range(1, pl.len() + 1).over("query").cast(pl.Int16).alias("rank"))
    rest = predictions.filter(pl.col("rank") > k).with_columns(pl.lit(np.inf, pl.Float32).alias("distance"))
    return pl.concat([matched, rest]).sort("query", "rank")


def pair_distances(left: Float32Array, right: Float32Array, metric: Metric) -> Float32Array:
    """Distances (n,) float32 of frame descriptors (n, p), row to row; see `indexer.matching.aligned.Metric`."""
    if metric == "cosine":
        return np.asarray(1 - np.einsum("np,np->n", unit(left), unit(right)), np.float32)
    gap = left - right
    if metric == "l1":
        return np.asarray(np.abs(gap).mean(axis=1), np.float32)
    return np.asarray(np.sqrt(np.einsum("np,np->n", gap, gap)), np.float32)


def _pairs_a_block(windows: IntArray, read: FrameReader, block: int) -> int:
    """How many pairs to match at once: both windows' frames, and what comparing them takes, stay near `block`."""
    size = int(read(windows[0, :1]).shape[1])
    return max(1, block // (2 * size * (int(windows.shape[1]) + 1)))


def _aligned(queries: IntArray, database: IntArray, read: FrameReader, metric: Metric) -> Float32Array:
    """Mean distance (m,) of the aligned frames of windows (m, L) and (m, L)."""
    rows, back = np.unique(np.concatenate([queries, database]), return_inverse=True)
    frames = np.asarray(read(rows), np.float32)
    left, right = np.split(back.reshape(-1, queries.shape[1]), 2)
    places = range(queries.shape[1])
    total = sum(pair_distances(frames[left[:, at]], frames[right[:, at]], metric) for at in places)
    return np.asarray(total, np.float32) / np.float32(len(places))


NAMES: dict[Metric, str] = {"l1": "SAD", "l2": "L2", "cosine": "cosine"}


def rerank_frames(
    dataset: Dataset,
    protocol: Protocol,
    predictions: pl.DataFrame,
    info: PredictionsInfo,
    k: int,
    *,
    vectors: FrameVectors | None = None,
    metric: Metric | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """The first `k` predictions of each query in the order of their aligned frame distance; see
    `indexer.matching.rerank`.

    Frames are thumbnails compared by l1, or `vectors` by cosine, unless `metric` is named; each distinct frame of the
    shortlists is read once and held, as float32. Windows that share a frame with the query are left out first, and
    ranks beyond those that every query then has (see `indexer.evaluation.scoring.common_depth`).
    `progress(done, total)` counts frames. Raises: ContractError when the predictions answer other windows, or k < 1.
    """
    sides = windows_of(dataset, protocol, info)
    queries, database = (dataset.frame_rows(side) for side in sides)
    shared = shared_pairs(queries, database)
    depth = common_depth(predictions, shared, pools_of(protocol, *sides))
    table = without_pairs(predictions, shared).filter(pl.col("rank") <= depth)
    top = table.filter(pl.col("rank") <= k)
    used = [queries[top["query"].to_numpy()].ravel(), database[top["database"].to_numpy()].ravel()]
    frames = np.unique(np.concatenate(used))
    reader = ThumbnailReader(dataset, frames) if vectors is None else vectors.read
    chosen: Metric = metric or ("l1" if vectors is None else "cosine")
    result = rerank(table, queries, database, held(reader, frames, progress), k, metric=chosen)
    what = "thumbnails" if vectors is None else vectors.name
    method = f"{info.method}, first {k} re-ranked ({what}, {NAMES[chosen]})"
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
