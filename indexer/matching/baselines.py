"""Frame-level baselines: matching of thumbnails, or of any frame descriptors, without a sequence model."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation import predictions
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.scoring import KEEP, make_info
from indexer.matching.aligned import Metric, match_aligned, match_single
from indexer.matching.delta import deltas
from indexer.matching.frame_vectors import FrameVectors, ThumbnailReader, held
from indexer.matching.seqslam import match_seqslam
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.geometry import Float32Array, IntArray

Method = Literal["frame", "aligned", "seqslam", "delta"]
METHODS: dict[Method, str] = {
    "frame": "frame matching ({}, centre frame)",
    "aligned": "aligned frame matching ({}, mean over the window)",
    "seqslam": "SeqSLAM ({})",
    "delta": "Delta descriptors ({}, cosine)",
}
SHORT: dict[Metric, str] = {"l1": "SAD", "l2": "L2", "cosine": "cosine"}
SOFTENING: dict[Method, float] = {"seqslam": 0.0}
"""Thumbnails of SeqSLAM are its own plain z-score; the others have `indexer.matching.thumbnails`' default."""


def match_frames(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    method: Method,
    progress: Callable[[int, int], None] | None = None,
    *,
    vectors: FrameVectors | None = None,
    metric: Metric | None = None,
    softening: float | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Predictions of the split's queries by matching frames.

    `frame` compares the windows' centre frames, `aligned` the mean over their L frames in order, `seqslam` the best
    line through both centres after contrast enhancement, `delta` the windows' Delta descriptors. Frames are 64×32 grey
    thumbnails, every 8×8 patch normalised with `softening` (default: as `SOFTENING` says), compared by l1; or
    `vectors`, by cosine. Another `metric` may be named. Each distinct frame is read once and all are held, as float32.
    `progress(done, total)` counts frames.
    Raises: NotEnoughDataError when the split has no query or no database window, ContractError where windows of one
    frame cannot be matched so.
    """
    queries = dataset.sequences(protocol, split, "query")
    database = dataset.sequences(protocol, split, "database")
    if not queries.height or not database.height:
        raise NotEnoughDataError(
            f"protocol {protocol.name}, split {split}: {database.height} database and {queries.height} query windows "
            "in this dataset; both are needed"
        )
    frames, windows = np.unique(
        np.concatenate([dataset.frame_rows(queries), dataset.frame_rows(database)]), return_inverse=True
    )
    grey = SOFTENING.get(method) if softening is None else softening
    reader = ThumbnailReader(dataset, frames, grey) if vectors is None else vectors.read
    pictures = held(reader, frames, progress)(frames)
    of_queries, of_database = np.split(windows.reshape(-1, protocol.length), [queries.height])
    chosen: Metric = metric or ("l1" if vectors is None else "cosine")

    def search(query_rows: IntArray, database_rows: IntArray) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        keep = min(KEEP, len(database_rows))
        apart, found = _match(method, pictures, of_queries[query_rows], of_database[database_rows], keep, chosen)
        return apart, database_rows[found]

    if protocol.pool == "each":
        table = predictions.by_city(queries["city"].to_list(), database["city"].to_list(), search)
    else:
        table = predictions.table(*search(np.arange(queries.height), np.arange(database.height)))
    name = method_name(method, chosen, vectors, softening)
    return table, make_info(dataset, protocol, split, queries, database, method=name)


def method_name(method: Method, metric: Metric, vectors: FrameVectors | None, softening: float | None = None) -> str:
    """What a table calls a frame baseline."""
    what = "" if vectors is None else vectors.name
    measure = "" if method == "delta" else SHORT[metric]
    soft = "" if softening is None or vectors is not None else f"softening {softening:g}"
    text = ", ".join(part for part in (what, measure, soft) if part) or "thumbnails"
    return METHODS[method].format(text)


def _match(
    method: Method, pictures: Float32Array, queries: IntArray, database: IntArray, k: int, metric: Metric
) -> tuple[Float32Array, IntArray]:
    if method == "delta":
        # One vector a window: matching windows of one frame by L2 ranks unit vectors as their cosine does.
        vectors = np.concatenate([deltas(pictures, queries), deltas(pictures, database)])
        rows = np.arange(len(vectors))[:, None]
        return match_aligned(vectors, rows[: len(queries)], vectors, rows[len(queries) :], k, metric="l2")
    match = {"frame": match_single, "aligned": match_aligned, "seqslam": match_seqslam}[method]
    return match(pictures, queries, pictures, database, k, metric=metric)
