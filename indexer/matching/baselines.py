"""Frame-level baselines: matching of thumbnails, or of any frame descriptors, without a sequence model."""

from typing import Literal

import numpy as np
import polars as pl

from indexer.evaluation.predictions import PredictionsInfo, search_pools
from indexer.evaluation.scoring import KEEP, make_info
from indexer.matching.aligned import METRIC_NAMES, Metric, match_aligned, match_single
from indexer.matching.delta import deltas
from indexer.matching.frame_vectors import FrameVectors, ThumbnailReader, read_once
from indexer.matching.seqslam import match_seqslam
from indexer.search.exact import nearest_rows
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress

Method = Literal["frame", "aligned", "seqslam", "delta"]
METHODS: dict[Method, str] = {
    "frame": "frame matching ({}, centre frame)",
    "aligned": "aligned frame matching ({}, mean over the window)",
    "seqslam": "SeqSLAM ({})",
    "delta": "Delta descriptors ({}, cosine)",
}
SOFTENING: dict[Method, float] = {"seqslam": 0.0}
"""Thumbnails of SeqSLAM are its own plain z-score; the others have `indexer.matching.thumbnails`' default."""


def match_frames(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    method: Method,
    progress: Progress | None = None,
    *,
    vectors: FrameVectors | None = None,
    metric: Metric | None = None,
    softening: float | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Predict a split's queries by matching frames.

    `frame` compares the windows' centre frames, `aligned` the mean over their L frames in order, `seqslam` the best
    line through both centres after contrast enhancement, `delta` the windows' Delta descriptors. Each distinct frame is
    read once, and all stay in memory as float32.

    Args:
        dataset: The dataset.
        protocol: Cuts the windows.
        split: Split of the protocol.
        method: How windows are compared.
        progress: Called with (frames read, frames in all).
        vectors: Frame descriptors; None for 64×32 grey thumbnails whose 8×8 patches are normalised.
        metric: How frames are compared; None for l1 of thumbnails, cosine of `vectors`.
        softening: Grey levels added to a patch's deviation; None for the method's own (see `SOFTENING`).

    Returns:
        Table contract `predictions` and what it answers.

    Raises:
        NotEnoughDataError: If the split has no query or no database window.
        ContractError: If windows of one frame cannot be matched so.
    """
    queries = dataset.sequences(protocol, split, "query")
    database = dataset.sequences(protocol, split, "database")
    if not queries.height or not database.height:
        raise NotEnoughDataError(
            f"protocol {protocol.name}, split {split}: {database.height} database and {queries.height} query windows "
            "in this dataset; both are needed"
        )
    # Windows overlap, and one drive may play both roles: each frame is read once.
    frames, windows = np.unique(
        np.concatenate([dataset.frame_rows(queries), dataset.frame_rows(database)]), return_inverse=True
    )
    grey_levels = SOFTENING.get(method) if softening is None else softening
    reader = ThumbnailReader(dataset, frames, grey_levels) if vectors is None else vectors.read
    pictures = read_once(reader, frames, progress)(frames)
    query_windows, database_windows = np.split(windows.reshape(-1, protocol.length), [queries.height])
    frame_metric: Metric = metric or ("l1" if vectors is None else "cosine")

    def search(query_rows: IntArray, rows: IntArray) -> tuple[Float32Array, IntArray]:
        k = min(KEEP, len(rows))
        distances, nearest = _match(
            method, pictures, query_windows[query_rows], database_windows[rows], k, frame_metric
        )
        return distances, rows[nearest]

    table = search_pools(protocol.pool, queries, database, search)
    name = method_name(method, frame_metric, vectors, softening)
    return table, make_info(dataset, protocol, split, queries, database, method=name)


def method_name(method: Method, metric: Metric, vectors: FrameVectors | None, softening: float | None = None) -> str:
    """Name a frame baseline for a table.

    Example:
        >>> method_name("aligned", "l1", None)
        'aligned frame matching (SAD, mean over the window)'
    """
    source = "" if vectors is None else vectors.name
    measure = "" if method == "delta" else METRIC_NAMES[metric]
    soft = "" if softening is None or vectors is not None else f"softening {softening:g}"
    text = ", ".join(part for part in (source, measure, soft) if part) or "thumbnails"
    return METHODS[method].format(text)


def _match(
    method: Method, pictures: Float32Array, queries: IntArray, database: IntArray, k: int, metric: Metric
) -> tuple[Float32Array, IntArray]:
    """Distances and rows (q, k) of the nearest windows (d, L) of windows (q, L), by rows of frame descriptors."""
    # A Delta descriptor is one vector a window: no matching along frames, but the one exact search.
    if method == "delta":
        return nearest_rows(deltas(pictures, queries), deltas(pictures, database), k, engine="cpu")
    match = {"frame": match_single, "aligned": match_aligned, "seqslam": match_seqslam}[method]
    return match(pictures, queries, pictures, database, k, metric=metric)
