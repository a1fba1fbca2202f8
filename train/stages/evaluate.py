"""One protocol's answer of an index, as predictions: describe its queries and search them, or read the stored ones.

Which protocols need a search at all is decided in `train.stages.answers`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from indexer.describer import Describer
from indexer.evaluation import predictions
from indexer.evaluation.comparison import Predicted
from indexer.evaluation.predictions import search_pools
from indexer.evaluation.scoring import KEEP, make_info
from indexer.evaluation.truth import fits, table_key
from indexer.place_index import PlaceIndex
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.runs.record import checkpoint_hash, run_record, stored_predictions


def answer(
    dataset: Dataset,
    index: PlaceIndex,
    run: Path,
    protocol: Protocol,
    *,
    sizes: Sequence[int] = (),
    rows: range | None = None,
    settings: DescribeSettings = DEFAULT,
    progress: Progress | None = None,
) -> list[Predicted]:
    """Search an index for every query of its split under a protocol.

    Args:
        dataset: The dataset that the index was built from.
        index: The index.
        run: Folder of the run whose model described it.
        protocol: Cuts the queries; its database windows are those of the index.
        sizes: For each, search also by that many first components of the index's PCA.
        rows: Rows of the queries to search for; None for all.
        settings: Where the model computes and its code is; precision and runtime are those of the index's vectors.
        progress: Called with (windows described, windows in all).

    Returns:
        Predictions by the whole index, then by each of `sizes`.

    Raises:
        ContractError: If index, run and dataset do not belong together or the protocol cuts other windows.
        NotEnoughDataError: If the split has no query.
    """
    # heavy: PyTorch, which stored answers do without
    from train.stages.describer import query_describer

    check_belongs(index, run, dataset)
    describer = query_describer(index, run, settings)
    return search_queries(dataset, index, describer, protocol, method_name(index, run), sizes, progress, rows)


def search_queries(
    dataset: Dataset,
    index: PlaceIndex,
    describer: Describer,
    protocol: Protocol,
    method: str,
    sizes: Sequence[int] = (),
    progress: Progress | None = None,
    rows: range | None = None,
) -> list[Predicted]:
    """Describe the queries of the index's split and search them, by the whole index and by each of `sizes`.

    Args:
        dataset: The dataset that the index was built from.
        index: The index.
        describer: The model that described it.
        protocol: Cuts the queries.
        method: What tables of results call the predictions.
        sizes: For each, search also by that many first components of the index's PCA.
        progress: Called with (windows described, windows in all).
        rows: Rows of the queries to search for; None for all.

    Returns:
        Predictions by the whole index, then by each of `sizes`.

    Raises:
        ContractError: If the protocol cuts other database windows than the index holds.
        NotEnoughDataError: If the split has no query.
    """
    split = str(index.manifest.inputs["split"])
    queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    if table_key(database) != index.manifest.inputs["windows"]:
        raise ContractError(
            f"protocol {protocol.name} cuts other database windows than the index {index.id} holds; "
            f"build an index under it: seqdata index --protocol {protocol.name}"
        )
    if not queries.height:
        raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no query window in this dataset")
    part = range(queries.height) if rows is None else rows
    searched = queries[part.start : part.stop]
    vectors = describer.vectors(dataset, searched, progress)

    def predict(components: int | None) -> pl.DataFrame:
        def search(query_rows: IntArray, database_rows: IntArray) -> tuple[Float32Array, IntArray]:
            # An index searches everything faster than a list of all its rows.
            among = None if len(database_rows) == len(index) else database_rows
            return index.search(vectors[query_rows], min(KEEP, len(database_rows)), among, components)

        table = search_pools(protocol.pool, searched, database, search)
        return table.with_columns(pl.col("query") + part.start)

    size = index.manifest.size
    info = make_info(dataset, protocol, split, queries, database, method=method, index=index.id, size=size)
    shorter = [info.model_copy(update={"size": size, "method": f"{method}, first components"}) for size in sizes]
    return [(predict(None), info), *((predict(reduced.size), reduced) for reduced in shorter)]


def stored_answer(
    dataset: Dataset, index: PlaceIndex, run: Path, protocol: Protocol, report: Callable[[str], None]
) -> tuple[Predicted, Path] | None:
    """Read what the index answered before, as predictions under `protocol`, with their file; None where there is none.

    Predictions made under another protocol do where that one cuts the same windows; re-ranked ones never do. Damaged
    files are reported and passed over.

    Raises:
        ContractError: If index, run and dataset do not belong together.
    """
    check_belongs(index, run, dataset)
    for path in stored_predictions(run, index, protocol):
        try:
            info = predictions.read_info(path)
            if info.index == index.id and fits(dataset, protocol, info):
                return (predictions.read(path)[0], info.under(protocol)), path
        except ContractError as error:
            report(f"passing over damaged predictions: {error}")
    return None


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
    """Name these predictions for a table: model, whether it was trained here, PCA size."""
    settings = run_record(run)["settings"]
    state = "" if settings["epochs"] else " (untrained)" if settings["weights"] == "random" else " (as pretrained)"
    pca = index.manifest.inputs["pca"]
    turned = ", database reversed" if index.manifest.inputs.get("reversed") else ""
    return f"{settings['model']}{state}" + (f" + PCA {pca['dimensions']}" if pca else "") + turned
