"""From an index and its run to predictions: describe the protocol's queries and search them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation import predictions
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.scoring import KEEP, make_info
from indexer.evaluation.truth import fits, table_key
from indexer.place_index import PlaceIndex
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from train.data.describe import describe
from train.runs.checkpoint import load_model
from train.runs.record import _tail, checkpoint_hash, predictions_path, run_record

Answer = tuple[pl.DataFrame, PredictionsInfo]
"""Predictions (table contract `predictions`) and what they answer."""


def answer(
    dataset: Dataset,
    index: PlaceIndex,
    run: Path,
    protocol: Protocol,
    *,
    sizes: Sequence[int] = (),
    device: str = "auto",
    model_from: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """The nearest database windows of every query of the index's split under a protocol, then by fewer dimensions.

    The first answer is by the whole index; for each of `sizes` follows one by that many first components of its PCA.
    `model_from`: see `train.runs.checkpoint.load_model`.
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
    name = method_name(index, run)
    info = make_info(dataset, protocol, split, queries, database, method=name, index=index.id, size=index.manifest.size)
    cities = (queries["city"].to_list(), database["city"].to_list()) if protocol.pool == "each" else None
    found = [(_nearest(index, vectors, cities, None), info)]
    for size in sizes:
        shorter = info.model_copy(update={"size": size, "method": f"{name}, first components"})
        found.append((_nearest(index, vectors, cities, size), shorter))
    return found


def stored_answer(
    dataset: Dataset, index: PlaceIndex, run: Path, protocol: Protocol, warn: Callable[[str], None]
) -> tuple[Answer, Path] | None:
    """What the index answered before, as an answer under `protocol`, and the file it is read from; None for nothing.

    Predictions made under another protocol do where that one cuts the same windows; re-ranked ones never do. `warn` is
    told of a damaged file. Raises: ContractError when index, run and dataset do not belong together.
    """
    check_belongs(index, run, dataset)
    own = predictions_path(run, index, protocol)
    others = sorted(path for path in own.parent.glob("*.parquet") if path.name.endswith(_tail(index)) and path != own)
    for path in [own, *others]:
        try:
            info = predictions.read_info(path) if path.is_file() else None
            if info is not None and info.index == index.id and fits(dataset, protocol, info):
                return (predictions.read(path)[0], info.under(protocol)), path
        except ContractError as error:
            warn(f"passing over damaged predictions: {error}")
    return None


def _nearest(
    index: PlaceIndex,
    vectors: npt.NDArray[np.float32],
    cities: tuple[list[str], list[str]] | None,
    components: int | None,
) -> pl.DataFrame:
    """Predictions of query descriptors (q, d); with `cities` of queries and database each city is searched alone."""

    def search(
        query_rows: npt.NDArray[np.int64], database_rows: npt.NDArray[np.int64]
    ) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        among = None if len(database_rows) == len(index) else database_rows
        return index.search(vectors[query_rows], min(KEEP, len(database_rows)), among, components)

    if cities is not None:
        return predictions.by_city(*cities, search)
    return predictions.table(*search(np.arange(len(vectors)), np.arange(len(index))))


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
    turned = ", database reversed" if index.manifest.inputs.get("reversed") else ""
    return f"{settings['model']}{state}" + (f" + PCA {pca['dimensions']}" if pca else "") + turned
