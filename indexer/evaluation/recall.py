"""Recall@N with its interval under one protocol, from stored predictions and a table of positives."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from indexer.evaluation.breakdowns import GroupRecall, Groups, by_groups
from indexer.evaluation.intervals import recall_intervals, resampling_units
from indexer.evaluation.metrics import Metrics, answers, measure
from indexer.evaluation.shared_frames import without_pairs
from seqdata.contracts.protocol import Rule, Unit
from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, NotEnoughDataError

AT = (1, 5, 10, 20)
MISSED = np.iinfo(np.int32).max


class CityRecall(Frozen):
    """Recall of one city's counted queries."""

    queries: int
    recall: dict[int, float]


class Evaluation(Frozen):
    """One measured number with everything it means, JSON-able by `model_dump(mode="json")`.

    `recall` and `interval` by N; `curve` and `curve_interval` for every N from 1 to the largest. `queries`
    were counted, `left_out` had no positive and were not (0 when `no_positive` is `miss`). `units` were
    resampled. `length` is a window's frames, `size` a descriptor's numbers (None for a matcher). `shared` pairs of a
    query and a database window hold the same frame of the dataset: they are neither predictions nor positives.
    `metrics` are there when asked for, `by` holds recalls of groups of queries (see `indexer.evaluation.breakdowns`).
    Convention: `positive_rule` within `radius` `unit` as in the protocol; shares are from 0 to 1.
    """

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
    metrics: Metrics | None = None
    by: dict[str, dict[str, GroupRecall]] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """`name@hash` of the protocol, the form in which it stands beside a number."""
        return f"{self.protocol}@{self.protocol_hash}"

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
    positives: pl.DataFrame,
    queries: pl.DataFrame,
    *,
    database_size: int,
    method: str,
    protocol_name: str,
    protocol_hash: str,
    split: str,
    rule: Rule,
    radius: float,
    unit: Unit,
    heading_max: float | None = None,
    pool: Literal["together", "each"] = "together",
    no_positive: Literal["leave-out", "miss"] = "leave-out",
    at: Sequence[int] = AT,
    seed: int = 0,
    dataset: str = "",
    index: str | None = None,
    length: int | None = None,
    size: int | None = None,
    shared: pl.DataFrame | None = None,
    full: bool = False,
    groups: Mapping[str, Groups] | None = None,
) -> Evaluation:
    """Recall@N: the share of counted queries with a positive among their N nearest.

    `predictions` (columns query, rank from 1, database), `positives` (columns query, database: rows of the
    same tables, already filtered by rule and radius), `queries` the query windows in full (table contract
    `places`). With `pool="each"` the predictions and positives of a query must already lie in its own city
    (`predictions.by_city`); the recall is then the average over all queries, and `cities` holds each city's
    own. `shared` pairs (see `indexer.evaluation.shared_frames`) are left out of predictions and positives. `full` adds
    `metrics`, `groups` recalls by name of the breakdown.

    Raises: NotEnoughDataError when no query has a positive, ContractError when the predictions hold fewer
    ranks than the largest N or rows outside the tables.
    Source: P1 section IV-A; the interval is described in `indexer.evaluation.intervals`.
    """
    top = max(at)
    _check(predictions, positives, len(queries), database_size, top if pool == "together" else 1)
    if shared is not None:
        predictions, positives = without_pairs(predictions, shared), without_pairs(positives, shared)
    answerable = has_positive(positives, len(queries))
    _refuse_unanswerable(answerable, protocol_name, split, database_size)
    counted = answerable if no_positive == "leave-out" else np.ones_like(answerable)
    ranks = first_hit_ranks(predictions, positives, len(queries))
    hits = ranks[:, None] <= np.arange(1, top + 1)
    curve = hits[counted].mean(axis=0)
    units = resampling_units(queries, counted)
    bounds, methods = recall_intervals(hits, counted, units, seed)
    return Evaluation(
        method=method,
        protocol=protocol_name,
        protocol_hash=protocol_hash,
        split=split,
        positive_rule=rule,
        radius=radius,
        unit=unit,
        heading_max=heading_max,
        pool=pool,
        no_positive=no_positive,
        queries=int(counted.sum()),
        left_out=int((~counted).sum()),
        database=database_size,
        recall={n: float(curve[n - 1]) for n in at},
        interval={n: (float(bounds[n - 1, 0]), float(bounds[n - 1, 1])) for n in at},
        interval_method=_say_methods(at, methods),
        curve=tuple(curve.tolist()),
        curve_interval=tuple((float(low), float(high)) for low, high in bounds),
        units=len(np.unique(units.labels[counted])),
        cities=_by_city(queries["city"], hits, counted, at),
        dataset=dataset,
        index=index,
        length=length,
        size=size,
        shared=0 if shared is None else shared.height,
        metrics=measure(answers(predictions, positives, counted), units, counted, seed) if full else None,
        by={name: by_groups(g, hits, counted, answerable, units, at, seed) for name, g in (groups or {}).items()},
    )


def _refuse_unanswerable(answerable: npt.NDArray[np.bool_], protocol: str, split: str, database: int) -> None:
    """Raise NotEnoughDataError when no query has a positive."""
    if not answerable.any():
        raise NotEnoughDataError(
            f"protocol {protocol}, split {split}: none of {len(answerable)} queries has a positive among "
            f"{database} database windows; check the split, the radius and the positions"
        )


def has_positive(positives: pl.DataFrame, queries: int) -> npt.NDArray[np.bool_]:
    """Which of `queries` queries have a positive: (n,) bool."""
    found = np.zeros(queries, np.bool_)
    found[positives["query"].to_numpy()] = True
    return found


def first_hit_ranks(predictions: pl.DataFrame, positives: pl.DataFrame, queries: int) -> npt.NDArray[np.int32]:
    """Rank (n,) int32 of each query's first positive, counted from 1; 2³¹-1 where none was predicted."""
    pairs = positives.select(pl.col("query").cast(pl.Int32), pl.col("database").cast(pl.Int32)).unique()
    first = predictions.join(pairs, on=["query", "database"], how="semi").group_by("query").agg(pl.min("rank"))
    ranks = np.full(queries, MISSED, np.int32)
    ranks[first["query"].to_numpy()] = first["rank"].to_numpy()
    return ranks


def _check(predictions: pl.DataFrame, positives: pl.DataFrame, queries: int, database: int, top: int) -> None:
    for name, table in (("predictions", predictions), ("positives", positives)):
        for column, size in (("query", queries), ("database", database)):
            if len(table) and not table[column].is_between(0, size - 1).all():
                raise ContractError(f"{name}: column '{column}' names rows outside its table of {size}")
    deepest = int(predictions["rank"].cast(pl.Int64).max() or 0) if len(predictions) else 0  # type: ignore[arg-type]
    if deepest < min(top, database):
        raise ContractError(f"predictions hold {deepest} ranks, R@{top} needs {top}: search again with -k {top}")


def _say_methods(at: Sequence[int], methods: list[str]) -> str:
    """One line: the methods of the reported N, each with its N when they differ."""
    used = {n: methods[n - 1] for n in at}
    if len(set(used.values())) == 1:
        return used[at[0]]
    grouped: dict[str, list[str]] = {}
    for n, text in used.items():
        grouped.setdefault(text, []).append(f"R@{n}")
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in grouped.items())


def _by_city(
    cities: pl.Series, hits: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], at: Sequence[int]
) -> dict[str, CityRecall]:
    names = cities.to_numpy()
    result = {}
    for city in np.unique(names[counted]):
        mine = hits[counted & (names == city)]
        recall = {n: float(mine[:, n - 1].mean()) for n in at}
        result[str(city)] = CityRecall(queries=len(mine), recall=recall)
    return result
