"""From predictions to a number: fetch a protocol's truth from the dataset, check that rows mean the same, evaluate."""

import json
from pathlib import Path

import polars as pl

from indexer.evaluation import AT, Evaluation, evaluate
from indexer.predictions import PredictionsInfo
from seqdata.dataset import Dataset
from seqdata.errors import ContractError, InputError
from seqdata.protocols import Protocol
from seqdata.storage import read_json, write_json_atomic, xxh3_hex

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
    )


def score(dataset: Dataset, protocol: Protocol, predictions: pl.DataFrame, info: PredictionsInfo) -> Evaluation:
    """Recall of stored predictions under a protocol, which may have another radius or rule than they were made under.

    Raises: ContractError when the predictions are of another dataset, or the protocol cuts other windows.
    """
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
    return evaluate(
        predictions,
        dataset.protocol_positives(protocol, info.split),
        dataset.places(queries),
        database_size=database.height,
        method=info.method,
        protocol_name=protocol.name,
        protocol_hash=protocol.hash,
        split=info.split,
        rule=protocol.rule,
        radius=protocol.radius,
        unit=protocol.unit,
        heading_max=protocol.heading_max,
        pool=protocol.pool,
        no_positive=protocol.no_positive,
        at=tuple(n for n in AT if n <= database.height) or (1,),
        dataset=dataset.id,
        index=info.index,
    )


def record(folder: Path, evaluation: Evaluation) -> Path:
    """Add an evaluation to `folder/recall.json`, in place of an older one of the same protocol, split and method."""
    path = folder / RECALL_NAME
    kept = [each for each in read_recorded(folder) if _identity(each) != _identity(evaluation)]
    rows = [json.loads(each.model_dump_json()) for each in [*kept, evaluation]]
    write_json_atomic(path, {"schema_version": 1, "evaluations": rows})
    return path


def read_recorded(folder: Path) -> list[Evaluation]:
    """The evaluations in `folder/recall.json`, none when there is no such file. Raises: ContractError when broken."""
    path = folder / RECALL_NAME
    try:
        rows = read_json(path)["evaluations"] if path.is_file() else []
        return [Evaluation.model_validate(row) for row in rows]
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a list of evaluations; remove it and run seqdata eval again") from error


def _identity(evaluation: Evaluation) -> tuple[str, str, str]:
    return evaluation.protocol_hash, evaluation.split, evaluation.method
