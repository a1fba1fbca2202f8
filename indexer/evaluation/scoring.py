"""From predictions to a number: fetch a protocol's truth from the dataset, check that rows mean the same, evaluate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation.breakdowns import group_queries
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.recall import AT, Evaluation, evaluate
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.versions.folders import evaluations_folder
from indexer.versions.locks import changing
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError
from seqdata.storage.files import explain_write_failure, read_json, write_json_atomic
from seqdata.storage.hashing import xxh3_hex

RECALL_NAME = "recall.json"
KEEP = 100
"""Neighbours of each query that are stored, so that other radii and rules are scored without searching again."""


def table_key(table: pl.DataFrame) -> str:
    """A name for the windows of a table: equal keys mean the same windows in the same rows."""
    text = table.select("track", "first", "length", "step", "trajectory", "centre").write_csv()
    return f"{table.height}-{xxh3_hex(text.encode())}"


def make_info(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    *,
    method: str,
    index: str | None = None,
    size: int | None = None,
) -> PredictionsInfo:
    """What a predictions table answers, for its file."""
    return PredictionsInfo(
        dataset=dataset.id,
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        split=split,
        query_table=table_key(queries),
        database_table=table_key(database),
        method=method,
        pool=protocol.pool,
        index=index,
        queries=queries.height,
        database=database.height,
        size=size,
    )


@dataclass(frozen=True)
class Truth:
    """What stored predictions are judged by: the protocol, its query windows (contract `places`) and their positives.

    `database` windows are there, `pools` (q,) of them for each query; `shared` pairs of windows hold a frame in common
    (see `indexer.evaluation.shared_frames`).
    """

    protocol: Protocol
    queries: pl.DataFrame
    database: int
    pools: npt.NDArray[np.int64]
    positives: pl.DataFrame
    shared: pl.DataFrame


def truth(dataset: Dataset, protocol: Protocol, info: PredictionsInfo, radius: float | None = None) -> Truth:
    """The truth of predictions under a protocol, or under it at another `radius`, which is then another protocol.

    Raises: ContractError when the predictions are of another dataset, or the protocol cuts other windows.
    """
    queries, database = windows_of(dataset, protocol, info)
    positives = dataset.protocol_positives(protocol, info.split, radius)
    shared = shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(database))
    judging = protocol if radius in (None, protocol.radius) else with_radius(protocol, float(radius or 0))
    pools = pools_of(protocol, queries, database)
    return Truth(judging, dataset.places(queries), database.height, pools, positives, shared)


def pools_of(protocol: Protocol, queries: pl.DataFrame, database: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Among how many database windows each query (q,) is searched: all, or those of its city."""
    if protocol.pool == "together":
        return np.full(queries.height, database.height, np.int64)
    found = queries.select("city").join(database.group_by("city").len(), on="city", how="left", maintain_order="left")
    return found["len"].fill_null(0).cast(pl.Int64).to_numpy()


def common_depth(predictions: pl.DataFrame, shared: pl.DataFrame, pools: npt.NDArray[np.int64]) -> int:
    """How deep recall can be told: the deepest rank, or the least that shared pairs leave to a query they are taken of.

    A query whose whole pool is ranked (`pools`, see `pools_of`) lacks nothing.
    Raises: ContractError when a query has none left.
    """
    deepest = int(predictions["rank"].cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    taken = predictions.join(shared, on=["query", "database"], how="semi").group_by("query").agg(taken=pl.len())
    told = taken.join(predictions.group_by("query").agg(told=pl.len()), on="query")
    short = told.with_columns(pool=pl.Series(pools[told["query"].to_numpy()])).filter(pl.col("told") < pl.col("pool"))
    depth: int = min([deepest, *(short["told"] - short["taken"]).to_list()])
    if depth < min(deepest, 1):
        raise ContractError(
            f"predictions of {deepest} ranks: all of some query's share a frame with it and never match; "
            "more ranks are needed"
        )
    return depth


def with_radius(protocol: Protocol, radius: float) -> Protocol:
    """The protocol at another radius, under a name that says so and a hash of its own. Raises: ContractError."""
    if not 0 < radius < float("inf"):
        raise ContractError(f"radius {radius:g}: expected a positive number of {protocol.unit}")
    return protocol.model_copy(update={"radius": float(radius), "name": f"{protocol.name}-r{radius:g}"})


def score(
    dataset: Dataset,
    protocol: Protocol,
    predictions: pl.DataFrame,
    info: PredictionsInfo,
    *,
    radius: float | None = None,
    full: bool = False,
    by: Sequence[str] = (),
) -> Evaluation:
    """Recall of stored predictions under a protocol, which may have another radius or rule than they were made under.

    `radius` judges at another one than the protocol's, `full` adds precision-recall and rank figures, `by` breakdowns
    (see `indexer.evaluation.breakdowns`). A query window and a database window that share a frame never match. R@N
    is told as far
    as the predictions of all queries are deep without such pairs (see `common_depth`).
    Raises: ContractError when the predictions are of another dataset, or the protocol cuts other windows.
    """
    found = truth(dataset, protocol, info, radius)
    judging = found.protocol
    depth = common_depth(predictions, found.shared, found.pools)
    return evaluate(
        predictions,
        found.positives,
        found.queries,
        database_size=found.database,
        method=info.method,
        protocol_name=judging.name,
        protocol_hash=judging.hash,
        split=info.split,
        rule=judging.rule,
        radius=judging.radius,
        unit=judging.unit,
        heading_max=judging.heading_max,
        pool=judging.pool,
        no_positive=judging.no_positive,
        at=tuple(n for n in AT if n <= min(found.database, depth)) or (1,),
        dataset=dataset.id,
        index=info.index,
        length=judging.length,
        size=info.size,
        shared=found.shared,
        full=full,
        groups=group_queries(dataset, found.queries, without_pairs(found.positives, found.shared), by),
    )


def windows_of(dataset: Dataset, protocol: Protocol, info: PredictionsInfo) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The query and the database windows that the predictions answer. Raises: ContractError when they are others."""
    if info.dataset != dataset.id:
        raise ContractError(f"the predictions are of dataset {info.dataset[:12]}, this one is {dataset.id[:12]}")
    if info.pool != protocol.pool:
        raise ContractError(
            f"protocol {protocol.name} searches cities '{protocol.pool}', these predictions were made by searching "
            f"'{info.pool}'; run seqdata eval under it"
        )
    queries = dataset.sequences(protocol, info.split, "query")
    database = dataset.sequences(protocol, info.split, "database")
    if (table_key(queries), table_key(database)) != (info.query_table, info.database_table):
        raise ContractError(
            f"protocol {protocol.name} cuts other windows than {info.protocol}, which these predictions answer; "
            "index under it first"
        )
    return queries, database


def fits(dataset: Dataset, protocol: Protocol, info: PredictionsInfo) -> bool:
    """Whether stored predictions answer the windows of a protocol, so that it can judge them without a new search."""
    if info.dataset != dataset.id or info.pool != protocol.pool or info.split not in protocol.splits:
        return False
    sides = [table_key(dataset.sequences(protocol, info.split, role)) for role in ("query", "database")]
    return sides == [info.query_table, info.database_table]


def record(folder: Path, evaluation: Evaluation) -> Path:
    """Add an evaluation to `folder/recall.json`, in place of an older one of the same protocol, split and method.

    Those who record at once wait for each other. Raises: ContractError when the file is broken, OutputError.
    """
    path = folder / RECALL_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with changing(folder):
            kept = [each for each in _read(path) if _identity(each) != _identity(evaluation)]
            rows = [json.loads(each.model_dump_json()) for each in [*kept, evaluation]]
            write_json_atomic(path, {"schema_version": 1, "evaluations": rows})
    except OSError as error:
        explain_write_failure(path, error)
    return path


def read_recorded(folder: Path) -> list[Evaluation]:
    """The evaluations recorded in a folder, and, of an index version, beside its index; none where there are none.

    Older programs wrote those of a version into it; they count where no newer one is of the same identity.
    Raises: ContractError when a file is broken.
    """
    newer = _read(evaluations_folder(folder) / RECALL_NAME)
    known = {_identity(each) for each in newer}
    return [*(each for each in _read(folder / RECALL_NAME) if _identity(each) not in known), *newer]


def _read(path: Path) -> list[Evaluation]:
    try:
        rows = read_json(path)["evaluations"] if path.is_file() else []
        return [Evaluation.model_validate(row) for row in rows]
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a list of evaluations; remove it and run seqdata eval again") from error


def _identity(evaluation: Evaluation) -> tuple[str, str, str]:
    return evaluation.protocol_hash, evaluation.split, evaluation.method
