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

# Frames that the search for the next frame looks at first, doubled until one is far enough: at 16 frames a second and
# walking pace 2 m lie within the first look.
FIRST_LOOK = 16


def keep_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float, rule: str = "greedy") -> BoolArray:
    """Resample one trajectory by a spacing rule.

    Args:
        easting: Eastings (n,) in driving order, metres.
        northing: Northings (n,), metres.
        spacing: Spacing in metres.
        rule: "greedy" or "arc".

    Returns:
        Which frames remain, bool (n,).

    Raises:
        ContractError: If the rule is unknown or the spacing is not positive.

    Example:
        >>> keep_mask([0.0, 1.0, 2.0, 3.0, 4.0], [0.0] * 5, spacing=2.0).tolist()
        [True, False, True, False, True]
    """
    if rule == "greedy":
        return greedy_mask(easting, northing, spacing)
    if rule == "arc":
        return arc_mask(easting, northing, spacing)
    raise ContractError(f"spacing rule {rule!r}: expected greedy or arc")


def greedy_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float) -> BoolArray:
    """Mark the first frame, then each frame at least so far in a straight line from the last marked one.

    It is the practice of both papers on Oxford RobotCar and the default rule (docs/methods.md#windows).

    Args:
        easting: Metres in driving order, (n,).
        northing: Metres in driving order, (n,).
        spacing: Metres between frames.

    Returns:
        Bool (n,).

    Raises:
        ContractError: If the spacing is not positive.
    """
    _check_spacing(spacing)
    east, north = np.asarray(easting, np.float64), np.asarray(northing, np.float64)
    keep = np.zeros(east.shape, bool)
    # Where every step is wide enough the next frame that remains is simply the next frame: such stretches are taken
    # at once. `close` holds the frames whose next step is too short, where the search has to look farther.
    close = np.append(np.flatnonzero(steps(east, north)[1:] < spacing), len(east) - 1)
    here = 0
    while here < len(east):
        stop = int(close[np.searchsorted(close, here)])
        keep[here : stop + 1] = True
        here = _next_beyond(east, north, stop, spacing)
    return keep


def arc_mask(easting: npt.ArrayLike, northing: npt.ArrayLike, spacing: float) -> BoolArray:
    """Mark the frame nearest each multiple of a spacing along the driven path, no frame twice.

    Of two equally near frames the earlier one remains; marks run from 0 to the length of the path. It reproduces the
    RobotCar lists of seqNet (mean gap 1.98 to 1.99 m for marks every 2 m; docs/methods.md#seqnet).

    Args:
        easting: Metres in driving order, (n,).
        northing: Metres in driving order, (n,).
        spacing: Metres between marks.

    Returns:
        Bool (n,).

    Raises:
        ContractError: If the spacing is not positive.
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
