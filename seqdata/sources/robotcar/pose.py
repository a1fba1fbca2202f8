"""Where the car was when a RobotCar frame was taken: rtk.csv, ins.csv or gps.csv, looked up in time.

Convention: time is microseconds since 1970. Of ins.csv only rows with the status INS_SOLUTION_GOOD count. `yaw` is
radians from north towards east about the downward axis, so its degrees are the heading (the car's, for every camera);
the dataset measures it from true north, 1.4 degrees from grid north at Oxford, and so it stands. gps.csv has no yaw:
the heading is empty, and the build takes it from the track.
Source: the dataset's documentation and SDK (north-east-down frame, roll-pitch-yaw).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sources.csv_tables import has_fix, parse_columns, parse_text_csv

PoseSource = Literal["rtk", "ins", "gps"]
PoseMode = Literal["interpolate", "nearest"]
GOOD = "INS_SOLUTION_GOOD"
_METRES = ("latitude", "longitude", "easting", "northing")
_MICROSECONDS = 1e6
_HOUR = 3600 * _MICROSECONDS
# A guess between a log's own rounding (millimetres) and the next thing that is wrong (a digit, hundreds of metres).
_SAME_PLACE_METRES = 100.0
# Units of times since 1970, each with what its numbers of this age are below.
_UNITS = (("seconds", 1e11), ("milliseconds", 1e14), ("microseconds", 1e17), ("nanoseconds", 1e20))


@dataclass(frozen=True, eq=False)
class Log:
    """The good rows of one log, (n,) each, in rising time.

    Attributes:
        time: (n,) int64 microseconds since 1970.
        latitude: (n,) float64 degrees.
        longitude: (n,) float64 degrees.
        easting: (n,) float64 metres as published.
        northing: (n,) float64 metres as published.
        yaw: (n,) float64 radians from north towards east, None where the source has none.
    """

    time: IntArray
    latitude: Float64Array
    longitude: Float64Array
    easting: Float64Array
    northing: Float64Array
    yaw: Float64Array | None


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses at m times, (m,) each.

    Attributes:
        has_pose: (m,) bool, whether the other fields hold a pose.
        latitude: (m,) float64 degrees.
        longitude: (m,) float64 degrees.
        easting: (m,) float64 metres.
        northing: (m,) float64 metres.
        heading: (m,) float64 degrees 0…360, NaN without yaw.
    """

    has_pose: BoolArray
    latitude: Float64Array
    longitude: Float64Array
    easting: Float64Array
    northing: Float64Array
    heading: Float64Array


def read_log(data: bytes, file: str, source: PoseSource) -> Log:
    """Read the good rows of a log; of rows of one timestamp the first.

    Args:
        data: Bytes of the CSV.
        file: What messages call it.
        source: Which log it is.

    Raises:
        InputError: If it is no CSV.
        ContractError: If a column is missing.
    """
    needed: dict[str, pl.DataType] = {"timestamp": pl.Int64(), **{name: pl.Float64() for name in _METRES}}
    if source != "gps":
        needed["yaw"] = pl.Float64()
    if source == "ins":
        needed["ins_status"] = pl.String()
    table = parse_columns(parse_text_csv(data, file), file, needed).select(*needed)
    floats = [name for name, kind in needed.items() if kind.is_float()]
    good = pl.all_horizontal(pl.col(floats).is_finite()) & has_fix("latitude", "longitude") & (pl.col("timestamp") > 0)
    if source == "ins":
        good &= pl.col("ins_status") == GOOD
    rows = table.filter(good.fill_null(value=False)).unique("timestamp", keep="first", maintain_order=True)
    rows = rows.sort("timestamp")
    rows = rows.filter(_agrees(rows))
    metres = {name: rows[name].to_numpy() for name in _METRES}
    return Log(time=rows["timestamp"].to_numpy(), yaw=None if source == "gps" else rows["yaw"].to_numpy(), **metres)


def _agrees(rows: pl.DataFrame) -> pl.Series:
    """Which rows say one place in degrees and in metres; a damaged digit in either makes two.

    What the log as a whole is off by (another zone's metres, another datum) is no damage: the median comes off first.
    """
    if not rows.height:
        return pl.Series([], dtype=pl.Boolean)
    latitude, longitude = rows["latitude"].to_numpy(), rows["longitude"].to_numpy()
    easting, northing = geometry.to_utm(latitude, longitude, geometry.choose_zone(latitude, longitude))
    east, north = rows["easting"].to_numpy() - easting, rows["northing"].to_numpy() - northing
    error = np.hypot(east, north)
    deviation = np.hypot(east - np.median(east), north - np.median(north))
    other_zone = np.median(error) > _SAME_PLACE_METRES
    return pl.Series(other_zone | (error < _SAME_PLACE_METRES) | (deviation < _SAME_PLACE_METRES))


def look_up(log: Log, time: IntArray, mode: PoseMode, gap: float) -> Poses:
    """Look up where the car was.

    Args:
        log: The log.
        time: (m,) int64 microseconds.
        mode: Between the two good rows around each time, or at the nearer of them (the earlier one at a tie).
        gap: Longest time between the two rows, in seconds. A row at the very time is both of them.

    Returns:
        (m,) poses; none where no row lies on one side, or the two are too far apart in time.
    """
    if not len(log.time):
        nothing = np.full(len(time), np.nan)
        return Poses(np.zeros(len(time), np.bool_), *[nothing] * 5)
    before = np.searchsorted(log.time, time, side="right") - 1
    after = np.searchsorted(log.time, time, side="left")
    has_pose = (before >= 0) & (after < len(log.time))
    before, after = before.clip(0), after.clip(max=len(log.time) - 1)
    span = log.time[after] - log.time[before]
    has_pose &= span <= gap * _MICROSECONDS
    share = (time - log.time[before]) / np.maximum(span, 1)
    if mode == "nearest":
        share = np.where(share > 0.5, 1.0, 0.0)

    def between(column: Float64Array) -> Float64Array:
        start, end = column[before], column[after]
        # At a share of 1 the sum would round the row's own value away.
        return np.asarray(np.where(share == 1.0, end, start + share * (end - start)))

    heading = np.full(len(time), np.nan)
    if log.yaw is not None:
        turn = (log.yaw[after] - log.yaw[before] + np.pi) % (2 * np.pi) - np.pi
        heading = np.degrees(log.yaw[before] + share * turn) % 360.0
        # -1e-20 % 360 rounds to 360
        heading[heading >= 360.0] = 0.0
    return Poses(has_pose=has_pose, heading=heading, **{name: between(getattr(log, name)) for name in _METRES})


def clock_hint(log: Log, time: IntArray) -> str:
    """Say what is wrong with a log's clock where it covers no frame: another unit, or whole hours off.

    Args:
        log: The log.
        time: (m,) int64 microseconds of the frames, rising.

    Returns:
        The end of a message, "" where nothing is wrong, or nothing is known.

    Example:
        >>> frames, nothing = np.array([1_416_315_000_000_000]), np.zeros(1)
        >>> clock_hint(Log(frames * 1000, *[nothing] * 4, yaw=None), frames)
        ": the log's times are nanoseconds, and microseconds are expected"
    """
    if not len(log.time) or not len(time):
        return ""
    unit = next((name for name, limit in _UNITS if abs(float(log.time[0])) < limit), "")
    if unit != "microseconds":
        return f": the log's times are {unit}, and microseconds are expected" if unit else ""
    middle = (float(log.time[0]) + float(log.time[-1])) / 2
    hours = round((middle - (float(time[0]) + float(time[-1])) / 2) / _HOUR)
    shifted = log.time - round(hours * _HOUR)
    if hours and shifted[0] <= time[-1] and shifted[-1] >= time[0]:
        return f": the log's clock is {abs(hours)} h {'ahead of' if hours > 0 else 'behind'} the camera's"
    return ""
