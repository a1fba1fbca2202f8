"""The positions file of a team's own drives: one CSV, read into rows with a place, a time and an order.

Convention: see `seqdata.sources.folder`. Rows keep their number below the header (`row`, from 1), so that a row without
an image name can be found again.
"""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.errors import ContractError, InputError
from seqdata.sources.base import on_globe, parse_columns, read_text_csv

_UTM: dict[str, pl.DataType] = {"easting": pl.Float64(), "northing": pl.Float64(), "zone": pl.String()}
_NUMBERS = ("latitude", "longitude", "easting", "northing", "heading")
_PLACE = ("latitude", "longitude", "easting", "northing")
EASTING_RANGE = (-500_000.0, 1_500_000.0)
"""Metres: wider than a zone, since one zone holds a whole city, but no latitude or local coordinate passes as one."""
NORTHING_RANGE = (0.0, 10_000_000.0)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)? ?(Z|[+-][01]\d(?::?[0-5]\d)?)?",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_GREATEST_SECONDS = 1e11
"""Beyond the year 5000: such a number counts milli- or microseconds."""


def read_positions(path: Path) -> pl.DataFrame:
    """Rows of the CSV, each drive in driving order.

    Returns row (from 1), source (empty when the cell is), trajectory, role, position (in the drive's order), time
    (microseconds since 1970), zone (one for all), latitude, longitude, easting, northing (all four empty where there is
    no usable position), heading where the file has it. Raises: InputError when the file cannot be read or has no row,
    ContractError for a missing column or a role, zone or time that is none.
    """
    rows = _read_rows(path)
    placed = _from_geographic(rows) if "latitude" in rows.columns else _from_utm(rows, path)
    return _named_trajectories(_in_driving_order(placed), path)


def _read_rows(path: Path) -> pl.DataFrame:
    """The columns that are known, parsed; blank lines are passed over, but counted."""
    table = read_text_csv(path)
    parse_columns(table, path, {"image": pl.String()})
    if not {"latitude", "longitude"} <= set(table.columns):
        parse_columns(table, path, _UTM)
        table = table.drop("latitude", "longitude", strict=False)
    numbers = {name: pl.Float64() for name in _NUMBERS if name in table.columns}
    rows = parse_columns(table.drop("row", strict=False), path, numbers)
    rows = rows.with_row_index("row", offset=1).filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    if not rows.height:
        raise InputError(f"{path}: no row below the header")
    return rows.select(
        "row",
        _text(rows, "image").str.replace_all("\\", "/", literal=True).str.replace(r"^(\./)+", "").alias("source"),
        _text(rows, "zone").str.to_uppercase().alias("zone"),
        _text(rows, "drive").replace("", "drive").alias("drive"),
        _role(rows, path),
        _time(rows, path),
        *numbers,
    )


def _text(rows: pl.DataFrame, name: str) -> pl.Expr:
    """The text column `name`, stripped; empty text where a cell or the column is absent."""
    return pl.col(name).fill_null("").str.strip_chars() if name in rows.columns else pl.lit("")


def _role(rows: pl.DataFrame, path: Path) -> pl.Expr:
    """The role column, null when absent. Raises: ContractError for another word."""
    role = _text(rows, "role")
    found = set(rows.select(role.alias("role"))["role"]) - {"database", "query", ""}
    if found:
        raise ContractError(f"{path}: column 'role' has '{min(found)}'; it takes database, query or nothing")
    return role.replace("", None).alias("role")


def _time(rows: pl.DataFrame, path: Path) -> pl.Series:
    """Microseconds since 1970, null where the cell is empty. Raises: ContractError for text that is no time."""
    texts = rows.select(_text(rows, "time").alias("time"))["time"] if "time" in rows.columns else [""] * rows.height
    times = []
    for text in texts:
        time = _microseconds(text) if text else None
        if text and time is None:
            raise ContractError(
                f"{path}: column 'time' has '{text}'; it takes ISO 8601, as in 2024-01-31T10:00:05.5+02:00, or seconds "
                "since 1970"
            )
        times.append(time)
    return pl.Series("time", times, dtype=pl.Int64)


def _microseconds(text: str) -> int | None:
    """Microseconds since 1970 of ISO 8601 text (UTC without an offset) or of seconds; None for anything else."""
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            seconds = float(text)
            return round(seconds * 1e6) if abs(seconds) < _GREATEST_SECONDS else None
        *parts, fraction, offset = match.groups()
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc) - _offset(offset or "Z")
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1) + int((fraction or "")[:6].ljust(6, "0"))


def _offset(text: str) -> timedelta:
    """The offset from UTC that `Z`, `+02`, `+0200` or `+02:00` says."""
    if text.upper() == "Z":
        return timedelta(0)
    digits = text[1:].replace(":", "").ljust(4, "0")
    amount = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -amount if text[0] == "-" else amount


def _from_geographic(rows: pl.DataFrame) -> pl.DataFrame:
    """Add zone, easting and northing; rows off the globe lose their position (and go to quarantine)."""
    known = on_globe("latitude", "longitude")
    rows = rows.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in ("latitude", "longitude"))
    return _project(rows)


def _from_utm(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Add latitude and longitude, and bring all rows into one zone; rows out of range or without zone lose their place.

    Raises: ContractError for a zone that is none.
    """
    for zone in rows["zone"].unique().sort():
        _check_zone(zone, path)
    known = pl.col("easting").is_between(*EASTING_RANGE) & pl.col("northing").is_between(*NORTHING_RANGE)
    placed = rows.select((known & (pl.col("zone") != "")).fill_null(value=False).alias("placed"))["placed"].to_numpy()
    latitude, longitude = np.full(rows.height, np.nan), np.full(rows.height, np.nan)
    zones = rows["zone"].to_numpy()
    easting, northing = rows["easting"].to_numpy(), rows["northing"].to_numpy()
    for zone in np.unique(zones[placed]):
        of_zone = placed & (zones == zone)
        latitude[of_zone], longitude[of_zone] = geometry.to_latlon(easting[of_zone], northing[of_zone], str(zone))
    rows = rows.with_columns(
        pl.Series("latitude", latitude).fill_nan(None), pl.Series("longitude", longitude).fill_nan(None)
    )
    known = on_globe("latitude", "longitude")
    rows = rows.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in _PLACE)
    of_placed = rows.filter(pl.col("easting").is_not_null())["zone"]
    return rows if of_placed.n_unique() == 1 else _project(rows)


def _check_zone(zone: str, path: Path) -> None:
    """Raise ContractError for a zone that is none; an empty one is a row without a position."""
    try:
        if zone:
            geometry.parse_zone(zone)
    except InputError as error:
        raise ContractError(f"{path}: column 'zone': {error}") from error


def _project(rows: pl.DataFrame) -> pl.DataFrame:
    """Set zone, easting and northing from latitude and longitude, all in the zone of the median position."""
    latitude, longitude = rows["latitude"].to_numpy(), rows["longitude"].to_numpy()
    if not np.isfinite(latitude).any():
        nothing = pl.lit(None, pl.Float64)
        return rows.with_columns(nothing.alias("easting"), nothing.alias("northing"))
    zone = geometry.choose_zone(latitude, longitude)
    easting, northing = geometry.to_utm(latitude, longitude, zone)
    return rows.with_columns(
        pl.lit(zone).alias("zone"),
        pl.Series("easting", easting).fill_nan(None),
        pl.Series("northing", northing).fill_nan(None),
    )


def _in_driving_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Each drive's rows together, by time where all of that drive's have one, else as in the file, with `position`."""
    timed = pl.col("time").is_not_null().all().over("drive")
    ordered = rows.sort("drive", pl.when(timed).then("time"), "row", maintain_order=True)
    return ordered.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("drive").alias("position"))


def _named_trajectories(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Add `trajectory`: the drive, and of a drive with several roles a part for each.

    Positions are the drive's, so what lies between two frames of a part breaks its windows.
    Raises: ContractError when a part would have the name of another drive.
    """
    mixed = (pl.col("role").fill_null("").n_unique() > 1).over("drive") & pl.col("role").is_not_null()
    part = pl.concat_str("drive", "role", separator="/", ignore_nulls=True)
    named = rows.with_columns(pl.when(mixed).then(part).otherwise("drive").alias("trajectory"))
    shared = named.filter((pl.col("drive").n_unique() > 1).over("trajectory"))
    if shared.height:
        raise ContractError(
            f"{path}: column 'drive' has '{shared['trajectory'][0]}', the name of a part of another drive"
        )
    return named
