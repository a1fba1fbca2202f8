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

# What the papers and the datasets' own tools report recall by.
BREAKDOWNS = ("subtask", "city", "night", "heading")
# Quadrants of 90 degrees around the query's own direction; the side quadrants are one group.
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
    ranks: Sequence[int],
    seed: int,
) -> dict[str, GroupRecall]:
    """Measure the recall of each group that holds a query with a positive.

    Intervals come from the same units as those of the whole, each group on its own.

    Args:
        groups: The groups.
        hits: Whether query i is a hit of R@(column + 1) (n, c).
        counted: Which queries count (n,).
        has_positive: Which queries have a positive (n,).
        units: What is resampled.
        ranks: The N to report.
        seed: Of the draws.
    """
    recalls = {}
    for name, members in groups.items():
        if not (members & has_positive).any():
            continue
        counted_members = members & counted
        # Each group resamples the units of its own members only: a unit without any carries no information about it.
        bounds, methods = recall_intervals(hits[:, [n - 1 for n in ranks]], counted_members, units, seed)
        recalls[name] = GroupRecall(
            queries=int(counted_members.sum()),
            left_out=int((members & ~counted).sum()),
            recall={n: float(hits[counted_members, n - 1].mean()) for n in ranks},
            interval={n: (float(low), float(high)) for n, (low, high) in zip(ranks, bounds, strict=True)},
            interval_method="; ".join(dict.fromkeys(methods)),
        )
    return recalls


def group_queries(
    dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame, by: Sequence[str]
) -> dict[str, Groups]:
    """Group the queries of a table by breakdown: `subtask`, `city`, `night`, `heading`.

    Convention: city, night and subtasks are those of the window's centre frame; `heading` is the least difference of
    driving direction to any of the query's positives, unknown where no heading is known, and queries without a
    positive are in no such group.

    Args:
        dataset: The dataset of the windows.
        queries: Query windows (table contract `places`).
        positives: Their positives (contract `positives`).
        by: Breakdowns.

    Raises:
        ContractError: For another word.
    """
    unknown = [name for name in by if name not in BREAKDOWNS]
    if unknown:
        raise ContractError(f"breakdown '{unknown[0]}': expected {', '.join(BREAKDOWNS)}")
    return {name: _GROUPS[name](dataset, queries, positives) for name in by}


def heading_groups(queries: int, positives: pl.DataFrame) -> Groups:
    """Group `queries` queries by the least heading difference (degrees) to a positive; see `group_queries`.

    Example:
        >>> positives = pl.DataFrame({"query": [0, 1], "heading_difference": [10.0, 170.0]})
        >>> {name: rows.tolist() for name, rows in heading_groups(2, positives).items() if rows.any()}
        {'same way, up to 45 deg': [True, False], 'opposite way': [False, True]}
    """
    least = np.full(queries, np.nan)
    turned = positives.group_by("query").agg(pl.min("heading_difference").fill_nan(None).fill_null(np.nan))
    least[turned["query"].to_numpy()] = turned["heading_difference"].to_numpy()
    has_positive = np.zeros(queries, np.bool_)
    has_positive[turned["query"].to_numpy()] = True
    groups, low = {}, -1.0  # below 0, so that a difference of exactly 0 lies in the first group
    for name, high in HEADINGS:
        groups[name] = (least > low) & (least <= high)
        low = high
    return {**groups, UNKNOWN: has_positive & np.isnan(least)}


def _cities(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    names = queries["city"].to_numpy()
    return {str(name): names == name for name in np.unique(names)}


def _night(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    # A window takes the centre frame's word: at dusk its ends may differ.
    night = dataset.frame_columns("night")["night"].to_numpy()[queries["centre"].to_numpy()]
    return {"day": ~night, "night": night}


def _subtasks(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    # Subtasks of a frame are one text of names between blanks, as MSLS's tables have them.
    listed = dataset.frame_columns("subtasks")["subtasks"][queries["centre"].to_numpy()].str.split(" ")
    names = sorted(set(listed.explode().drop_nulls().to_list()) - {""})
    return {name: listed.list.contains(name).to_numpy() for name in names}


def _headings(dataset: Dataset, queries: pl.DataFrame, positives: pl.DataFrame) -> Groups:
    return heading_groups(queries.height, positives)


_GROUPS = {"subtask": _subtasks, "city": _cities, "night": _night, "heading": _headings}
