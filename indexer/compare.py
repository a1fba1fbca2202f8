"""Paired comparison of stored predictions: both judged by one protocol over the same windows."""

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation import AT, first_hit_ranks, has_positive
from indexer.intervals import resampling_units
from indexer.paired import Comparison, gap, say_units
from indexer.predictions import PredictionsInfo
from indexer.scoring import Truth, common_depth, truth
from indexer.sharing import without_pairs
from seqdata.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.protocols import Protocol

Predicted = tuple[pl.DataFrame, PredictionsInfo]


def compare(dataset: Dataset, protocol: Protocol, first: Predicted, second: Predicted, seed: int = 0) -> Comparison:
    """Whether the gap in R@N between two sets of predictions is beyond chance, query by query.

    Both are judged under `protocol`; they must answer the same windows of the same split.
    Raises: ContractError when they do not, NotEnoughDataError when no query has a positive.
    """
    if (first[1].split, first[1].pool) != (second[1].split, second[1].pool):
        raise ContractError(
            f"the two answer different questions: split {first[1].split}, cities '{first[1].pool}', and split "
            f"{second[1].split}, cities '{second[1].pool}'"
        )
    judged = truth(dataset, protocol, first[1])
    truth(dataset, protocol, second[1])
    counted = _counted(judged)
    units = resampling_units(judged.queries, counted)
    ranks = [_ranks(judged, table)[counted] for table, _ in (first, second)]
    labels = units.labels[counted]
    depth = min(common_depth(table, judged.shared, judged.pools) for table, _ in (first, second))
    at = [n for n in AT if n <= min(judged.database, depth)] or [1]
    number = len(np.unique(labels))
    return Comparison(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        split=first[1].split,
        first=first[1].method,
        second=second[1].method,
        queries=len(labels),
        units=number,
        method=say_units(units, number, seed),
        gaps={n: gap(ranks[0] <= n, ranks[1] <= n, labels, seed) for n in at},
    )


def _counted(judged: Truth) -> npt.NDArray[np.bool_]:
    """Which queries the protocol counts (n,) bool. Raises: NotEnoughDataError when none has a positive."""
    answerable = has_positive(without_pairs(judged.positives, judged.shared), judged.queries.height)
    if not answerable.any():
        raise NotEnoughDataError(f"protocol {judged.protocol.label}: no query has a positive; nothing to compare")
    return answerable if judged.protocol.no_positive == "leave-out" else np.ones_like(answerable)


def _ranks(judged: Truth, predictions: pl.DataFrame) -> npt.NDArray[np.int32]:
    kept = without_pairs(predictions, judged.shared)
    return first_hit_ranks(kept, without_pairs(judged.positives, judged.shared), judged.queries.height)
