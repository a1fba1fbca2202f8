"""Spacing rules: which frames of one trajectory remain when it is resampled to a spacing in metres.

Two rules go by the name "2 m" in the field, and they keep different frames: *greedy* (a frame is kept when it
is at least the spacing away, in a straight line, from the last kept one) and *arc marks* (the frame nearest
each multiple of the spacing along the driven path). They are never mixed between database and query.

Convention: positions are UTM metres of one zone in float64, rows in driving order; masks are boolean, one per
row.
"""

import numpy as np
import numpy.typing as npt

from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, Float64Array, steps, track_metres

FIRST_LOOK = 16  # frames looked at first when searching for the next kept frame; doubled until it is found


def keep_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float, rule: str = "greedy") -> BoolArray:
    """Frames of one trajectory that the spacing rule `rule` ("greedy" or "arc") keeps: (n,), (n,) metres ->
    (n,) bool.

    Raises: ContractError for an unknown rule or a spacing that is not positive.
    """
    if rule == "greedy":
        return greedy_mask(easting, northing, spacing)
    if rule == "arc":
        return arc_mask(easting, northing, spacing)
    raise ContractError(f"spacing rule {rule!r}: expected greedy or arc")


def greedy_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float) -> BoolArray:
    """Keep the first frame, then each frame at least `spacing` metres in a straight line from the last kept
    one.

    Shapes: (n,), (n,) metres in driving order -> (n,) bool.

    Raises: ContractError for a spacing that is not positive.

    Source: practice of P1 and P2 on RobotCar (the default rule).
    """
    _check_spacing(spacing)
    east, north = np.asarray(easting, np.float64), np.asarray(northing, np.float64)
    keep = np.zeros(east.shape, bool)
    # Where every step is already wide enough the next kept frame is simply the next frame: such stretches go
    # at once.
    close = np.append(np.flatnonzero(steps(east, north)[1:] < spacing), len(east) - 1)
    here = 0
    while here < len(east):
        stop = int(close[np.searchsorted(close, here)])
        keep[here : stop + 1] = True
        here = _next_beyond(east, north, stop, spacing)
    return keep


def arc_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float) -> BoolArray:
    """Keep the frame nearest each multiple of `spacing` metres along the driven path, no frame twice.

    Shapes: (n,), (n,) metres in driving order -> (n,) bool. Of two equally near frames the earlier is kept;
    marks run from 0 to the length of the path.

    Raises: ContractError for a spacing that is not positive.

    Source: seqNet's RobotCar lists (mean gap 1.98–1.99 m for 2 m marks).
    """
    _check_spacing(spacing)
    path = track_metres(easting, northing)
    keep = np.zeros(path.shape, bool)
    if len(path) == 0:
        return keep
    marks = np.arange(int(path[-1] // spacing) + 1) * spacing
    after = np.minimum(np.searchsorted(path, marks), len(path) - 1)
    # Frames standing still share one path value: the earliest of them stands for all.
    before = np.searchsorted(path, path[np.maximum(after - 1, 0)])
    nearer = marks - path[before] <= np.abs(path[after] - marks)
    keep[np.where(nearer, before, after)] = True
    return keep


def _next_beyond(east: Float64Array, north: Float64Array, here: int, spacing: float) -> int:
    """First row after `here` at least `spacing` metres away from it, or the number of rows."""
    start, look = here + 1, FIRST_LOOK
    while start < len(east):
        dx, dy = east[start : start + look] - east[here], north[start : start + look] - north[here]
        beyond = np.sqrt(dx * dx + dy * dy) >= spacing
        index = int(beyond.argmax())
        if beyond[index]:
            return start + index
        start, look = start + look, look * 2
    return len(east)


def _check_spacing(spacing: float) -> None:
    if not (np.isfinite(spacing) and spacing > 0):
        raise ContractError(f"spacing {spacing}: expected a positive number of metres")
