"""A reject threshold for an index: a split's queries are searched, and their truth says which answers are right."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import indexer
from indexer.evaluation.predictions import search_pools
from indexer.evaluation.shared_frames import most_shared, shared_pairs, without_pairs
from indexer.evaluation.truth import table_key
from indexer.localizer.frame_form import index_protocol
from indexer.localizer.reject import Calibration, calibrate
from indexer.place_index import PlaceIndex
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.geometry import BoolArray, Float32Array, Float64Array, IntArray
from seqdata.parallel import StageProgress, stage_progress
from train.data.describe import describe, describe_blocks
from train.data.describe_settings import DescribeSettings
from train.data.frames import FrameSource
from train.models.base import SequenceModel


def lacks(dataset: Dataset, protocol: Protocol, split: str) -> str | None:
    """Name what a split of this dataset lacks for a calibration, None for nothing."""
    queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    for role, table in (("query", queries), ("database", database)):
        if not table.height:
            return role
    positives = _positives(dataset, protocol, split, _shared(dataset, queries, database))
    return None if positives.height else "query with a positive"


@dataclass(frozen=True)
class Judgement:
    """Nearest places of a split's queries, judged by the ground truth.

    Attributes:
        distances: Distance of each query to its nearest window that shares no frame with it, (q,) float64.
        is_right: Whether that window is a positive, bool (q,).
        answerable: Queries that have a positive.
    """

    distances: Float64Array
    is_right: BoolArray
    answerable: int

    @property
    def recall(self) -> float:
        """R@1: right queries among the answerable ones."""
        return float(self.is_right.sum() / self.answerable)


def judge_index(
    index: PlaceIndex,
    model: SequenceModel,
    dataset: Dataset,
    split: str,
    *,
    source: FrameSource | None = None,
    query_source: FrameSource | None = None,
    device: str = "auto",
    progress: StageProgress | None = None,
) -> Judgement:
    """Search the queries of a split, under the index's protocol, and judge each nearest place.

    Queries are searched among the split's own database windows, transformed as the index does, exactly; where these are
    the index's own windows, in the index itself. So a kind that keeps only codes has distances unlike these.
    A query without a positive is wrong whenever it is accepted. Windows that share a frame with the query are neither
    answers nor positives.

    Args:
        index: The index whose answers are judged.
        model: The model that described it.
        dataset: Where the split's queries and database lie.
        split: Split of the index's protocol.
        source: Reads the database's frames; default: as the model was trained.
        query_source: Reads and encodes those of the queries; default: `source`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Called with (stage, windows finished, windows in all).
    """
    protocol = index_protocol(index)
    queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    stage = stage_progress(progress, "describe queries")
    # What programs encode lies on the CPU, whatever encodes the database.
    query_device = device if query_source is None else "cpu"
    # As the index's own vectors were: what a robot compares must be what the threshold was found on.
    precision = DescribeSettings().of_vectors(index.computed).precision
    vectors = describe(
        model,
        dataset,
        queries,
        progress=stage,
        device=query_device,
        source=query_source or source,
        precision=precision,
    )
    # Distances of an approximate index are those of its codes; the threshold needs those of vectors.
    with tempfile.TemporaryDirectory(prefix="seqdata-") as folder:
        searched = index
        if table_key(database) != index.manifest.inputs["windows"]:
            stage = stage_progress(progress, "describe database")
            blocks = describe_blocks(
                model, dataset, database, progress=stage, device=device, source=source, precision=precision
            )
            searched = _exact_index(Path(folder) / "calibration", index, blocks, dataset.places(database))
        shared = _shared(dataset, queries, database)
        nearest = _nearest(searched, vectors, protocol, queries, database, shared)
    positives = _positives(dataset, protocol, split, shared)
    right = nearest.join(positives, on=["query", "database"], how="semi")["query"]
    return Judgement(
        nearest["distance"].to_numpy().astype(np.float64),
        np.isin(nearest["query"].to_numpy(), right.to_numpy()),
        positives["query"].n_unique(),
    )


def threshold_of(judged: Judgement, index: PlaceIndex, dataset: Dataset, split: str, precision: float) -> Calibration:
    """Find the threshold of judged queries.

    Raises:
        NotEnoughDataError: If none is precise enough.
    """
    return calibrate(
        judged.distances,
        judged.is_right,
        judged.answerable,
        target_precision=precision,
        protocol=index_protocol(index).label,
        split=split,
        dataset=dataset.id,
    )


def _exact_index(out: Path, index: PlaceIndex, blocks: Iterator[Float32Array], places: pl.DataFrame) -> PlaceIndex:
    """An exact index over other windows, with the transform and the normalisation of `index`."""
    inputs = {"calibration": index.id}
    normalise = index.manifest.normalised
    indexer.build(out, blocks=blocks, places=places, transform=index.transform, inputs=inputs, normalise=normalise)
    return indexer.open(out)


def _shared(dataset: Dataset, queries: pl.DataFrame, database: pl.DataFrame) -> pl.DataFrame:
    return shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(database))


def _positives(dataset: Dataset, protocol: Protocol, split: str, shared: pl.DataFrame) -> pl.DataFrame:
    """Pairs (columns query, database) of a query and a positive that shares no frame with it."""
    return without_pairs(dataset.protocol_positives(protocol, split).select("query", "database"), shared)


def _nearest(
    index: PlaceIndex,
    vectors: Float32Array,
    protocol: Protocol,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    shared: pl.DataFrame,
) -> pl.DataFrame:
    """The nearest database window of every query (contract `predictions`) that shares no frame with it."""
    # As many windows more as may be the query's own: the nearest that remains is then never missing.
    k = 1 + most_shared(shared)

    def search(query_rows: IntArray, rows: IntArray) -> tuple[Float32Array, IntArray]:
        return index.search(vectors[query_rows], k, None if len(rows) == len(index) else rows)

    table = search_pools(protocol.pool, queries, database, search)
    return without_pairs(table, shared).filter(pl.col("rank") == 1)
