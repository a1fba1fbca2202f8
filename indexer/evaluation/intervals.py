"""95 % intervals of a recall by resampling trajectories, or blocks of them: overlapping windows are not independent.

Source: cluster bootstrap, percentile form (Davison & Hinkley 1997, section 3.8); Wilson 1927 where it cannot
move.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.geometry import IntArray

DRAWS = 2000
FEWEST = 10  # fewer trajectories than this are cut into blocks; fewer blocks than this get a Wilson interval
BLOCK_METRES = 100.0
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Units:
    """What is resampled: `labels` (n,) int64, the unit of every query; `singular` and `plural` name them in words."""

    labels: IntArray
    singular: str
    plural: str

    def say(self, number: int) -> str:
        """`number` of these units in words."""
        return f"{number} {self.singular if number == 1 else self.plural}"


def resampling_units(queries: pl.DataFrame, counted: npt.NDArray[np.bool_]) -> Units:
    """The units of the queries: their trajectories when ten or more of them hold a counted query, else blocks.

    `queries` (n rows, table contract `places`), `counted` (n,) which of them enter the recall.

    *Convention*: a block is a run of one trajectory's query windows, in track order, at least 100 m long
    (between window centres, UTM metres) and at least one window's own extent (`length` × `step` track rows),
    so that only windows at a seam share frames with the next block. A rest shorter than that joins the block
    before it; no block spans two trajectories.
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


def _cut(windows: pl.DataFrame) -> IntArray:
    """Block numbers (m,) from 0 of one trajectory's windows in track order."""
    easting, northing = windows["easting"].to_numpy(), windows["northing"].to_numpy()
    driven = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(easting), np.diff(northing)))])
    first = windows["first"].to_numpy().astype(np.int64)
    extent = windows["length"].to_numpy().astype(np.int64) * windows["step"].to_numpy()
    blocks = np.zeros(len(windows), np.int64)
    begin = 0
    for row in range(1, len(windows)):
        enough = driven[row] - driven[begin] >= BLOCK_METRES and first[row] - first[begin] >= extent[begin]
        begin = row if enough else begin
        blocks[row] = blocks[row - 1] + enough
    # The last block covers m windows, that is m gaps and not m - 1: judge it as if one more window followed.
    metres = driven[-1] - driven[begin] + driven[-1] / max(len(driven) - 1, 1)
    rows = first[-1] - first[begin] + (first[-1] - first[0]) / max(len(first) - 1, 1)
    if blocks[-1] > 0 and (metres < BLOCK_METRES or rows < extent[begin]):
        blocks[begin:] -= 1
    return blocks


def bootstrap(hits: IntArray, totals: IntArray, seed: int) -> npt.NDArray[np.float64]:
    """Percentile 95 % intervals (c, 2) of the recalls of c columns, resampling units with replacement.

    `hits` (u, c) and `totals` (u,) are each unit's counts; 2,000 draws from
    `numpy.random.default_rng(seed)`, the same draws for every column.
    """
    weights = draw_weights(len(totals), seed)
    recalls = (weights @ hits) / (weights @ totals)[:, None]
    bounds: npt.NDArray[np.float64] = np.percentile(recalls, [2.5, 97.5], axis=0).T
    return bounds


def draw_weights(units: int, seed: int) -> IntArray:
    """How often each unit is drawn (2,000, units) when as many are drawn with replacement: the draws of `bootstrap`."""
    rng = np.random.default_rng(seed)
    weights: IntArray = rng.multinomial(units, np.full(units, 1.0 / units), size=DRAWS)
    return weights


def wilson(recall: float, units: int) -> tuple[float, float]:
    """Wilson score interval of a share observed over `units` independent trials."""
    spread = Z95**2 / units
    centre = (recall + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * float(np.sqrt(recall * (1 - recall) / units + spread / (4 * units)))
    return max(0.0, min(centre - half, recall)), min(1.0, max(centre + half, recall))


def recall_intervals(
    hits: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], units: Units, seed: int
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Intervals (c, 2) and how each was found, for c recalls over the counted queries.

    `hits` (n, c) tells whether query i is a hit of recall c. A recall of exactly 0 or 1 cannot move under
    resampling, and fewer than ten units resample badly: those get a Wilson interval with n = number of units.
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
