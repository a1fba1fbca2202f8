"""Paired comparison of two sets of predictions under one protocol: is the gap in recall beyond chance?

Both are resampled by the same draws of trajectories or blocks, so that what is hard for both cancels out.
"""

import numpy as np
import polars as pl

from indexer.evaluation.intervals import FEWEST, Units, draw_weights, resampling_units
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.recall import counted_queries, first_hit_ranks
from indexer.evaluation.scoring import ranks_within
from indexer.evaluation.shared_frames import without_pairs
from indexer.evaluation.truth import common_depth, load_truth
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import BoolArray, IntArray

Predicted = tuple[pl.DataFrame, PredictionsInfo]
"""Predictions (table contract `predictions`) and what they answer."""


class Gap(Frozen):
    """R@N of two methods over the same queries.

    `difference` is first minus second with its 95 % interval (None below ten units). `only_first` queries were hits of
    the first alone, `only_second` of the second alone. In `better` units the first had more hits, in `worse` fewer;
    `sign_p` is the two-sided probability of so uneven a split by chance. `mcnemar_p` is the same over queries: it takes
    overlapping windows for independent and is far too small then.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    only_first: int
    only_second: int
    better: int
    worse: int
    equal: int
    sign_p: float
    mcnemar_p: float

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the interval of the difference leaves out zero; None where there is no interval."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


class Comparison(Frozen):
    """Two methods under one protocol, JSON-able; `gaps` by N."""

    protocol: str
    protocol_hash: str
    split: str
    first: str
    second: str
    queries: int
    units: int
    method: str
    gaps: dict[int, Gap]

    @property
    def label(self) -> str:
        """`name@hash` of the protocol."""
        return f"{self.protocol}@{self.protocol_hash}"


def gap(first: BoolArray, second: BoolArray, labels: IntArray, seed: int) -> Gap:
    """Compare the hits of two methods over the same counted queries.

    The interval is a paired cluster bootstrap, percentile form; the sign test is the exact binomial one over units,
    McNemar's the exact one over queries. See docs/methods.md#intervals.

    Args:
        first: Hits (n,) of the first method.
        second: Hits (n,) of the second method.
        labels: Resampled unit of each query (n,).
        seed: Of the draws.

    Example:
        >>> hits, misses = np.ones(20, np.bool_), np.arange(20) % 2 == 0
        >>> result = gap(hits, misses, labels=np.arange(20), seed=0)
        >>> result.difference, result.beyond_chance
        (0.5, True)
    """
    unit_of = np.unique(labels, return_inverse=True)[1]
    number = int(unit_of.max()) + 1
    totals = np.bincount(unit_of, minlength=number)
    # A unit's gap in hits is all that resampling needs: every draw is a weighted sum of gaps over one of totals.
    unit_gaps = np.bincount(unit_of, first.astype(np.int64) - second.astype(np.int64), number)
    interval = None
    if number >= FEWEST:
        weights = draw_weights(number, seed)
        low, high = np.percentile((weights @ unit_gaps) / (weights @ totals), [2.5, 97.5])
        interval = (float(low), float(high))
    # McNemar's test looks at the queries on which the two disagree, the sign test at whole units.
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    better, worse = int((unit_gaps > 0).sum()), int((unit_gaps < 0).sum())
    return Gap(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(first.mean() - second.mean()),
        interval=interval,
        only_first=only_first,
        only_second=only_second,
        better=better,
        worse=worse,
        equal=number - better - worse,
        sign_p=_even_odds(better, worse),
        mcnemar_p=_even_odds(only_first, only_second),
    )


def _describe_intervals(units: Units, number: int, seed: int) -> str:
    """Say in words how the intervals of a comparison over `number` units are computed."""
    if number < FEWEST:
        return f"no interval: only {units.say(number)} to resample"
    return f"paired bootstrap over {units.say(number)}, seed {seed}"


def _even_odds(one: int, other: int) -> float:
    """Two-sided exact probability of a split at least so uneven when both sides are equally likely."""
    from scipy.stats import binomtest  # heavy: 0.6 s, for one number

    return float(binomtest(one, one + other).pvalue) if one + other else 1.0


def compare(dataset: Dataset, protocol: Protocol, first: Predicted, second: Predicted, seed: int = 0) -> Comparison:
    """Compare the R@N of two sets of predictions query by query, under one protocol.

    Args:
        dataset: The dataset whose windows both answer.
        protocol: The protocol that judges both.
        first: Predictions with what they answer.
        second: Others, of the same windows of the same split.
        seed: Of the draws.

    Raises:
        ContractError: If they answer different windows or splits.
        NotEnoughDataError: If no query has a positive.
    """
    if (first[1].split, first[1].pool) != (second[1].split, second[1].pool):
        raise ContractError(
            f"the two answer different questions: split {first[1].split}, cities '{first[1].pool}', and split "
            f"{second[1].split}, cities '{second[1].pool}'"
        )
    truth = load_truth(dataset, protocol, first[1])
    load_truth(dataset, protocol, second[1])  # refuses the second's windows where they are others
    positives = without_pairs(truth.positives, truth.shared)
    if not positives.height:
        raise NotEnoughDataError(f"protocol {protocol.label}: no query has a positive; nothing to compare")
    counted = counted_queries(positives, truth.queries.height, protocol.no_positive)
    units = resampling_units(truth.queries, counted)
    ranks = [
        first_hit_ranks(without_pairs(table, truth.shared), positives, truth.queries.height)[counted]
        for table, _ in (first, second)
    ]
    labels = units.labels[counted]
    # Beyond the shallower of the two one of them has no answer, which is no miss.
    depth = min(common_depth(table, truth.shared, truth.pool_sizes) for table, _ in (first, second))
    number = len(np.unique(labels))
    return Comparison(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        split=first[1].split,
        first=first[1].method,
        second=second[1].method,
        queries=len(labels),
        units=number,
        method=_describe_intervals(units, number, seed),
        gaps={n: gap(ranks[0] <= n, ranks[1] <= n, labels, seed) for n in ranks_within(min(truth.database, depth))},
    )


def won_queries(
    dataset: Dataset, protocol: Protocol, first: Predicted, second: Predicted, n: int
) -> tuple[list[int], list[int]]:
    """Find the queries that one of two sets of predictions alone places rightly among its n nearest.

    Args:
        dataset: The dataset whose windows both answer.
        protocol: The protocol that judges both.
        first: Predictions with what they answer.
        second: Others, of the same windows of the same split.
        n: Nearest windows that count.

    Returns:
        Rows of the query windows that only the first, and that only the second, places rightly.

    Raises:
        ContractError: If they answer different windows.
    """
    truth = load_truth(dataset, protocol, first[1])
    load_truth(dataset, protocol, second[1])  # refuses the second's windows where they are others
    positives = without_pairs(truth.positives, truth.shared)
    hits = [
        first_hit_ranks(without_pairs(table, truth.shared), positives, truth.queries.height) <= n
        for table, _ in (first, second)
    ]
    return np.flatnonzero(hits[0] & ~hits[1]).tolist(), np.flatnonzero(hits[1] & ~hits[0]).tolist()
