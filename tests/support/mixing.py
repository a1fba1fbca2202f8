"""How well an order of windows mixes, against a global shuffle."""

import numpy as np

from seqdata.geometry import IntArray
from seqdata.streaming.shuffle import BLOCK


def mixing(rows: IntArray, span: int) -> float:
    """Measure how well an order mixes, against a global shuffle (1 is as well).

    Counts the distinct blocks among `span` windows in a row; the mean over all whole spans is divided by the
    expectation for `span` of the n windows drawn without return.

    Args:
        rows: An order, (n,).
        span: Windows in a row that are looked at together, at most n.
    """
    spans = len(rows) // span
    blocks = np.sort(rows[: spans * span].reshape(spans, span) // BLOCK, axis=1)
    distinct = 1 + (np.diff(blocks, axis=1) != 0).sum(axis=1)
    sizes = np.bincount(rows // BLOCK)
    # A block of s windows is missed by a draw of `span` of n with probability C(n-s, span) / C(n, span).
    missed = [_missed(len(rows), int(size), span) for size in np.unique(sizes)]
    expected = sum(
        (1 - chance) * int((sizes == size).sum()) for size, chance in zip(np.unique(sizes), missed, strict=True)
    )
    return float(distinct.mean() / expected)


def _missed(windows: int, size: int, span: int) -> float:
    """Chance that none of `size` given windows is among `span` drawn of `windows` without return."""
    left = windows - span - np.arange(size)
    return float(np.prod(np.maximum(left, 0) / (windows - np.arange(size))))
