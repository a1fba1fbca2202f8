"""From stored predictions to numbers: score them under a protocol of a dataset, and record evaluations in a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from indexer.evaluation.breakdowns import group_queries
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.recall import RANKS, Evaluation, evaluate
from indexer.evaluation.shared_frames import without_pairs
from indexer.evaluation.truth import common_depth, load_truth, table_key
from indexer.versions.folders import evaluations_folder
from indexer.versions.locks import changing
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError
from seqdata.storage.files import explain_write_failure, read_json, write_json_atomic

RECALL_NAME = "recall.json"
KEEP = 100
"""Neighbours of each query that are stored, so that other radii and rules are scored without searching again."""


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
    """Describe what a predictions table answers, for its file.

    Args:
        dataset: The dataset whose windows are meant.
        protocol: The protocol that cut them.
        split: Split of the protocol.
        queries: Query windows; rows of the predictions' column `query`.
        database: Database windows; rows of the column `database`.
        method: What a table of results calls the predictions.
        index: Version of the index that was searched, if one was.
        size: Numbers in a descriptor, if descriptors were compared.
    """
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
    """Measure the recall of stored predictions under a protocol, which may have another radius or rule than theirs.

    A query window and a database window that share a frame never match. R@N is reported as far as the predictions of
    all queries that have some are deep (see `truth.common_depth`); queries without any are misses and are counted.

    Args:
        dataset: The dataset whose windows the predictions name.
        protocol: The protocol that judges.
        predictions: Table contract `predictions`.
        info: What the predictions answer, as their file says.
        radius: Another radius than the protocol's, in the protocol's unit; the result then names another protocol.
        full: Whether to add precision-recall and rank figures.
        by: Breakdowns to add (see `indexer.evaluation.breakdowns`).

    Raises:
        ContractError: If the predictions are of another dataset, or the protocol cuts other windows.
        NotEnoughDataError: If no query has a positive.
    """
    truth = load_truth(dataset, protocol, info, radius)
    depth = common_depth(predictions, truth.shared, truth.pool_sizes)
    positives = without_pairs(truth.positives, truth.shared)
    return evaluate(
        predictions,
        truth,
        info.provenance,
        ranks=ranks_within(min(truth.database, depth)),
        full=full,
        groups=group_queries(dataset, truth.queries, positives, by),
    )


def ranks_within(depth: int) -> tuple[int, ...]:
    """The reported N that `depth` ranks reach, at least R@1."""
    return tuple(n for n in RANKS if n <= depth) or (1,)


def record(folder: Path, evaluation: Evaluation) -> Path:
    """Add an evaluation to `folder/recall.json`, in place of an older one of the same protocol, split and method.

    Several processes may record into one folder: they wait for each other.

    Raises:
        ContractError: If the file is broken.
        OutputError: If it cannot be written.
    """
    path = folder / RECALL_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Read, replace and write under one lock: evaluations that end together must not lose each other.
        with changing(folder):
            others = [row for row in _read(path) if _identity(row) != _identity(evaluation)]
            # Through JSON and back: pydantic writes tuples and keys of numbers as JSON has them.
            rows = [json.loads(row.model_dump_json()) for row in [*others, evaluation]]
            write_json_atomic(path, {"schema_version": 1, "evaluations": rows})
    except OSError as error:
        explain_write_failure(path, error)
    return path


def read_recorded(folder: Path) -> list[Evaluation]:
    """Read the evaluations recorded in a folder and, of an index version, beside its index; none where there are none.

    Older programs wrote those of a version into it; they count where no newer one has the same identity.

    Raises:
        ContractError: If a file is broken.
    """
    # A sealed version is never written again, so its evaluations lie beside it since then.
    newer = _read(evaluations_folder(folder) / RECALL_NAME)
    identities = {_identity(row) for row in newer}
    return [*(row for row in _read(folder / RECALL_NAME) if _identity(row) not in identities), *newer]


def _read(path: Path) -> list[Evaluation]:
    """Read the evaluations of one file, none where it is absent."""
    try:
        rows = read_json(path)["evaluations"] if path.is_file() else []
        return [Evaluation.model_validate(row) for row in rows]
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a list of evaluations; remove it and run seqdata eval again") from error


def _identity(evaluation: Evaluation) -> tuple[str, str, str]:
    """What makes two evaluations the same one measured twice."""
    return evaluation.protocol_hash, evaluation.split, evaluation.method
