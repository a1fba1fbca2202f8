"""95 % intervals of a recall by resampling trajectories, or blocks of them: overlapping windows are not independent.

The bootstrap draws clusters, in percentile form (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their
Application, 1997, sec. 3.8); where resampling cannot move a recall it is E. B. Wilson's score interval (1927). See
docs/methods.md#intervals.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seqdata.geometry import BoolArray, Float64Array, IntArray

if TYPE_CHECKING:
    import polars as pl

DRAWS = 2000  # the 2.5 % quantile then rests on 50 draws: its own error is small beside the interval
FEWEST = 10  # fewer trajectories than this are cut into blocks; fewer blocks than this get a Wilson interval
BLOCK_METRES = 100.0  # a guess: four times the usual radius, so that most hits of two blocks are other places
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Units:
    """What is resampled: `labels` (n,) int64, the unit of every query; `singular` and `plural` name units in words."""

    labels: IntArray
    singular: str
    plural: str

    def say(self, number: int) -> str:
        """Name `number` of these units in words."""
        return f"{number} {self.singular if number == 1 else self.plural}"


def resampling_units(queries: "pl.DataFrame", counted: BoolArray) -> Units:
    """Choose the units of queries: their trajectories where ten or more hold a counted query, else blocks of them.

    Convention: a block is a run of one trajectory's query windows, in track order, at least 100 m long (between window
    centres, UTM metres) and at least one window's own extent (`length` × `step` track rows), so that only windows at a
    seam share frames with the next block. A rest shorter than that joins the block before it; no block spans two
    trajectories.

    Args:
        queries: Query windows (n rows, table contract `places`).
        counted: Which of them enter the recall (n,).
    """
    trajectories = queries["trajectory"].to_numpy()
    if len(np.unique(trajectories[counted])) >= FEWEST:
        _, labels = np.unique(trajectories, return_inverse=True)
        return Units(labels.astype(np.int64), "trajectory", "trajectories")
    labels, length = np.empty(len(queries), np.int64), f"{BLOCK_METRES:.0f} m or more"
    start = 0
    for trajectory in np.unique(trajectories):
        members = np.flatnonzero(trajectories == trajectory)
        ordered = members[np.argsort(queries["first"].to_numpy()[members], kind="stable")]
        blocks = _cut(queries[ordered])
        labels[ordered] = blocks + start
        start += int(blocks.max()) + 1
    return Units(labels, f"block of {length}", f"blocks of {length}")


def _cut(windows: "pl.DataFrame") -> IntArray:
    """Block numbers (m,) from 0 of one trajectory's windows in track order."""
    easting, northing = windows["easting"].to_numpy(), windows["northing"].to_numpy()
    driven = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(easting), np.diff(northing)))])
    first = windows["first"].to_numpy().astype(np.int64)
    extent = windows["length"].to_numpy().astype(np.int64) * windows["step"].to_numpy()
    blocks = np.zeros(len(windows), np.int64)
    # One pass: where a block begins depends on where the one before it ended.
    begin = 0
    for row in range(1, len(windows)):
        enough = driven[row] - driven[begin] >= BLOCK_METRES and first[row] - first[begin] >= extent[begin]
        begin = row if enough else begin
        blocks[row] = blocks[row - 1] + enough
    if not blocks[-1]:
        return blocks
    # The last block covers m windows, that is m gaps and not m - 1: judge it as if one more window followed.
    metres = driven[-1] - driven[begin] + driven[-1] / (len(driven) - 1)
    rows = first[-1] - first[begin] + (first[-1] - first[0]) / (len(first) - 1)
    if metres < BLOCK_METRES or rows < extent[begin]:
        blocks[begin:] -= 1
    return blocks


def bootstrap(hits: IntArray, totals: IntArray, seed: int) -> Float64Array:
    """Compute percentile 95 % intervals of the recalls of c columns, resampling units with replacement.

    Args:
        hits: Hits of each unit (u, c).
        totals: Counted queries of each unit (u,).
        seed: Of the 2,000 draws, which are the same for every column.

    Returns:
        Low and high ends (c, 2).

    Example:
        >>> bootstrap(np.array([[0], [1], [1], [0]]), np.array([1, 1, 1, 1]), seed=0).tolist()
        [[0.0, 1.0]]
    """
    # Only how often a unit is drawn matters, so a draw is a vector of counts and a recall two products.
    weights = draw_weights(len(totals), seed)
    recalls = (weights @ hits) / (weights @ totals)[:, None]
    bounds: Float64Array = np.percentile(recalls, [2.5, 97.5], axis=0).T
    return bounds


def draw_weights(units: int, seed: int) -> IntArray:
    """Count how often each unit is drawn (2,000, units) where as many are drawn as there are, with replacement."""
    rng = np.random.default_rng(seed)
    weights: IntArray = rng.multinomial(units, np.full(units, 1.0 / units), size=DRAWS)
    return weights


def wilson(recall: float, units: int) -> tuple[float, float]:
    """Compute Wilson's score interval of a share observed over `units` independent trials.

    Example:
        >>> [round(end, 3) for end in wilson(1.0, 10)]
        [0.722, 1.0]
    """
    spread = Z95**2 / units
    centre = (recall + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * float(np.sqrt(recall * (1 - recall) / units + spread / (4 * units)))
    return max(0.0, min(centre - half, recall)), min(1.0, max(centre + half, recall))


def recall_intervals(hits: BoolArray, counted: BoolArray, units: Units, seed: int) -> tuple[Float64Array, list[str]]:
    """Compute the intervals of c recalls over the counted queries.

    A recall of exactly 0 or 1 cannot move under resampling, and fewer than ten units resample badly: those get a Wilson
    interval with n = number of units.

    Args:
        hits: Whether query i is a hit of recall c (n, c).
        counted: Which queries count (n,).
        units: What is resampled.
        seed: Of the draws.

    Returns:
        Low and high ends (c, 2), and how each was computed, in words.
    """
    names, unit_of = np.unique(units.labels[counted], return_inverse=True)
    number = len(names)
    totals = np.bincount(unit_of, minlength=number)
    sums = np.stack([np.bincount(unit_of, column, number) for column in hits[counted].T], axis=1)
    recalls = sums.sum(axis=0) / totals.sum()
    bounds = bootstrap(sums.astype(np.int64), totals, seed)
    resampled = f"bootstrap over {units.say(number)}, {DRAWS} draws, seed {seed}"
    methods = [resampled] * len(recalls)
    for column, recall in enumerate(recalls):
        if number < FEWEST or recall in (0.0, 1.0):
            bounds[column] = wilson(float(recall), number)
            methods[column] = f"Wilson over {units.say(number)}"
    return bounds, methods
