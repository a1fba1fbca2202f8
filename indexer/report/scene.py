"""What a retrieval report shows besides numbers: where queries hit and miss, and sequences next to their matches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation.recall import first_hit_ranks, queries_in

Status = Literal["hit", "near", "miss", "left-out"]
Frames = npt.NDArray[np.uint8]
Reader = Callable[[Literal["query", "database"], list[int]], Frames]

TOP = 3


@dataclass(frozen=True, eq=False)
class Strip:
    """One sequence as a row of pictures: `frames` (L, 3, H, W) uint8 RGB, what is said of it, and its verdict."""

    frames: Frames
    title: str
    caption: str
    status: Status | None = None


@dataclass(frozen=True, eq=False)
class Filmstrip:
    """A query sequence and its nearest database sequences, nearest first."""

    query: Strip
    matches: tuple[Strip, ...]


@dataclass(frozen=True, eq=False)
class ReportScene:
    """The arrays behind a report's map and filmstrips.

    `query_xy` (q, 2) and `database_xy` (d, 2) float64 easting and northing in metres, `query_status` (q,) one
    `Status` a query (its nearest database window), `query_city` (q,) and `database_city` (d,) names: every city gets
    a map of its own. `provenance` is printed as it is, name by value; `leakage` is the table of the contract of that
    name, shown with a sentence a split.
    """

    title: str
    query_xy: npt.NDArray[np.float64]
    database_xy: npt.NDArray[np.float64]
    query_status: npt.NDArray[np.str_]
    query_city: npt.NDArray[np.str_]
    database_city: npt.NDArray[np.str_]
    filmstrips: tuple[Filmstrip, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    method: str = ""
    leakage: pl.DataFrame | None = None


def make_scene(
    *,
    title: str,
    predictions: pl.DataFrame,
    positives: pl.DataFrame,
    near: pl.DataFrame,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    read: Reader,
    method: str = "",
    count: int = 12,
    seed: int = 0,
    provenance: dict[str, str] | None = None,
    leakage: pl.DataFrame | None = None,
) -> ReportScene:
    """Gather a scene from predictions.

    `positives` are the protocol's pairs (query, database), `near` the pairs within twice its radius under the same
    rule; `queries` and `database` are the window tables (contract `places`); `read(side, rows)` returns the frames
    (n, L, 3, H, W) uint8 of those windows. `count` queries are picked for filmstrips by `seed`: a third each of hits,
    near misses and misses, as far as there are any.
    """
    status = query_status(predictions, positives, near, len(queries))
    picked = pick_queries(status, count, seed)
    strips = tuple(_filmstrip(query, predictions, positives, near, queries, database, read) for query in picked)
    return ReportScene(
        title=title,
        query_xy=queries.select("easting", "northing").to_numpy(),
        database_xy=database.select("easting", "northing").to_numpy(),
        query_status=status,
        query_city=queries["city"].to_numpy().astype(np.str_),
        database_city=database["city"].to_numpy().astype(np.str_),
        filmstrips=strips,
        provenance=provenance or {},
        method=method,
        leakage=leakage,
    )


def query_status(
    predictions: pl.DataFrame, positives: pl.DataFrame, near: pl.DataFrame, queries: int
) -> npt.NDArray[np.str_]:
    """The verdict (q,) on each query's nearest window; `left-out` for a query that has no positive."""
    nearest = predictions.filter(pl.col("rank") == 1)
    status = np.full(queries, "miss", dtype="<U8")
    status[first_hit_ranks(nearest, near, queries) == 1] = "near"
    status[first_hit_ranks(nearest, positives, queries) == 1] = "hit"
    status[~queries_in(positives, queries)] = "left-out"
    return status


def pick_queries(status: npt.NDArray[np.str_], count: int, seed: int) -> list[int]:
    """Rows of about `count` queries: the same number of hits, near misses and misses, then whatever fills up."""
    rng = np.random.default_rng(seed)
    pools = {name: rng.permutation(np.flatnonzero(status == name)).tolist() for name in ("hit", "near", "miss")}
    chosen: dict[str, list[int]] = {name: [] for name in pools}
    while sum(map(len, chosen.values())) < count and any(pools.values()):
        for name, pool in pools.items():
            if pool and sum(map(len, chosen.values())) < count:
                chosen[name].append(pool.pop())
    return [row for name in chosen for row in sorted(chosen[name])]


def _filmstrip(
    query: int,
    predictions: pl.DataFrame,
    positives: pl.DataFrame,
    near: pl.DataFrame,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    read: Reader,
) -> Filmstrip:
    mine = predictions.filter((pl.col("query") == query) & (pl.col("rank") <= TOP)).sort("rank")
    rows = mine["database"].to_list()
    place = queries.row(query, named=True)
    hits = set(positives.filter(pl.col("query") == query)["database"].to_list())
    close = set(near.filter(pl.col("query") == query)["database"].to_list())
    matches = []
    for row, distance, frames in zip(rows, mine["distance"].to_list(), read("database", rows), strict=True):
        found = database.row(row, named=True)
        apart = np.hypot(found["easting"] - place["easting"], found["northing"] - place["northing"])
        status: Status = "hit" if row in hits else "near" if row in close else "miss"
        caption = f"{_metres(apart)} away, descriptor {distance:.3f}"
        matches.append(Strip(frames, f"{found['trajectory']} #{found['position']}", caption, status))
    title = f"{place['trajectory']} #{place['position']}"
    return Filmstrip(Strip(read("query", [query])[0], title, f"query {query}, {place['city']}"), tuple(matches))


def _metres(distance: float) -> str:
    return (
        f"{distance:.1f} m" if distance < 100 else f"{distance:.0f} m" if distance < 1e4 else f"{distance / 1e3:.0f} km"
    )
