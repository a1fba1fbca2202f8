"""Pairs of windows that share a frame, so that no query is ever matched with itself.

Where one drive plays both roles a query's own window (or one that overlaps it) lies in the database. Such a pair is
neither a prediction nor a positive, in training's validation, in `seqdata eval` and in the calibration of a threshold.
"""

import numpy as np
import polars as pl

from seqdata.geometry import BoolArray, IntArray

SCHEMA = pl.Schema({"query": pl.Int32, "database": pl.Int32})


def shared_pairs(query_windows: IntArray, database_windows: IntArray) -> pl.DataFrame:
    """Find every pair of a query and a database window that holds a frame in common.

    Args:
        query_windows: Frame rows (nq, L) of the query windows.
        database_windows: Frame rows (nd, M) of the database windows, of the same dataset.

    Returns:
        One row a pair, rising: `query` and `database` (int32, rows of the two arrays).

    Example:
        >>> shared_pairs(np.array([[0, 1], [5, 6]]), np.array([[1, 2], [8, 9]])).rows()
        [(0, 0)]
    """
    if not query_windows.size or not database_windows.size:
        return pl.DataFrame(schema=SCHEMA)
    in_database = np.zeros(max(int(query_windows.max()), int(database_windows.max())) + 1, np.bool_)
    in_database[database_windows] = True
    # Most protocols use separate drives: one look at each frame then ends here, before any join.
    if not in_database[query_windows].any():
        return pl.DataFrame(schema=SCHEMA)
    in_both = np.zeros_like(in_database)
    in_both[query_windows] = True
    in_both &= in_database
    queries = _window_frames(query_windows, "query", in_both)
    database = _window_frames(database_windows, "database", in_both)
    pairs = queries.join(database, on="frame").select("query", "database").unique()
    return pairs.cast(SCHEMA).sort("query", "database")


def without_pairs(table: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Leave pairs out of a table of predictions or positives (columns query, database); ranks close up.

    Example:
        >>> ranked = pl.DataFrame({"query": [0, 0], "rank": [1, 2], "database": [4, 7]})
        >>> without_pairs(ranked, pl.DataFrame({"query": [0], "database": [4]})).rows()
        [(0, 1, 7)]
    """
    if not pairs.height:
        return table
    rest = table.join(pairs, on=["query", "database"], how="anti", maintain_order="left")
    if "rank" not in rest.columns:
        return rest
    # Recall counts ranks: a pair that was taken out must not leave its place empty.
    return rest.with_columns(pl.col("rank").rank("ordinal").over("query").cast(rest.schema["rank"]))


def most_shared(pairs: pl.DataFrame) -> int:
    """Count the shared pairs of the query that has most: search so much deeper and no query lacks ranks."""
    return int(pairs.group_by("query").len()["len"].max() or 0)  # type: ignore[arg-type]


def _window_frames(windows: IntArray, name: str, is_selected: BoolArray) -> pl.DataFrame:
    """List (window, frame) pairs of windows (n, L) for the frames (f,) that are selected."""
    window, position = np.nonzero(is_selected[windows])
    return pl.DataFrame({name: window, "frame": windows[window, position]})
