"""The browser of a report: a row a query, with its verdict, its error, and small pictures of it and of its answer."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from indexer.evaluation.recall import MISSED, first_hit_ranks
from indexer.report.pictures import data_uri
from indexer.report.preview.views import heading_quarters
from indexer.report.scene import QueryRow, Retrieval, Side, nearest_answers
from seqdata.frames.images import Pixels
from seqdata.geometry import IntArray

MOST_ROWS = 1000  # two pictures of 3 KB each: the page stays below 20 MB
PICTURE_WIDTH = 96  # pixels
BLOCK = 64  # rows whose pictures are in memory at a time

CentreReader = Callable[[Side, list[int]], Pixels]
"""Reads the centre frames (n, 3, H, W) uint8 of rows of one window table."""


def query_rows(
    retrieval: Retrieval, status: npt.NDArray[np.str_], read: CentreReader | None = None
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
