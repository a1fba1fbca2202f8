"""Recall@N with its interval under one protocol, from predictions and the truth that judges them.

Recall is counted here and nowhere else: `seqdata eval`, training's validation and experiments all come through
`first_hit_ranks` and `counted_queries`. The list of reported N stands here too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from indexer.evaluation.breakdowns import GroupRecall, Groups, by_groups
from indexer.evaluation.intervals import recall_intervals, resampling_units
from indexer.evaluation.metrics import Metrics, answers, chance_recall, measure
from indexer.evaluation.predictions import Provenance
from indexer.evaluation.shared_frames import without_pairs
from indexer.evaluation.truth import Truth, common_depth
from seqdata.contracts.protocol import Protocol, Rule, Unit
from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import BoolArray, IntArray

RANKS = (1, 5, 10, 20)
"""The N of R@N that an evaluation reports."""
SHORT_RANKS = RANKS[:3]
"""Those that training's validation and the tables of experiments report, where there is less room."""
MISSED = np.iinfo(np.int32).max
"""Rank of a query none of whose positives was predicted."""


class CityRecall(Frozen):
    """Recall of one city's counted queries."""

    queries: int
    recall: dict[int, float]


class Evaluation(Frozen):
    """One measured number with everything it means, JSON-able by `model_dump(mode="json")`.

    `recall` and `interval` by N; `curve` and `curve_interval` for every N from 1 to the largest. `queries`
    were counted, `left_out` had no positive and were not (0 when `no_positive` is `miss`). Of the counted ones
    `unanswered` have no prediction at all and are misses. `units` were resampled. `length` is a window's frames, `size`
    a descriptor's numbers (None for a matcher). `shared` pairs of a query and a database window hold the same frame of
    the dataset: they are neither predictions nor positives. `ranked_by` says what gave the order of another program's
    predictions. `metrics` are there with `full`, `by` holds recalls of groups of queries (see
    `indexer.evaluation.breakdowns`).

    Convention: `positive_rule` within `radius` `unit` as in the protocol; shares are from 0 to 1.
    """

    # Evaluations that were stored before there was a chance level are written again as they were.
    later: ClassVar[frozenset[str]] = frozenset({"chance"})

    method: str
    protocol: str
    protocol_hash: str
    split: str
    positive_rule: Rule
    radius: float
    unit: Unit
    heading_max: float | None = None
    pool: Literal["together", "each"] = "together"
    no_positive: Literal["leave-out", "miss"] = "leave-out"
    queries: int
    left_out: int
    unanswered: int = 0
    database: int
    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    interval_method: str
    curve: tuple[float, ...]
    curve_interval: tuple[tuple[float, float], ...]
    units: int
    cities: dict[str, CityRecall]
    dataset: str = ""
    index: str | None = None
    length: int | None = None
    size: int | None = None
    shared: int = 0
    ranked_by: str | None = None
    metrics: Metrics | None = None
    by: dict[str, dict[str, GroupRecall]] = Field(default_factory=dict)
    chance: dict[int, float] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """`name@hash` of the protocol, the form in which it stands beside a number."""
        return f"{self.protocol}@{self.protocol_hash}"

    @property
    def heading(self) -> str:
        """`label` with the dataset's id, which holds the form of the stored images: what stands above numbers."""
        return f"{self.label}, dataset {self.dataset[:12]}" if self.dataset else self.label

    @property
    def conditions(self) -> str:
        """What counts as a hit, in words: two evaluations with other words never share a column."""
        sign = "<" if self.unit == "metres" else "<="
        heading = "" if self.heading_max is None else f", heading within {self.heading_max:g} deg"
        pool = "cities pooled" if self.pool == "together" else "each city alone"
        missing = "left out" if self.no_positive == "leave-out" else "counted as misses"
        return (
            f"{self.split} split, {self.positive_rule} rule {sign} {self.radius:g} {self.unit}{heading}, {pool}, "
            f"queries without a positive {missing}"
        )


def evaluate(
    predictions: pl.DataFrame,
    truth: Truth,
    provenance: Provenance,
    *,
    ranks: Sequence[int] = RANKS,
    seed: int = 0,
    full: bool = False,
    groups: Mapping[str, Groups] | None = None,
) -> Evaluation:
    """Measure recall@N: the share of counted queries with a positive among their N nearest.

    See Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022,
    sec. III-A, and docs/methods.md#recall; the intervals are those of `indexer.evaluation.intervals`.

    Args:
        predictions: Table contract `predictions`: query, rank from 1, database, distance. Where the protocol's pool is
            `each`, those of a query lie in its own city (see `predictions.by_city`), and `cities` of the result holds
            each city's own recall beside the average over all queries.
        truth: The protocol, its query windows and their positives.
        provenance: Who made the predictions.
        ranks: The N to report.
        seed: Of the bootstrap's draws.
        full: Whether to add `metrics` (mean rank, average precision, precision-recall).
        groups: Groups of queries by name of a breakdown, whose recall is reported each (see `breakdowns`).

    Raises:
        NotEnoughDataError: If no query has a positive.
        ContractError: If predictions hold fewer ranks than the largest N, or rows outside the tables.

    Example:
        >>> from indexer.evaluation.predictions import table
        >>> from seqdata import protocols
        >>> queries = pl.DataFrame({"trajectory": ["a", "b"], "city": ["x", "x"], "first": [0, 0], "length": [1, 1],
        ...     "step": [1, 1], "easting": [0.0, 9.0], "northing": [0.0, 0.0]})
        >>> positives = pl.DataFrame({"query": [0, 1], "database": [0, 1]})
        >>> truth = Truth(protocols.load("own"), queries, positives, database=3)
        >>> nearest = table(distances=[[0.1, 0.4], [0.2, 0.3]], rows=[[0, 2], [2, 1]])
        >>> evaluate(nearest, truth, Provenance("mine", "test"), ranks=(1, 2)).recall
        {1: 0.5, 2: 1.0}
    """
    total, top, named = truth.queries.height, max(ranks), groups or {}
    depth = _check_predictions(predictions, truth, top)
    # Before shared pairs are taken away: a query whose every answer was its own frames was answered all the same.
    is_answered = queries_in(predictions, total)
    predictions, positives = (without_pairs(table, truth.shared) for table in (predictions, truth.positives))
    answerable = queries_in(positives, total)
    counted = counted_queries(positives, total, truth.protocol.no_positive)
    if not answerable.any():
        raise _no_positive(truth, provenance.split)
    # The first hit's rank gives every R@N at once: a query is a hit of all N from there on.
    hits = first_hit_ranks(predictions, positives, total)[:, None] <= np.arange(1, top + 1)
    curve = hits[counted].mean(axis=0)
    # Units are chosen over the counted queries and reused by metrics and groups, so that all intervals compare.
    units = resampling_units(truth.queries, counted)
    bounds, methods = recall_intervals(hits, counted, units, seed)
    # Ranks that only some queries have would favour those: all are measured to the depth they have in common.
    common = predictions.filter(pl.col("rank") <= depth)
    metrics = measure(answers(common, positives, counted), units, counted, seed) if full else None
    return Evaluation(
        **asdict(provenance),
        **_conditions(truth.protocol),
        queries=int(counted.sum()),
        left_out=int((~counted).sum()),
        unanswered=int((counted & ~is_answered).sum()),
        database=truth.database,
        recall={n: float(curve[n - 1]) for n in ranks},
        interval={n: (float(bounds[n - 1, 0]), float(bounds[n - 1, 1])) for n in ranks},
        interval_method=_name_methods(ranks, methods),
        curve=tuple(curve.tolist()),
        curve_interval=tuple((float(low), float(high)) for low, high in bounds),
        units=len(np.unique(units.labels[counted])),
        cities=_recall_by_city(truth.queries["city"], hits, counted, ranks),
        shared=truth.shared.height,
        chance=chance_recall(positives, truth.pool_sizes - shared_counts(truth), counted, ranks),
        metrics=metrics,
        by={name: by_groups(group, hits, counted, answerable, units, ranks, seed) for name, group in named.items()},
    )


def shared_counts(truth: Truth) -> IntArray:
    """Windows (q,) that share a frame with each query, and so are no answer to it."""
    pairs = truth.shared.select("query", "database").unique()
    return np.bincount(pairs["query"].to_numpy(), minlength=truth.queries.height)


def _no_positive(truth: Truth, split: str) -> NotEnoughDataError:
    return NotEnoughDataError(
        f"protocol {truth.protocol.name}, split {split}: none of {truth.queries.height} queries has a positive among "
        f"{truth.database} database windows; check the split, the radius and the positions"
    )


def _conditions(protocol: Protocol) -> dict[str, Any]:
    """The fields of an `Evaluation` that say under which protocol, and so under which conditions, it was measured."""
    same = protocol.model_dump(include={"radius", "unit", "heading_max", "pool", "no_positive", "length"})
    return {"protocol": protocol.name, "protocol_hash": protocol.hash, "positive_rule": protocol.rule, **same}


def recall_at(predictions: pl.DataFrame, truth: Truth, ranks: Sequence[int] = SHORT_RANKS) -> dict[int, float]:
    """Measure recall@N alone, without intervals or checks of depth: what training's validation needs every epoch.

    Args:
        predictions: Table contract `predictions`; a query that has fewer ranks than N is a miss beyond them.
        truth: The protocol, its query windows and their positives.
        ranks: The N to report.

    Returns:
        Recall by N, equal to `evaluate`'s; 0 where no query is counted.
    """
    positives = without_pairs(truth.positives, truth.shared)
    total = truth.queries.height
    first = first_hit_ranks(without_pairs(predictions, truth.shared), positives, total)
    first = first[counted_queries(positives, total, truth.protocol.no_positive)]
    return {n: float((first <= n).mean()) if len(first) else 0.0 for n in ranks}


def counted_queries(positives: pl.DataFrame, queries: int, no_positive: Literal["leave-out", "miss"]) -> BoolArray:
    """Say which of `queries` queries (n,) enter a recall: those with a positive, or all where lacking one is a miss."""
    return queries_in(positives, queries) if no_positive == "leave-out" else np.ones(queries, np.bool_)


def queries_in(table: pl.DataFrame, queries: int) -> BoolArray:
    """Say which of `queries` queries (n,) occur in the column `query` of positives or predictions."""
    occurs = np.zeros(queries, np.bool_)
    occurs[table["query"].to_numpy()] = True
    return occurs


def first_hit_ranks(predictions: pl.DataFrame, positives: pl.DataFrame, queries: int) -> npt.NDArray[np.int32]:
    """Find the rank (n,) of each query's first positive, counted from 1; `MISSED` where none was predicted.

    Example:
        >>> predictions = pl.DataFrame({"query": [0, 0], "rank": [1, 2], "database": [4, 7]})
        >>> first_hit_ranks(predictions, pl.DataFrame({"query": [0], "database": [7]}), queries=1).tolist()
        [2]
    """
    # Duplicated positives would multiply rows in a join; a semi join of distinct pairs counts each prediction once.
    pairs = positives.select(pl.col(name).cast(predictions.schema[name]) for name in ("query", "database")).unique()
    first = predictions.join(pairs, on=["query", "database"], how="semi").group_by("query").agg(pl.min("rank"))
    ranks = np.full(queries, MISSED, np.int32)
    ranks[first["query"].to_numpy()] = first["rank"].to_numpy()
    return ranks


def _check_predictions(predictions: pl.DataFrame, truth: Truth, top: int) -> int:
    """Find the depth of predictions. Raises: ContractError for rows outside the window tables, or too few ranks."""
    for name, table in (("predictions", predictions), ("positives", truth.positives)):
        for column, size in (("query", truth.queries.height), ("database", truth.database)):
            if len(table) and not table[column].is_between(0, size - 1).all():
                raise ContractError(f"{name}: column '{column}' names rows outside its table of {size}")
    depth = common_depth(predictions, truth.shared, truth.pool_sizes)
    if depth < min(top, int(truth.pool_sizes.max(initial=0))):
        raise ContractError(f"predictions hold {depth} ranks, R@{top} needs {top}: search again with -k {top}")
    return depth


def _name_methods(ranks: Sequence[int], methods: list[str]) -> str:
    """Name the interval methods of the reported N in one line, each with its N where they differ."""
    grouped: dict[str, list[str]] = {}
    for n in ranks:
        grouped.setdefault(methods[n - 1], []).append(f"R@{n}")
    if len(grouped) == 1:
        return methods[ranks[0] - 1]
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in grouped.items())


def _recall_by_city(
    cities: pl.Series, hits: BoolArray, counted: BoolArray, ranks: Sequence[int]
) -> dict[str, CityRecall]:
    """Recall of each city's counted queries, from hits (n, c)."""
    names = cities.to_numpy()
    result = {}
    for city in np.unique(names[counted]):
        city_hits = hits[counted & (names == city)]
        recall = {n: float(city_hits[:, n - 1].mean()) for n in ranks}
        result[str(city)] = CityRecall(queries=len(city_hits), recall=recall)
    return result
