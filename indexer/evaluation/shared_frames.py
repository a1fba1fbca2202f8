"""Windows that share frames: no query is ever matched with itself."""

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.geometry import IntArray

SCHEMA = pl.Schema({"query": pl.Int32, "database": pl.Int32})


def shared_pairs(query_windows: IntArray, database_windows: IntArray) -> pl.DataFrame:
    """Every pair (columns query, database, rows of the two tables, rising) that holds a frame in common.

    `query_windows` (nq, L) and `database_windows` (nd, M) are frame rows of one dataset; where no frame plays both
    roles, as in every protocol with separate drives, this costs one look at each frame.
    """
    if not query_windows.size or not database_windows.size:
        return pl.DataFrame(schema=SCHEMA)
    stored = np.zeros(max(int(query_windows.max()), int(database_windows.max())) + 1, np.bool_)
    stored[database_windows] = True
    if not stored[query_windows].any():
        return pl.DataFrame(schema=SCHEMA)
    both = np.zeros_like(stored)
    both[query_windows] = True
    both &= stored
    queries, database = _frames(query_windows, "query", both), _frames(database_windows, "database", both)
    joined = queries.join(database, on="frame").select("query", "database").unique()
    return joined.cast(SCHEMA).sort("query", "database")


def without_pairs(predictions: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Predictions (or positives) less the given pairs; ranks, where there are some, close up."""
    if not pairs.height:
        return predictions
    kept = predictions.join(pairs, on=["query", "database"], how="anti", maintain_order="left")
    if "rank" not in kept.columns:
        return kept
    return kept.with_columns(pl.col("rank").rank("ordinal").over("query").cast(kept.schema["rank"]))


def most_shared(pairs: pl.DataFrame) -> int:
    """How many of a query's pairs are shared, for the query with most: search so much deeper and none lacks ranks."""
    return int(pairs.group_by("query").len()["len"].max() or 0)  # type: ignore[arg-type]


def _frames(windows: IntArray, name: str, wanted: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """One row a window and frame, for the wanted frames."""
    window, place = np.nonzero(wanted[windows])
    return pl.DataFrame({name: window, "frame": windows[window, place]})
