"""From an index and its run to predictions: describe the protocol's queries and search them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer import predictions
from indexer.predictions import PredictionsInfo
from indexer.reading import PlaceIndex
from indexer.scoring import KEEP, make_info, table_key
from seqdata.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.protocols import Protocol
from train.checkpoint import load_model
from train.describing import describe
from train.index_stage import checkpoint_hash, run_record


def answer(
    dataset: Dataset,
    index: PlaceIndex,
    run: Path,
    protocol: Protocol,
    *,
    device: str = "auto",
    model_from: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """The nearest database windows of every query of the index's split under a protocol.

    `model_from`: see `train.checkpoint.load_model`.
    Raises: ContractError when index, run and dataset do not belong together or the protocol cuts other windows,
    NotEnoughDataError when the split has no query.
    """
    split = str(index.manifest.inputs["split"])
    check_belongs(index, run, dataset)
    queries = dataset.sequences(protocol, split, "query")
    database = dataset.sequences(protocol, split, "database")
    if table_key(database) != index.manifest.inputs["windows"]:
        raise ContractError(
            f"protocol {protocol.name} cuts other database windows than the index {index.id} holds; "
            f"build an index under it: seqdata index --protocol {protocol.name}"
        )
    if not queries.height:
        raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no query window in this dataset")
    vectors = describe(load_model(run, model_from), dataset, queries, device=device, progress=progress)

    def search(
        query_rows: npt.NDArray[np.int64], database_rows: npt.NDArray[np.int64]
    ) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        among = None if len(database_rows) == len(index) else database_rows
        return index.search(vectors[query_rows], min(KEEP, len(database_rows)), among)

    if protocol.pool == "each":
        table = predictions.by_city(queries["city"].to_list(), database["city"].to_list(), search)
    else:
        table = predictions.table(*search(np.arange(queries.height), np.arange(database.height)))
    info = make_info(
        dataset,
        protocol,
        split,
        queries,
        database,
        method=method_name(index, run),
        index=index.id,
        size=index.manifest.size,
    )
    return table, info


def check_belongs(index: PlaceIndex, run: Path, dataset: Dataset | None = None) -> None:
    """Raise ContractError when the index was built from another checkpoint or another dataset."""
    if checkpoint_hash(run) != index.manifest.inputs["checkpoint"]:
        raise ContractError(f"{run}: the index {index.id} was built from another checkpoint; name its run with --run")
    if dataset is not None and dataset.id != index.manifest.inputs["dataset"]:
        raise ContractError(
            f"{dataset.location}: the index {index.id} was built from another dataset "
            f"({index.manifest.inputs['dataset'][:12]}); name it with --dataset"
        )


def method_name(index: PlaceIndex, run: Path) -> str:
    """What a table calls these predictions: model, whether it was trained here, PCA size."""
    settings = run_record(run)["settings"]
    state = "" if settings["epochs"] else " (untrained)" if settings["weights"] == "random" else " (as pretrained)"
    pca = index.manifest.inputs["pca"]
    return f"{settings['model']}{state}" + (f" + PCA {pca['dimensions']}" if pca else "")
