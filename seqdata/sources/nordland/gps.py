"""Repair of Nordland's GPS logs: one dirty CSV a season, one row a second, many of them damaged.

Convention: latitude and longitude in the file are degrees × 1e5; `tid` is the time of day as HHMMSScc without leading
zeros; lines end in a lone CR. Source: the published logs, read byte by byte.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqdata.errors import InputError, NotEnoughDataError
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sources.csv_tables import has_fix
from seqdata.storage.faults import read_again

METRES_PER_DEGREE = 111_195.0
NEIGHBOURS = 9
# Metres a second; the train runs at most 130 km/h, a damaged row is kilometres off.
GREATEST_SPEED = 60.0


@dataclass(frozen=True)
class GpsLog:
    """Good rows of one log.

    Attributes:
        second: (n,) int64, second of the day, rising.
        latitude: (n,) float64 degrees.
        longitude: (n,) float64 degrees.
    """

    second: IntArray
    latitude: Float64Array
    longitude: Float64Array

    def nearest(self, second: IntArray) -> IntArray:
        """Find the row of the available second nearest to each of `second`, the earlier at a tie: (m,) -> (m,)."""
        after = np.clip(np.searchsorted(self.second, second), 1, len(self.second) - 1)
        before = after - 1
        earlier = second - self.second[before] <= self.second[after] - second
        return np.where(earlier, before, after)


def read_log(path: Path) -> GpsLog:
    """Read a season's log, damaged rows left out.

    Args:
        path: The CSV.

    Raises:
        InputError: If the file is missing or not of this format.
        NotEnoughDataError: If fewer than two rows are good.
    """
    table = _parse(path)
    second = _second_of_day(table["tid"].to_numpy())
    good = table.with_columns(pl.Series("second", second)).filter(pl.col("second") >= 0, has_fix("lat", "lon"))
    # The railway spans 4 degrees: a row 10 degrees from the median has lost or won a digit.
    good = good.filter(
        (pl.col("lat") - pl.col("lat").median()).abs() < 10,
        (pl.col("lon") - pl.col("lon").median()).abs() < 10,
    )
    good = good.filter(_rising(good["second"].to_numpy()))
    good = good.filter(_plausible(good))
    if good.height < 2:
        raise NotEnoughDataError(f"{path}: only {good.height} usable GPS rows; at least 2 are needed")
    columns = (good[name].to_numpy() for name in ("second", "lat", "lon"))
    return GpsLog(*columns)


def _parse(path: Path) -> pl.DataFrame:
    """Rows of exactly six numbers, as tid int64 and lat, lon in degrees."""
    try:
        text = read_again(path.read_bytes).decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"{path}: the season's GPS log cannot be read ({error.strerror})") from error
    lines = text.split("\n")
    if not lines[0].startswith("tid,lat,lon"):
        raise InputError(f"{path}: the first line is not 'tid,lat,lon,speed,course,alt'; this is no Nordland GPS log")
    rows = pl.DataFrame({"line": lines[1:]}, schema={"line": pl.String}).select(pl.col("line").str.split(","))
    # Half a line, or two in one, have other numbers of cells.
    rows = rows.filter(pl.col("line").list.len() == 6)
    whole = pl.col("line").list.eval(pl.element().str.contains(r"^-?\d+$")).list.all()
    fields = rows.filter(whole).select(
        pl.col("line").list.get(0).cast(pl.Int64, strict=False).alias("tid"),
        (pl.col("line").list.get(1).cast(pl.Float64) / 1e5).alias("lat"),
        (pl.col("line").list.get(2).cast(pl.Float64) / 1e5).alias("lon"),
    )
    return fields.drop_nulls()


def _second_of_day(tid: IntArray) -> IntArray:
    """Seconds since midnight, −1 where `tid` is no time of day."""
    hours, minutes, seconds = tid // 1_000_000, tid // 10_000 % 100, tid // 100 % 100
    valid = (tid >= 0) & (hours < 24) & (minutes < 60) & (seconds < 60)
    return np.where(valid, hours * 3600 + minutes * 60 + seconds, -1)


def _rising(second: IntArray) -> BoolArray:
    """Rows on the rising line of time: a row is kept when it is later than every kept row and no wild leap ahead."""
    steps = np.diff(second, prepend=second[:1] - 1)
    leap = (steps > 3600) | (steps <= 0)
    # A wild leap must not raise the maximum, or every later row would look late.
    clean_maximum = np.maximum.accumulate(np.where(leap, second.min(initial=0), second))
    return ~leap & (second >= clean_maximum)


def _plausible(rows: pl.DataFrame) -> pl.Series:
    """Rows near the rolling median of their neighbours: a shifted or cut number lands kilometres away."""
    # A degree of longitude is shorter in the north: by the cosine of the latitude.
    shrink = float(np.cos(np.radians(rows["lat"].to_numpy().mean()))) if rows.height else 1.0
    north = (pl.col("lat") - _local_median("lat")) * METRES_PER_DEGREE
    east = (pl.col("lon") - _local_median("lon")) * METRES_PER_DEGREE * shrink
    span = pl.col("second").diff().fill_null(1).rolling_sum(NEIGHBOURS, center=True, min_samples=1)
    return rows.select(((north**2 + east**2).sqrt() < GREATEST_SPEED * span).alias("ok"))["ok"]


def _local_median(name: str) -> pl.Expr:
    return pl.col(name).rolling_median(NEIGHBOURS, center=True, min_samples=1)
