"""A reject threshold for an index: the queries of a split are searched, and their truth says what is near enough."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

import indexer
from indexer.evaluation import predictions
from indexer.evaluation.shared_frames import most_shared, shared_pairs, without_pairs
from indexer.evaluation.truth import table_key
from indexer.localizer.frame_form import index_protocol
from indexer.localizer.reject import Calibration, calibrate
from indexer.place_index import PlaceIndex
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.geometry import Float32Array
from train.data.describe import describe, describe_blocks
from train.data.frames import FrameSource
from train.models.base import SequenceModel

Progress = Callable[[str, int, int], None]
"""Called with (stage, windows done, windows in all)."""


def lacks(dataset: Dataset, protocol: Protocol, split: str) -> str | None:
    """What a split of this dataset lacks for a calibration, None for nothing."""
    query, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    for role, table in (("query", query), ("database", database)):
        if not table.height:
            return role
    found = _positives(dataset, protocol, split, _shared(dataset, query, database))
    return None if found.height else "query with a positive"


def calibrate_index(
    index: PlaceIndex,
    model: SequenceModel,
    dataset: Dataset,
    split: str,
    *,
    precision: float,
    source: FrameSource | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Calibration:
    """The threshold that reaches `precision` on the queries of a split, under the index's protocol.

    Queries are searched among the split's own database windows, transformed as the index does, exactly; where these are
    the index's own windows, in the index itself. So a kind that keeps only codes has distances unlike these.
    A query without a positive is wrong whenever it is accepted. Windows that share a frame with the query are neither
    found nor positives.
    Raises: NotEnoughDataError when no threshold is precise enough.
    """
    protocol = index_protocol(index)
    query, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    options = {"device": device, "source": source}
    vectors = describe(model, dataset, query, progress=_stage(progress, "describe queries"), **options)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="seqdata-") as made:
        searched = index
        if table_key(database) != index.manifest.inputs["windows"]:
            stage = _stage(progress, "describe database")
            blocks = describe_blocks(model, dataset, database, progress=stage, **options)  # type: ignore[arg-type]
            searched = _exact_index(Path(made) / "calibration", index, blocks, dataset.places(database))
        shared = _shared(dataset, query, database)
        nearest = _nearest(searched, vectors, protocol, query, database, shared)
    positives = _positives(dataset, protocol, split, shared)
    right = nearest.join(positives, on=["query", "database"], how="semi")["query"]
    return calibrate(
        nearest["distance"].to_numpy(),
        np.isin(nearest["query"].to_numpy(), right.to_numpy()),
        positives["query"].n_unique(),
        wanted=precision,
        protocol=protocol.label,
        split=split,
        dataset=dataset.id,
    )


def _exact_index(out: Path, index: PlaceIndex, blocks: Iterator[Float32Array], places: pl.DataFrame) -> PlaceIndex:
    """An exact index over other windows, with the transform and the normalisation of `index`."""
    inputs = {"calibration": index.id}
    normalise = index.manifest.normalised
    indexer.build(out, blocks=blocks, places=places, transform=index.transform, inputs=inputs, normalise=normalise)
    return indexer.open(out)


def _shared(dataset: Dataset, query: pl.DataFrame, database: pl.DataFrame) -> pl.DataFrame:
    return shared_pairs(dataset.frame_rows(query), dataset.frame_rows(database))


def _positives(dataset: Dataset, protocol: Protocol, split: str, shared: pl.DataFrame) -> pl.DataFrame:
    """Pairs (columns query, database) of a query and a positive that shares no frame with it."""
    return without_pairs(dataset.protocol_positives(protocol, split).select("query", "database"), shared)


def _nearest(
    index: PlaceIndex,
    vectors: Float32Array,
    protocol: Protocol,
    query: pl.DataFrame,
    database: pl.DataFrame,
    shared: pl.DataFrame,
) -> pl.DataFrame:
    """The nearest database window of every query, under the protocol's pool rule (contract `predictions`)."""
    k = 1 + most_shared(shared)

    def search(
        query_rows: npt.NDArray[np.int64], database_rows: npt.NDArray[np.int64]
    ) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        return index.search(vectors[query_rows], k, database_rows)

    if protocol.pool == "each":
        found = predictions.by_city(query["city"].to_list(), database["city"].to_list(), search)
    else:
        found = predictions.table(*index.search(vectors, k))
    return without_pairs(found, shared).filter(pl.col("rank") == 1)


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
