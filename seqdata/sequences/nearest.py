"""How far each query window is from the nearest database window, however far that is.

The pair tables end at a radius; this table has one row for every query, so that a query without a positive says how far
away the map was.

Convention: as in `seqdata.sequences.positives`, metres of one zone a group, or ranks. The least distance is that of the
two nearest frames, the centre distance that of the nearest centre frames. Where a group has no database window both are
unknown.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.geometry import Float64Array, IntArray
from seqdata.sequences.tiles import WindowSet

CHUNK = 1 << 18  # points of one query of the KD-tree, so that its answers stay at a few MiB
NEAREST_SCHEMA = pl.Schema({"query": pl.Int32, "min_distance": pl.Float64, "centre_distance": pl.Float64})


def nearest(query: WindowSet, database: WindowSet) -> pl.DataFrame:
    """Measure how far every query window is from the nearest database window of its group.

    Args:
        query: The query windows.
        database: The database windows, in the same unit.

    Returns:
        Contract `nearest`, one row a query window in their order: query (int32, row of the set), min_distance and
        centre_distance (float64, in the sets' unit, null where the group has no database window).

    Example:
        >>> query = WindowSet.from_coordinates([[0.0, 0.0]], first=[0], length=1)
        >>> database = WindowSet.from_coordinates([[3.0, 4.0], [9.0, 0.0]], first=[0, 1], length=1)
        >>> nearest(query, database).row(0)
        (0, 5.0, 5.0)
    """
    least = np.full(len(query), np.nan)
    centre = np.full(len(query), np.nan)
    for group in np.unique(query.group):
        rows, theirs = np.flatnonzero(query.group == group), np.flatnonzero(database.group == group)
        if len(theirs):
            least[rows] = _least_of_windows(query, rows, database.xy[_frames(database, theirs)])
            centre[rows] = distance_to(query.xy[_centres(query, rows)], database.xy[_centres(database, theirs)])
    table = pl.DataFrame({"query": np.arange(len(query)), "min_distance": least, "centre_distance": centre})
    return table.with_columns(pl.col("min_distance", "centre_distance").fill_nan(None)).cast(NEAREST_SCHEMA)


def distance_to(points: Float64Array, ground: Float64Array) -> Float64Array:
    """Measure how far every point is from the nearest point of `ground`.

    Shape:
        points (n, 2), ground (m, 2) -> (n,) in the same unit; infinite where m is 0.

    Example:
        >>> distance_to(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [9.0, 0.0]]))
        array([5.])
    """
    if not len(ground) or not len(points):
        return np.full(len(points), np.inf)
    from scipy.spatial import cKDTree  # heavy: opening a dataset does not need it

    tree = cKDTree(ground)
    indices = [tree.query(points[at : at + CHUNK])[1] for at in range(0, len(points), CHUNK)]
    delta = points - ground[np.concatenate(indices)]
    # The same arithmetic as the pair tables', so that both say the same number.
    distance: Float64Array = np.sqrt(delta[:, 0] * delta[:, 0] + delta[:, 1] * delta[:, 1])
    return distance


def _least_of_windows(query: WindowSet, rows: IntArray, ground: Float64Array) -> Float64Array:
    """Least distance of each window's frames to `ground`: (n,)."""
    used = _frames(query, rows)
    # Each frame is looked up once, however many windows share it.
    of_frame = np.full(len(query.xy), np.inf)
    of_frame[used] = distance_to(query.xy[used], ground)
    least = np.full(len(rows), np.inf)
    for index in range(int(query.length[rows].max())):
        inside = query.length[rows] > index
        frames = query.first[rows[inside]] + index * query.step[rows[inside]]
        least[inside] = np.minimum(least[inside], of_frame[frames])
    return least


def _frames(windows: WindowSet, rows: IntArray) -> IntArray:
    """Frame rows that any of the windows `rows` holds, each once."""
    used: npt.NDArray[np.bool_] = np.zeros(len(windows.xy), dtype=bool)
    for index in range(int(windows.length[rows].max())):
        inside = rows[windows.length[rows] > index]
        used[windows.first[inside] + index * windows.step[inside]] = True
    return np.flatnonzero(used)


def _centres(windows: WindowSet, rows: IntArray) -> IntArray:
    """Frame rows of the windows' centres."""
    centres: IntArray = windows.first[rows] + (windows.length[rows] - 1) // 2 * windows.step[rows]
    return centres
