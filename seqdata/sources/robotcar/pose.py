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
import numpy.typing as npt
import polars as pl

from seqdata.geometry import Float64Array, IntArray
from seqdata.sources.csv_tables import has_fix, parse_columns, parse_text_csv

PoseSource = Literal["rtk", "ins", "gps"]
PoseMode = Literal["interpolate", "nearest"]
GOOD = "INS_SOLUTION_GOOD"
_METRES = ("latitude", "longitude", "easting", "northing")
_MICROSECONDS = 1e6


@dataclass(frozen=True, eq=False)
class Log:
    """The good rows of one log, (n,) each, in rising time: `time` µs, degrees, UTM metres as published, `yaw` radians.

    `yaw` is None where the source has none.
    """

    time: IntArray
    latitude: Float64Array
    longitude: Float64Array
    easting: Float64Array
    northing: Float64Array
    yaw: Float64Array | None


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses at m times, (m,) each: `known` tells where there is one; `heading` degrees 0…360, NaN without yaw."""

    known: npt.NDArray[np.bool_]
    latitude: Float64Array
    longitude: Float64Array
    easting: Float64Array
    northing: Float64Array
    heading: Float64Array


def read_log(data: bytes, file: str, source: PoseSource) -> Log:
    """The good rows of a log; of rows of one timestamp the first.

    Raises: InputError when it is no CSV, ContractError naming `file` and a missing column.
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
    metres = {name: rows[name].to_numpy() for name in _METRES}
    return Log(time=rows["timestamp"].to_numpy(), yaw=None if source == "gps" else rows["yaw"].to_numpy(), **metres)


def look_up(log: Log, time: IntArray, mode: PoseMode, gap: float) -> Poses:
    """The poses at `time` (m,) µs: between the two good rows around each, or at the nearer (a tie: the earlier).

    Unknown where no row lies on one side, or the two are more than `gap` seconds apart; a row at the very time is both.
    """
    if not len(log.time):
        nothing = np.full(len(time), np.nan)
        return Poses(np.zeros(len(time), np.bool_), *[nothing] * 5)
    before = np.searchsorted(log.time, time, side="right") - 1
    after = np.searchsorted(log.time, time, side="left")
    known = (before >= 0) & (after < len(log.time))
    before, after = before.clip(0), after.clip(max=len(log.time) - 1)
    apart = log.time[after] - log.time[before]
    known &= apart <= gap * _MICROSECONDS
    share = (time - log.time[before]) / np.maximum(apart, 1)
    if mode == "nearest":
        share = np.where(share > 0.5, 1.0, 0.0)

    def between(column: Float64Array) -> Float64Array:
        start, end = column[before], column[after]
        return np.asarray(np.where(share == 1.0, end, start + share * (end - start)))

    heading = np.full(len(time), np.nan)
    if log.yaw is not None:
        turn = (log.yaw[after] - log.yaw[before] + np.pi) % (2 * np.pi) - np.pi
        heading = np.degrees(log.yaw[before] + share * turn) % 360.0
        heading[heading >= 360.0] = 0.0  # -1e-20 % 360 rounds to 360
    return Poses(known=known, heading=heading, **{name: between(getattr(log, name)) for name in _METRES})
