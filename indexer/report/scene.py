"""What a retrieval report shows besides numbers: where queries hit and miss, and sequences next to their matches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation.recall import first_hit_ranks, queries_in
from seqdata.frames.images import Pixels
from seqdata.geometry import Float64Array, IntArray

Status = Literal["hit", "near", "miss", "left-out"]
Side = Literal["query", "database"]
Reader = Callable[[Side, list[int]], Pixels]
"""Reads the frames (n, L, 3, H, W) uint8 of rows of one window table."""

TOP = 3
"""Matches that a filmstrip shows."""


@dataclass(frozen=True, eq=False)
class Strip:
    """One sequence as a row of pictures: `frames` (L, 3, H, W) uint8 RGB, what is said of it, and its verdict."""

    frames: Pixels
    title: str
    caption: str
    status: Status | None = None


@dataclass(frozen=True, eq=False)
class Filmstrip:
    """A query sequence and its nearest database sequences, nearest first."""

    query: Strip
    matches: tuple[Strip, ...]


@dataclass(frozen=True)
class QueryRow:
    """One query and its nearest answer.

    Attributes:
        query: Row of the query.
        name: Trajectory and position of its centre frame.
        city: Its city.
        heading: Quarter that it faces, "unknown" where it has no heading.
        status: Verdict on the nearest answer.
        metres: Between the centre frames of query and answer; None without an answer.
        distance: Between their descriptors.
        rank: Of the first positive among the answers; None where none was predicted.
        answer: Trajectory and position of the answer.
        pictures: Query and answer as data URIs, none where pictures are not read.
    """

    query: int
    name: str
    city: str
    heading: str
    status: str
    metres: float | None
    distance: float | None
    rank: int | None
    answer: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ReportScene:
    """The arrays behind a report's map and filmstrips.

    `query_xy` (q, 2) and `database_xy` (d, 2) float64 easting and northing in metres, `query_status` (q,) one
    `Status` a query (its nearest database window), `query_city` (q,) and `database_city` (d,) names: every city gets
    a map of its own. `provenance` is printed as it is, name by value; `leakage` is the table of the contract of that
    name, shown with a sentence a split. `rows` are the queries that can be browsed; `nearest` (q,) is the
    database row of each query's nearest answer, -1 for none, to which the maps join misses by a line.
    """

    title: str
    query_xy: Float64Array
    database_xy: Float64Array
    query_status: npt.NDArray[np.str_]
    query_city: npt.NDArray[np.str_]
    database_city: npt.NDArray[np.str_]
    filmstrips: tuple[Filmstrip, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    method: str = ""
    leakage: pl.DataFrame | None = None
    rows: tuple[QueryRow, ...] = ()
    nearest: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What was retrieved and what was right.

    Attributes:
        predictions: Table contract `predictions`, without windows that share a frame with the query.
        positives: Positive pairs, columns `query` and `database`.
        near_pairs: Pairs within twice the protocol's radius under the same rule, likewise.
        queries: Query windows (contract `places`).
        database: Database windows (contract `places`).
    """

    predictions: pl.DataFrame
    positives: pl.DataFrame
    near_pairs: pl.DataFrame
    queries: pl.DataFrame
    database: pl.DataFrame


def make_scene(
    title: str,
    retrieval: Retrieval,
    read: Reader,
    *,
    method: str = "",
    count: int = 12,
    seed: int = 0,
    provenance: dict[str, str] | None = None,
    leakage: pl.DataFrame | None = None,
) -> ReportScene:
    """Make the scene of a report.

    Args:
        title: The page's title.
        retrieval: What was retrieved and what was right.
        read: Reads the frames of windows.
        method: What made the predictions.
        count: Queries shown as filmstrips: a third each of hits, near misses and misses, as far as there are any.
        seed: Of their choice.
        provenance: Facts printed below the page, name by value.
        leakage: Leakage table of the dataset (contract `leakage`); None leaves the block out.
    """
    queries, database = retrieval.queries, retrieval.database
    status = query_status(retrieval.predictions, retrieval.positives, retrieval.near_pairs, len(queries))
    return ReportScene(
        title=title,
        query_xy=queries.select("easting", "northing").to_numpy(),
        database_xy=database.select("easting", "northing").to_numpy(),
        query_status=status,
        query_city=queries["city"].to_numpy().astype(np.str_),
        database_city=database["city"].to_numpy().astype(np.str_),
        filmstrips=tuple(_filmstrip(query, retrieval, read) for query in pick_queries(status, count, seed)),
        provenance=provenance or {},
        method=method,
        leakage=leakage,
        nearest=nearest_answers(retrieval),
    )


def nearest_answers(retrieval: Retrieval) -> IntArray:
    """Look up the nearest database row of every query, (q,); -1 where there is no answer."""
    first = retrieval.predictions.filter(retrieval.predictions["rank"] == 1)
    nearest = np.full(len(retrieval.queries), -1, np.int64)
    nearest[first["query"].to_numpy()] = first["database"].to_numpy()
    return nearest


def query_status(
    predictions: pl.DataFrame, positives: pl.DataFrame, near_pairs: pl.DataFrame, queries: int
) -> npt.NDArray[np.str_]:
    """Judge each query's nearest window: (q,) of `Status`; `left-out` for a query that has no positive."""
    nearest = predictions.filter(pl.col("rank") == 1)
    status = np.full(queries, "miss", dtype="<U8")
    # Later lines win: every hit is near as well, and a query without a positive is judged by neither.
    status[first_hit_ranks(nearest, near_pairs, queries) == 1] = "near"
    status[first_hit_ranks(nearest, positives, queries) == 1] = "hit"
    status[~queries_in(positives, queries)] = "left-out"
    return status


def pick_queries(status: npt.NDArray[np.str_], count: int, seed: int) -> list[int]:
    """Pick about `count` rows: as many hits as near misses and misses, then whichever of them are left.

    Example:
        >>> pick_queries(np.array(["hit", "hit", "miss", "left-out"]), count=2, seed=0)
        [1, 2]
    """
    # Pools are shuffled once and emptied in turn, so the same seed picks the same queries of the same result.
    rng = np.random.default_rng(seed)
    pools = {name: rng.permutation(np.flatnonzero(status == name)).tolist() for name in ("hit", "near", "miss")}
    rows: dict[str, list[int]] = {name: [] for name in pools}
    while sum(map(len, rows.values())) < count and any(pools.values()):
        for name, pool in pools.items():
            if pool and sum(map(len, rows.values())) < count:
                rows[name].append(pool.pop())
    return [row for name in rows for row in sorted(rows[name])]


def _filmstrip(query: int, retrieval: Retrieval, read: Reader) -> Filmstrip:
    """The strip of a query and those of its nearest windows."""
    of_query = pl.col("query") == query
    nearest = retrieval.predictions.filter(of_query & (pl.col("rank") <= TOP)).sort("rank")
    rows = nearest["database"].to_list()
    place = retrieval.queries.row(query, named=True)
    # Looked up by row of the database: a strip is a hit where its pair is a positive, not where metres say so.
    hits = set(retrieval.positives.filter(of_query)["database"].to_list())
    close = set(retrieval.near_pairs.filter(of_query)["database"].to_list())
    matches = []
    for row, distance, frames in zip(rows, nearest["distance"].to_list(), read("database", rows), strict=True):
        match = retrieval.database.row(row, named=True)
        metres = np.hypot(match["easting"] - place["easting"], match["northing"] - place["northing"])
        status: Status = "hit" if row in hits else "near" if row in close else "miss"
        caption = f"{_format_metres(metres)} away, descriptor {distance:.3f}"
        matches.append(Strip(frames, f"{match['trajectory']} #{match['position']}", caption, status))
    title = f"{place['trajectory']} #{place['position']}"
    return Filmstrip(Strip(read("query", [query])[0], title, f"query {query}, {place['city']}"), tuple(matches))


def _format_metres(distance: float) -> str:
    return (
        f"{distance:.1f} m" if distance < 100 else f"{distance:.0f} m" if distance < 1e4 else f"{distance / 1e3:.0f} km"
    )
