"""Recall of groups of queries: by city, subtask, night, and how the nearest way of driving differs."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from indexer.evaluation.intervals import Units, recall_intervals
from seqdata.contracts.records import Frozen
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import BoolArray

Groups = dict[str, BoolArray]
"""Name of each group and its queries (n,) bool; a query may belong to several groups, or to none."""

BREAKDOWNS = ("subtask", "city", "night", "heading")
HEADINGS = (("same way, up to 45 deg", 45.0), ("across, up to 135 deg", 135.0), ("opposite way", 180.0))
UNKNOWN = "unknown"


class GroupRecall(Frozen):
    """Recall of one group's counted queries, with 95 % intervals; `left_out` of the group were not counted."""

    queries: int
    left_out: int
    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    interval_method: str


def by_groups(
    groups: Groups,
    hits: BoolArray,
    counted: BoolArray,
    has_positive: BoolArray,
    units: Units,
    at: Sequence[int],
    seed: int,
) -> dict[str, GroupRecall]:
    """Recall of each group that holds a query with a positive; parameters as inside
    `indexer.evaluation.recall.evaluate`.

    `hits` (n, c): query i is a hit of R@(column + 1). Groups are not compared by eye alone: their intervals come from
    the same units, each group on its own.
    """
    found = {}
    for name, members in groups.items():
        mine = members & counted
        if not (members & has_positive).any():
            continue
        bounds, methods = recall_intervals(hits[:, [n - 1 for n in at]], mine, units, seed)
        found[name] = GroupRecall(
            queries=int(mine.sum()),
            left_out=int((members & ~counted).sum()),
            recall={n: float(hits[mine, n - 1].mean()) for n in at},
            interval={n: (float(low), float(high)) for n, (low, high) in zip(at, bounds, strict=True)},
            interval_method="; ".join(dict.fromkeys(methods)),
        )
    return found


def group_queries(
    dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame, by: Sequence[str]
) -> dict[str, Groups]:
    """The groups of a query table by breakdown: `subtask`, `city`, `night`, `heading`.

    `queries` has table contract `places`, `positives` contract `positives`.

    Convention: city, night and subtasks are those of the window's centre frame; `heading` is the least difference of
    driving direction to any of the query's positives, unknown where no heading is known, and queries without a
    positive are in no such group.
    Raises: ContractError for another word.
    """
    unknown = [name for name in by if name not in BREAKDOWNS]
    if unknown:
        raise ContractError(f"breakdown '{unknown[0]}': expected {', '.join(BREAKDOWNS)}")
    return {name: _GROUPS[name](dataset, queries, positives) for name in by}


def heading_groups(queries: int, positives: pl.DataFrame) -> Groups:
    """Groups of `queries` queries by the least heading difference (degrees) to a positive; see `group_queries`."""
    least = np.full(queries, np.nan)
    turned = positives.group_by("query").agg(pl.min("heading_difference").fill_nan(None).fill_null(np.nan))
    least[turned["query"].to_numpy()] = turned["heading_difference"].to_numpy()
    placed = np.zeros(queries, np.bool_)
    placed[turned["query"].to_numpy()] = True
    groups, low = {}, -1.0
    for name, high in HEADINGS:
        groups[name] = (least > low) & (least <= high)
        low = high
    return {**groups, UNKNOWN: placed & np.isnan(least)}


def _cities(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    names = queries["city"].to_numpy()
    return {str(name): names == name for name in np.unique(names)}


def _night(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    night = dataset.frame_columns("night")["night"].to_numpy()[queries["centre"].to_numpy()]
    return {"day": ~night, "night": night}


def _subtasks(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    listed = dataset.frame_columns("subtasks")["subtasks"][queries["centre"].to_numpy()].str.split(" ")
    names = sorted(set(listed.explode().drop_nulls().to_list()) - {""})
    return {name: listed.list.contains(name).to_numpy() for name in names}


def _headings(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    return heading_groups(queries.height, positives)


_GROUPS = {"subtask": _subtasks, "city": _cities, "night": _night, "heading": _headings}
