"""What is measured beside recall@N: chance, mean rank, mean average precision, precision-recall, with intervals.

Convention: a query answers with its nearest window and is *accepted* when that one's distance is at most a threshold.
Precision is the share of accepted queries whose answer is a positive, recall the accepted ones with a right answer
among all counted queries, so that the curve ends at R@1. A query without a positive is treated as the protocol says:
left out of both, or, where it counts as a miss, every acceptance of it is wrong and it stays in recall's denominator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from indexer.evaluation.intervals import DRAWS, FEWEST, Units, draw_weights
from seqdata.contracts.records import Frozen
from seqdata.geometry import BoolArray, Float64Array, IntArray

CURVE_POINTS = 200
BLOCK_VALUES = 1 << 22  # float64 values of one block of draws: 32 MiB


class Measure(Frozen):
    """A figure with its 95 % interval; None where too few units stand behind one."""

    value: float
    interval: tuple[float, float] | None = None


class Metrics(Frozen):
    """Figures of one evaluation, over its counted queries.

    `mean_rank` of the first positive, where a query without one among the `depth` stored neighbours counts as depth + 1
    (a lower bound then). `mean_average_precision` at that depth: a query's precisions at its hits, over the positives
    it could have found, min(positives, depth). `auc` under the precision-recall curve and
    `recall_at_full_precision` are None where predictions carry no distances. `precision_recall` holds at most 200
    points (threshold, recall, precision) of the curve.
    """

    depth: int
    mean_rank: Measure
    mean_average_precision: Measure
    auc: Measure | None = None
    recall_at_full_precision: Measure | None = None
    precision_recall: tuple[tuple[float, float, float], ...] = ()
    interval_method: str


@dataclass(frozen=True)
class Answers:
    """What the counted queries (n) answered: rank of the first positive (depth + 1 where none), average precision,
    distance of the nearest window (NaN where unknown, inf where none) and whether it is a positive.
    """

    depth: int
    rank: Float64Array
    average_precision: Float64Array
    distance: Float64Array
    right: BoolArray


def answers(predictions: pl.DataFrame, positives: pl.DataFrame, counted: BoolArray) -> Answers:
    """Collect what the counted queries answered.

    Args:
        predictions: Table contract `predictions`, without pairs that share a frame.
        positives: Positive pairs, columns `query` and `database`.
        counted: Which queries count (n,).
    """
    depth = int(predictions["rank"].cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    pairs = positives.select(pl.col("query").cast(pl.Int32), pl.col("database").cast(pl.Int32)).unique()
    hits = predictions.join(pairs, on=["query", "database"], how="semi").sort("query", "rank")
    rank = np.full(len(counted), depth + 1.0)
    first = hits.group_by("query").agg(pl.min("rank"))
    rank[first["query"].to_numpy()] = first["rank"].to_numpy()
    nearest = predictions.filter(pl.col("rank") == 1)
    # Without a nearest window a query is never accepted: its distance is infinite.
    distance = np.full(len(counted), np.inf)
    distance[nearest["query"].to_numpy()] = nearest["distance"].to_numpy()
    precision = average_precisions(hits, pairs, len(counted), depth)
    return Answers(depth, rank[counted], precision[counted], distance[counted], (rank == 1)[counted])


def average_precisions(hits: pl.DataFrame, pairs: pl.DataFrame, queries: int, depth: int) -> Float64Array:
    """Compute the average precision (n,) at `depth`: a query's precisions at its hits, over min(positives, depth).

    Args:
        hits: The right predictions, sorted by query and rank.
        pairs: Distinct positives.
        queries: Number of queries n.
        depth: Greatest rank.
    """
    # Sorted by rank, the i-th hit of a query has precision i / rank.
    at_hits = hits.with_columns((pl.int_range(1, pl.len() + 1).over("query") / pl.col("rank")).alias("precision"))
    sums = at_hits.group_by("query").agg(pl.sum("precision"))
    possible = np.bincount(pairs["query"].to_numpy(), minlength=queries)
    total = np.zeros(queries)
    total[sums["query"].to_numpy()] = sums["precision"].to_numpy()
    precision: Float64Array = total / np.maximum(np.minimum(possible, depth), 1)
    return precision


Statistic = Callable[[Float64Array], Float64Array]
"""From weights of the queries (draws, n) to a figure of each draw."""


def measure(result: Answers, units: Units, counted: BoolArray, seed: int) -> Metrics:
    """Measure the figures with their intervals, resampling the units of the counted queries as recalls are.

    Args:
        result: What the counted queries answered.
        units: Resampled units of all queries.
        counted: Which queries count.
        seed: Of the draws.
    """
    labels = np.unique(units.labels[counted], return_inverse=True)[1]
    number = int(labels.max()) + 1

    def with_interval(statistic: Statistic) -> Measure:
        # A figure is its statistic where every query weighs one.
        value = float(statistic(np.ones((1, len(labels))))[0])
        return Measure(value=value, interval=_interval(statistic, labels, number, seed))

    has_distances = not np.isnan(result.distance).any()
    curve = CurveStatistics(result) if has_distances else None
    resampled = f"bootstrap over {units.say(number)}, {DRAWS} draws, seed {seed}"
    return Metrics(
        depth=result.depth,
        mean_rank=with_interval(_mean(result.rank)),
        mean_average_precision=with_interval(_mean(result.average_precision)),
        auc=with_interval(curve.auc) if curve else None,
        recall_at_full_precision=with_interval(curve.recall_at_full_precision) if curve else None,
        precision_recall=curve.points() if curve else (),
        interval_method=resampled if number >= FEWEST else f"none: only {units.say(number)} to resample",
    )


def _mean(values: Float64Array) -> Statistic:
    """The weighted mean of one value a query."""
    return lambda weights: (weights @ values) / weights.sum(axis=1)


class CurveStatistics:
    """Precision and recall over rising thresholds, for weighted queries.

    Queries of equal distance are accepted together. The curve begins at recall 0, precision 1, and the area is by
    trapezoids, as scikit-learn's `precision_recall_curve` and `auc` have it.
    """

    def __init__(self, result: Answers) -> None:
        """Sort the answers by distance; queries without one are never accepted."""
        self._queries = len(result.right)
        self._order = np.flatnonzero(np.isfinite(result.distance))
        self._order = self._order[np.argsort(result.distance[self._order], kind="stable")]
        self._right = result.right[self._order].astype(np.float64)
        self._distance = result.distance[self._order]
        # A threshold stands at the last of equal distances, so that they are accepted together.
        self._ends = np.flatnonzero(np.append(np.diff(self._distance) > 0, len(self._order) > 0))

    def curve(self, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Compute recall and precision (draws, thresholds + 1), the beginning included, from weights (draws, n)."""
        accepted = weights[:, self._order]
        # Accepting rises with the threshold, so both counts are running sums in the order of distance.
        right = np.cumsum(accepted * self._right, axis=1)[:, self._ends]
        total = np.cumsum(accepted, axis=1)[:, self._ends]
        # Where a draw accepts no query, nothing accepted is wrong.
        precision = np.divide(right, total, out=np.ones_like(right), where=total > 0)
        recall = right / weights.sum(axis=1, keepdims=True)
        begin = np.zeros((len(weights), 1))
        return np.hstack([begin, recall]), np.hstack([begin + 1, precision])

    def auc(self, weights: Float64Array) -> Float64Array:
        """Compute the area under the curve of each draw."""
        recall, precision = self.curve(weights)
        area: Float64Array = (np.diff(recall, axis=1) * (precision[:, 1:] + precision[:, :-1]) / 2).sum(axis=1)
        return area

    def recall_at_full_precision(self, weights: Float64Array) -> Float64Array:
        """Find the greatest recall of each draw at which no accepted answer is wrong."""
        recall, precision = self.curve(weights)
        # Quotients of equal counts are exactly 1 in floating point.
        best: Float64Array = np.where(precision == 1, recall, 0).max(axis=1)
        return best

    def points(self) -> tuple[tuple[float, float, float], ...]:
        """Pick at most 200 points (threshold, recall, precision), spread evenly over thresholds, the last included."""
        recall, precision = (side[0, 1:] for side in self.curve(np.ones((1, self._queries))))
        rows = np.unique(np.linspace(0, len(self._ends) - 1, min(CURVE_POINTS, len(self._ends))).round().astype(int))
        thresholds = self._distance[self._ends]
        return tuple((float(thresholds[i]), float(recall[i]), float(precision[i])) for i in rows)


def _interval(statistic: Statistic, labels: IntArray, number: int, seed: int) -> tuple[float, float] | None:
    """Percentile 95 % interval of a statistic whose queries belong to `number` units; None for fewer than ten."""
    if number < FEWEST:
        return None
    weights = draw_weights(number, seed)
    # Draws go in blocks: weights of 2,000 draws for each query at once would be gigabytes on a large split.
    step = max(1, BLOCK_VALUES // len(labels))
    parts = [statistic(weights[at : at + step][:, labels].astype(np.float64)) for at in range(0, len(weights), step)]
    low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
    return float(low), float(high)


def chance_recall(
    positives: pl.DataFrame, pools: IntArray, counted: BoolArray, ranks: Sequence[int]
) -> dict[int, float]:
    """Compute the expected recall@N of a random order of each query's database, which a number is compared with.

    In a corridor almost every window is a positive of every query, so that R@1 is high whatever the model does.

    With p positives among d windows, N drawn without repetition miss all of them with probability
    C(d−p, N) / C(d, N), the hypergeometric distribution at zero.

    Args:
        positives: Positive pairs, columns `query` and `database`; repeated pairs count once.
        pools: Database windows (q,) among which each query is searched, those that never match left out.
        counted: Queries (q,) that enter the recall.
        ranks: The N to report.

    Returns:
        Expected recall by N; 0 where no query is counted.

    Example:
        >>> pairs = pl.DataFrame({"query": [0, 0, 1], "database": [0, 1, 2]})
        >>> chance_recall(pairs, np.array([4, 4]), np.array([True, True]), ranks=(1, 3))
        {1: 0.375, 3: 0.875}
    """
    counts = positives.select("query", "database").unique().group_by("query").len()
    hits = np.zeros(len(pools), np.float64)
    hits[counts["query"].to_numpy()] = counts["len"].to_numpy()
    size, hits = pools[counted].astype(np.float64), hits[counted]
    missed: Float64Array = np.ones(len(size))
    recall = {}
    for draw in range(max(ranks)):
        # One more draw: none of the windows left is a positive. An exhausted pool has been ranked whole.
        left = np.maximum(size - draw, 1.0)
        missed = missed * (np.maximum(size - hits - draw, 0.0) / left)
        if draw + 1 in ranks:
            recall[draw + 1] = float(1 - missed.mean()) if len(missed) else 0.0
    return recall
