"""The recall that a ranking by chance would have: what a number has to be compared with before it means anything.

In a corridor almost every window is a positive of every query, so that R@1 is high whatever the model does.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from seqdata.geometry import BoolArray, Float64Array, IntArray


def chance_recall(
    positives: pl.DataFrame, pools: IntArray, counted: BoolArray, ranks: Sequence[int]
) -> dict[int, float]:
    """Compute the expected recall@N of a random order of each query's database.

    With p positives among d windows, N drawn without repetition miss all of them with probability
    C(d−p, N) / C(d, N), the hypergeometric distribution at zero.

    Args:
        positives: Positive pairs, columns `query` and `database`; repeated pairs count once.
        pools: Database windows (q,) among which each query is searched, those that never match left out.
        counted: Queries (q,) that enter the recall.
        ranks: The N to report.

    Returns:
        Expected recall by N; 0 where no query is counted.

    Example:
        >>> pairs = pl.DataFrame({"query": [0, 0, 1], "database": [0, 1, 2]})
        >>> chance_recall(pairs, np.array([4, 4]), np.array([True, True]), ranks=(1, 3))
        {1: 0.375, 3: 0.875}
    """
    counts = positives.select("query", "database").unique().group_by("query").len()
    hits = np.zeros(len(pools), np.float64)
    hits[counts["query"].to_numpy()] = counts["len"].to_numpy()
    size, hits = pools[counted].astype(np.float64), hits[counted]
    missed: Float64Array = np.ones(len(size))
    recall = {}
    for drawn in range(max(ranks)):
        # One more draw: none of the windows left is a positive. An exhausted pool has been ranked whole.
        left = np.maximum(size - drawn, 1.0)
        missed = missed * np.clip((size - hits - drawn) / left, 0.0, 1.0)
        if drawn + 1 in ranks:
            recall[drawn + 1] = float(1 - missed.mean()) if len(missed) else 0.0
    return recall
