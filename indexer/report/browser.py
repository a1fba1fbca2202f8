"""The browser of a report: a row a query, with its verdict, its error, and small pictures of it and of its answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation.recall import MISSED, first_hit_ranks
from indexer.report.pictures import data_uri
from seqdata.frames.images import Pixels
from seqdata.geometry import Float64Array, IntArray

MOST_ROWS = 1000  # two pictures of 3 KB each: the page stays below 20 MB
PICTURE_WIDTH = 96  # pixels
BLOCK = 64  # rows whose pictures are in memory at a time

Labels = npt.NDArray[np.str_]
QUARTERS = ("north", "east", "south", "west")
UNKNOWN = "unknown"

Side = Literal["query", "database"]
CentreReader = Callable[[Side, list[int]], Pixels]
"""Reads the centre frames (n, 3, H, W) uint8 of rows of one window table."""


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


def nearest_answers(retrieval: "Retrieval") -> IntArray:
    """Look up the nearest database row of every query, (q,); -1 where there is no answer."""
    first = retrieval.predictions.filter(retrieval.predictions["rank"] == 1)
    nearest = np.full(len(retrieval.queries), -1, np.int64)
    nearest[first["query"].to_numpy()] = first["database"].to_numpy()
    return nearest


def query_rows(
    retrieval: "Retrieval", status: npt.NDArray[np.str_], read: CentreReader | None = None
) -> tuple[QueryRow, ...]:
    """Make the rows of all queries; of more than 1,000, misses first, then near misses, then hits, then the rest.

    Args:
        retrieval: What was retrieved and what was right.
        status: Verdict on every query, (q,).
        read: Reads centre frames; None leaves pictures out.
    """
    order = {"miss": 0, "near": 1, "hit": 2, "left-out": 3}
    rows = np.argsort([order[name] for name in status.tolist()], kind="stable")[:MOST_ROWS]
    nearest = nearest_answers(retrieval)
    ranks = first_hit_ranks(retrieval.predictions, retrieval.positives, len(retrieval.queries))
    first = retrieval.predictions.filter(retrieval.predictions["rank"] == 1)
    distances = dict(first.select("query", "distance").iter_rows())
    quarters = heading_quarters(retrieval.queries["heading"].fill_null(np.nan).to_numpy().astype(np.float64))
    pictures = {} if read is None else _pictures(rows[nearest[rows] >= 0], nearest, read)
    table = []
    for row in rows.tolist():
        place = retrieval.queries.row(row, named=True)
        answer = None if nearest[row] < 0 else retrieval.database.row(int(nearest[row]), named=True)
        metres = None
        if answer is not None:
            metres = float(np.hypot(answer["easting"] - place["easting"], answer["northing"] - place["northing"]))
        table.append(
            QueryRow(
                query=row,
                name=f"{place['trajectory']} #{place['position']}",
                city=place["city"],
                heading=str(quarters[row]),
                status=str(status[row]),
                metres=metres,
                distance=distances.get(row),
                rank=None if ranks[row] == MISSED else int(ranks[row]),
                answer="no answer" if answer is None else f"{answer['trajectory']} #{answer['position']}",
                pictures=pictures.get(row, ()),
            )
        )
    return tuple(table)


def _pictures(rows: IntArray, nearest: IntArray, read: CentreReader) -> dict[int, tuple[str, ...]]:
    """Pictures of queries and their answers, by query."""
    pictures: dict[int, tuple[str, ...]] = {}
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        sides = read("query", block.tolist()), read("database", nearest[block].tolist())
        for row, query, answer in zip(block.tolist(), *sides, strict=True):
            pictures[row] = (data_uri(query, PICTURE_WIDTH), data_uri(answer, PICTURE_WIDTH))
    return pictures


def heading_quarters(heading: Float64Array) -> Labels:
    """Name the quarter that each heading (n,) faces.

    Convention: degrees clockwise from north; north is 315 to 45; not finite is unknown.
    """
    quarter = np.nan_to_num((heading + 45.0) % 360.0 // 90.0).astype(int)
    return np.where(np.isfinite(heading), np.array(QUARTERS)[quarter], UNKNOWN)
