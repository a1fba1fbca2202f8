"""Small tables that several tests of the index floor share."""

from typing import Any

import numpy as np
import polars as pl

from indexer.evaluation.truth import Truth
from seqdata import protocols
from seqdata.contracts.tables import table_contract
from seqdata.geometry import IntArray


def make_places(
    count: int, *, trajectories: int = 1, spacing: float = 5.0, length: int = 5, **columns: Any
) -> pl.DataFrame:
    """`count` windows spread evenly over trajectories that run north, `spacing` metres apart."""
    each = -(-count // trajectories)
    rows = np.arange(count)
    data: dict[str, Any] = {
        "track": "all",
        "first": rows,
        "length": length,
        "step": 1,
        "trajectory": [f"drive-{row // each:03d}" for row in rows],
        "city": "town",
        "role": "query",
        "split": "test",
        "centre": rows + (length - 1) // 2,
        "key": [f"k{row:06d}" for row in rows],
        "position": rows % each,
        "latitude": 0.0,
        "longitude": 0.0,
        "zone": "32N",
        "easting": 500_000.0 + 1_000.0 * (rows // each),
        "northing": 6_000_000.0 + spacing * (rows % each),
        "heading": None,
    }
    return table_contract("places").conform(pl.DataFrame({**data, **columns}))


def pairs(*rows: tuple[int, int]) -> pl.DataFrame:
    """A positives table of (query, database) rows."""
    return pl.DataFrame(list(rows), schema={"query": pl.Int32, "database": pl.Int32}, orient="row")


def make_truth(
    positives: pl.DataFrame, queries: pl.DataFrame, database: int, *, shared: pl.DataFrame | None = None,
    pools: IntArray | None = None, **fields: Any,
) -> Truth:  # fmt: skip
    """The truth of queries under a protocol "demo" (any frame, 25 m) with other `fields`."""
    demo = {"name": "demo", "rule": "any", "radius": 25.0, "no_positive": "leave-out"}
    protocol = protocols.load("own").model_copy(update={**demo, **fields})
    return Truth(protocol, queries, positives, database, pairs() if shared is None else shared, pools)
