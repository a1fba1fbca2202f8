"""Which ground is for training and which for testing: drives cut along the route, with a buffer; roles by drive.

Convention: positions are UTM metres of one zone, float64; the frames of a drive lie together, in driving order. The
stretch that a cut names, in shares of each drive's own path or in metres along it, is `test`, the rest is `train`. A
train frame within `buffer` metres (straight line, inclusive) of any test frame, of whatever drive, is `buffer` and
belongs to neither. So no test ground lies within the buffer of training ground, also where a loop comes back to the
cut, or where another lap's path is longer and its cut falls elsewhere. Test ground never shrinks.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from seqdata import geometry
from seqdata.errors import ContractError, UsageError
from seqdata.geometry import BoolArray, Float64Array

Parts = npt.NDArray[np.str_]
TRAIN, TEST, BUFFER = "train", "test", "buffer"
# Metres: twice the radius within which the papers call two windows the same place.
DEFAULT_BUFFER = 50.0
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)\s*(m?)"
_CUT = re.compile(rf"{_NUMBER}(?:\s*-\s*{_NUMBER})?")


@dataclass(frozen=True)
class Cut:
    """The test stretch of a drive, [start, stop).

    Attributes:
        start: Where it begins.
        stop: Where it ends; None is the drive's end.
        metres: Whether both are metres along the drive; else they are shares of its length.
    """

    start: float
    stop: float | None = None
    metres: bool = False

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """Parse `0.6`, `1200m`, `0.5-0.8` or `1200m-1800m`.

        Raises:
            ContractError: For another text.

        Example:
            >>> Cut.parse("1200m-1800m")
            Cut(start=1200.0, stop=1800.0, metres=True)
        """
        match = _CUT.fullmatch(text.strip().lower())
        if match is not None:
            start, unit, stop, stop_unit = match.groups()
            cut = cls(float(start), None if stop is None else float(stop), unit == "m")
            greatest = math.inf if cut.metres else 1.0
            one_unit = stop is None or unit == stop_unit
            if one_unit and cut.start < (greatest if cut.stop is None else cut.stop) <= greatest:
                return cut
        raise ContractError(
            f"option cut has '{text}'; it takes where the test stretch starts, as a share of each drive (0.6) or in "
            "metres (1200m), or from where to where: 0.5-0.8, 1200m-1800m"
        )

    def tests(self, along: Float64Array) -> BoolArray:
        """Test which frames of one drive lie on the stretch: (n,) metres driven, rising from 0 -> (n,) bool."""
        unit = 1.0 if self.metres or not len(along) else along[-1]
        stop = math.inf if self.stop is None else self.stop * unit
        is_test: BoolArray = (along >= self.start * unit) & (along < stop)
        return is_test


def cut_along_route(
    easting: npt.ArrayLike, northing: npt.ArrayLike, drive: npt.ArrayLike, *, cut: Cut, buffer: float
) -> Parts:
    """Divide the frames of a city into training ground, test ground and the buffer between them.

    Convention: see the module.

    Args:
        easting: (n,) metres.
        northing: (n,) metres.
        drive: (n,) names of drives; the frames of one lie together.
        cut: The test stretch of each drive.
        buffer: Metres around the test stretch that are not trained on.

    Returns:
        (n,) text: "train", "test" or "buffer".

    Raises:
        ContractError: If `buffer` is negative or no number.

    Example:
        >>> parts = cut_along_route([0, 40, 80, 120], [0] * 4, ["d"] * 4, cut=Cut.parse("0.9"), buffer=50.0)
        >>> parts.tolist()
        ['train', 'train', 'buffer', 'test']
    """
    if not (math.isfinite(buffer) and buffer >= 0):
        raise UsageError(f"option buffer has {buffer}; it takes metres, 0 or more")
    xy = np.column_stack([np.asarray(easting, np.float64), np.asarray(northing, np.float64)])
    drives = np.asarray(drive)
    # Where the name of the drive changes, the next one starts.
    starts = np.flatnonzero(drives[1:] != drives[:-1]) + 1
    tracks = (geometry.track_metres(track[:, 0], track[:, 1]) for track in np.split(xy, starts))
    is_test = np.concatenate([cut.tests(along) for along in tracks])
    in_buffer = np.zeros(len(xy), bool)
    in_buffer[~is_test] = _within(xy[~is_test], xy[is_test], buffer)
    return np.where(is_test, TEST, np.where(in_buffer, BUFFER, TRAIN))


def _within(points: Float64Array, others: Float64Array, radius: float) -> BoolArray:
    """Which of `points`, (n, 2), have one of `others`, (m, 2), at most `radius` away: (n,) bool."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    # The tree compares squares: it searches a little farther, and the distance itself decides.
    distance, _ = cKDTree(others, balanced_tree=False).query(points, distance_upper_bound=radius * 1.001 + 1e-6)
    within: BoolArray = distance <= radius
    return within


def parse_roles(text: str) -> dict[str, str]:
    """Parse roles of drives.

    Args:
        text: As in `database:drive1,query:drive2`; a drive's name may hold a colon, but no comma.

    Returns:
        Drive → role.

    Raises:
        ContractError: For anything else, or a drive named twice.

    Example:
        >>> parse_roles("database:monday,query:friday")
        {'monday': 'database', 'friday': 'query'}
    """
    roles: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        role, _, drive = (part.strip() for part in item.partition(":"))
        if role not in ("database", "query") or not drive:
            raise ContractError(
                f"option roles has '{item}'; it takes database:DRIVE and query:DRIVE, with commas between"
            )
        if drive in roles:
            raise UsageError(f"option roles names drive '{drive}' twice")
        roles[drive] = role
    return roles
