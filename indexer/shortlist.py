"""Re-ranking stored predictions of a dataset: the shortlist of any index or model, matched frame by frame."""

from collections.abc import Callable

import numpy as np
import polars as pl

from indexer.frame_vectors import FrameVectors, ThumbnailReader, held
from indexer.matching import Metric
from indexer.predictions import PredictionsInfo
from indexer.rerank import rerank
from indexer.scoring import common_depth, pools_of, windows_of
from indexer.sharing import shared_pairs, without_pairs
from seqdata.dataset import Dataset
from seqdata.protocols import Protocol

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
    """The first `k` predictions of each query in the order of their aligned frame distance; see `indexer.rerank`.

    Frames are thumbnails compared by l1, or `vectors` by cosine, unless `metric` is named; each distinct frame of the
    shortlists is read once and held, as float32. Windows that share a frame with the query are left out first, and
    ranks beyond those that every query then has (see `indexer.scoring.common_depth`).
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
