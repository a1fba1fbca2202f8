"""Coordinates and headings: lat/lon to UTM in one chosen zone and back, driving directions, track metres.

Convention: latitude and longitude are WGS84 degrees; easting and northing are UTM metres in float64 (float32
moves ground-truth pairs). A zone is its number and its *hemisphere*, "32N" or "23S" (never a latitude band
letter); southern northings carry the 10,000 km false northing, as `utm.from_latlon` gives them. Everything
that is compared lies in one zone, even where a city straddles a zone's edge or the equator. Headings are
degrees clockwise from grid north, 0…360.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import utm

from seqdata.errors import InputError

ArrayLike = npt.ArrayLike

# Array types of every floor, defined once here, in the lowest room that handles arrays.
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Either width, for code such as the synthetic world's that takes both.
FloatArray = npt.NDArray[np.floating[Any]]

STILL = 0.1  # metres, the jitter of good poses: neighbours of a frame that are nearer say nothing about its direction


def choose_zone(latitude: ArrayLike, longitude: ArrayLike) -> str:
    """Choose the UTM zone of the median point of a set of positions, to be used for the whole set.

    Args:
        latitude: WGS84 degrees (n,); rows with NaN are passed over.
        longitude: WGS84 degrees (n,).

    Returns:
        Zone number and hemisphere, such as "32N"; Norway's and Svalbard's special zones are honoured.

    Raises:
        InputError: If no position is finite, or the median lies outside UTM (80° S to 84° N).

    Example:
        >>> choose_zone([50.9, 51.0], [6.9, 7.0])
        '32N'
    """
    lat, lon = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    is_finite = np.isfinite(lat) & np.isfinite(lon)
    if not is_finite.any():
        raise InputError("no UTM zone can be chosen: no position is given")
    lat, lon = lat[is_finite], lon[is_finite]
    middle = float(np.median(lat))
    # Longitudes are unwrapped around the first point, so that a set across the antimeridian has a median
    # inside it.
    offset = float(np.median((lon - lon[0] + 180.0) % 360.0 - 180.0))
    meridian = (lon[0] + offset + 180.0) % 360.0 - 180.0
    if not -80.0 <= middle <= 84.0:
        raise InputError(f"latitude {middle:g} lies outside UTM (80° S to 84° N)")
    number = utm.latlon_to_zone_number(middle, meridian)
    return f"{number}{'N' if middle >= 0 else 'S'}"


def parse_zone(zone: str) -> tuple[int, bool]:
    """Split a zone into its number 1 to 60 and whether it is the northern hemisphere.

    Raises:
        InputError: If the text is no number with N or S.

    Example:
        >>> parse_zone("23S")
        (23, False)
    """
    digits, letter = zone[:-1], zone[-1:].upper()
    if not digits.isdecimal() or not 1 <= int(digits) <= 60 or letter not in ("N", "S"):
        raise InputError(f"UTM zone {zone!r}: expected a number 1 to 60 and N or S for the hemisphere, as in 32N")
    return int(digits), letter == "N"


def to_utm(latitude: ArrayLike, longitude: ArrayLike, zone: str) -> tuple[Float64Array, Float64Array]:
    """Project WGS84 positions to metres of one UTM zone.

    Args:
        latitude: Degrees (n,); NaN positions stay NaN.
        longitude: Degrees (n,).
        zone: Zone and hemisphere, such as "32N".

    Returns:
        Eastings and northings, float64 (n,) each.

    Convention: the zone's own false northing holds for every point, so that northings run through at the equator.

    Raises:
        InputError: If the zone is malformed or a position lies outside UTM.

    Example:
        >>> easting, northing = to_utm([0.0], [9.0], "32N")
        >>> round(float(easting[0])), round(float(northing[0]))
        (500000, 0)
    """
    number, northern = parse_zone(zone)
    lat, lon = (
        np.atleast_1d(np.asarray(latitude, np.float64)),
        np.atleast_1d(np.asarray(longitude, np.float64)),
    )
    is_finite = np.isfinite(lat) & np.isfinite(lon)
    easting, northing = np.full(lat.shape, np.nan), np.full(lat.shape, np.nan)
    if is_finite.any():
        try:
            east, north, _, _ = utm.from_latlon(lat[is_finite], lon[is_finite], number, force_northern=northern)
        except utm.OutOfRangeError as error:
            raise InputError(f"positions do not fit UTM zone {zone}: {error}") from error
        easting[is_finite], northing[is_finite] = east, north
    return easting, northing


def to_latlon(easting: ArrayLike, northing: ArrayLike, zone: str) -> tuple[Float64Array, Float64Array]:
    """Convert metres of one UTM zone to latitude and longitude; the inverse of `to_utm`.

    Shape:
        easting (n,), northing (n,) -> WGS84 degrees float64 (n,), (n,); NaN positions stay NaN.

    Raises:
        InputError: If the zone is malformed.
    """
    number, northern = parse_zone(zone)
    east, north = np.asarray(easting, np.float64), np.asarray(northing, np.float64)
    # Not strict: beyond the zone's edge and across the equator the formulas hold, and that is what one zone
    # means.
    lat, lon = utm.to_latlon(np.atleast_1d(east), np.atleast_1d(north), number, northern=northern, strict=False)
    return np.asarray(lat, np.float64), np.asarray(lon, np.float64)


def steps(easting: ArrayLike, northing: ArrayLike) -> Float64Array:
    """Measure straight-line metres from the previous frame, (n,) -> (n,); 0 for the first.

    Example:
        >>> steps([0.0, 3.0], [0.0, 4.0]).tolist()
        [0.0, 5.0]
    """
    east, north = np.asarray(easting, np.float64), np.asarray(northing, np.float64)
    length = np.zeros(east.shape)
    dx, dy = np.diff(east), np.diff(north)
    # The same arithmetic everywhere: np.hypot rounds differently, and pairs at a radius would move.
    length[1:] = np.sqrt(dx * dx + dy * dy)
    return length


def track_metres(easting: ArrayLike, northing: ArrayLike) -> Float64Array:
    """Measure metres driven since a trajectory's first frame along straight lines between frames, (n,) -> (n,)."""
    return np.cumsum(steps(easting, northing))


def driving_headings(easting: ArrayLike, northing: ArrayLike, *, still: float = STILL) -> Float64Array:
    """Estimate the driving direction at every frame of one trajectory from its neighbouring positions.

    Convention: the direction from the previous to the next frame (central difference; one-sided at the ends). Where
    those two are less than `still` metres apart, the last direction holds; before the first movement, the first
    one. A trajectory that never moves gives NaN everywhere.

    Args:
        easting: Metres in driving order, (n,).
        northing: Metres in driving order, (n,).
        still: Metres below which the camera counts as standing.

    Returns:
        Degrees in 0…360, clockwise from grid north, (n,).

    Example:
        >>> driving_headings([0.0, 1.0, 1.0], [0.0, 0.0, 1.0]).tolist()
        [90.0, 45.0, 0.0]
    """
    east, north = np.asarray(easting, np.float64), np.asarray(northing, np.float64)
    if len(east) < 2:
        return np.full(east.shape, np.nan)
    after, before = (
        np.minimum(np.arange(len(east)) + 1, len(east) - 1),
        np.maximum(np.arange(len(east)) - 1, 0),
    )
    dx, dy = east[after] - east[before], north[after] - north[before]
    heading = np.degrees(np.arctan2(dx, dy)) % 360.0
    heading[heading >= 360.0] = 0.0  # -1e-20 % 360 rounds to 360
    moving = np.hypot(dx, dy) >= max(still, np.finfo(np.float64).tiny)
    if not moving.any():
        return np.full(east.shape, np.nan)
    # A running maximum over row numbers carries each moving row forward; rows before the first one take that one.
    last = np.maximum.accumulate(np.where(moving, np.arange(len(east)), -1))
    last[last < 0] = np.flatnonzero(moving)[0]
    filled: Float64Array = heading[last]
    return filled


def heading_difference(first: ArrayLike, second: ArrayLike) -> Float64Array:
    """Measure the least angle between two directions: degrees in, 0…180 out; shapes broadcast, NaN stays NaN.

    Example:
        >>> heading_difference(350.0, 10.0).item()
        20.0
    """
    turn = (np.asarray(first, np.float64) - np.asarray(second, np.float64)) % 360.0
    least: Float64Array = np.minimum(turn, 360.0 - turn)
    return least
