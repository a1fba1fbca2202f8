"""The positions file of a team's own drives: one CSV, read into rows with a place and a time.

Convention: see `seqdata.sources.folder.reader`. Rows keep their number below the header (`row`, from 1), so that a
row without
an image name can be found again.
"""

from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.errors import ContractError, InputError
from seqdata.sources.csv_tables import on_globe, parse_columns, read_text_csv
from seqdata.sources.folder.drives import NO_CITY, NO_DRIVE
from seqdata.sources.folder.times import parse_moment

_UTM: dict[str, pl.DataType] = {"easting": pl.Float64(), "northing": pl.Float64(), "zone": pl.String()}
_NUMBERS = ("latitude", "longitude", "easting", "northing", "heading")
_PLACE = ("latitude", "longitude", "easting", "northing")
EASTING_RANGE = (-500_000.0, 1_500_000.0)
"""Metres: wider than a zone, since one zone holds a whole city, but no latitude or local coordinate passes as one."""
NORTHING_RANGE = (0.0, 10_000_000.0)


def read_positions(path: Path) -> pl.DataFrame:
    """Rows of the CSV, in its order.

    Returns row (from 1), source (empty when the cell is), drive, role, city where the file has it, time (microseconds
    since 1970), latitude, longitude (empty where there is no usable position), and easting, northing, zone, heading
    where the file has them. Raises: InputError when the file cannot be read or has no row, ContractError for a missing
    column or a role, zone or time that is none.
    """
    rows = _read_rows(path)
    return _on_globe_only(rows) if "easting" not in rows.columns else _from_utm(rows, path)


def _read_rows(path: Path) -> pl.DataFrame:
    """The columns that are known, parsed; blank lines are passed over, but counted."""
    table = read_text_csv(path)
    parse_columns(table, path, {"image": pl.String()})
    if not {"latitude", "longitude"} <= set(table.columns):
        parse_columns(table, path, _UTM)
        table = table.drop("latitude", "longitude", strict=False)
    else:
        table = table.drop("easting", "northing", "zone", strict=False)
    numbers = {name: pl.Float64() for name in _NUMBERS if name in table.columns}
    rows = parse_columns(table.drop("row", strict=False), path, numbers)
    rows = rows.with_row_index("row", offset=1).filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    if not rows.height:
        raise InputError(f"{path}: no row below the header")
    return rows.select(
        "row",
        _text(rows, "image").str.replace_all("\\", "/", literal=True).str.replace(r"^(\./)+", "").alias("source"),
        _text(rows, "drive").replace("", NO_DRIVE).alias("drive"),
        _role(rows, path),
        _time(rows, path),
        *([_text(rows, "zone").str.to_uppercase().alias("zone")] if "zone" in rows.columns else []),
        *([_text(rows, "city").replace("", NO_CITY).alias("city")] if "city" in rows.columns else []),
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
        time = parse_moment(text) if text else None
        if text and time is None:
            raise ContractError(
                f"{path}: column 'time' has '{text}'; it takes ISO 8601, as in 2024-01-31T10:00:05.5+02:00, or seconds "
                "since 1970"
            )
        times.append(time)
    return pl.Series("time", times, dtype=pl.Int64)


def _on_globe_only(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows off the globe lose their position (and go to quarantine)."""
    known = on_globe("latitude", "longitude")
    return rows.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in ("latitude", "longitude"))


def _from_utm(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Add latitude and longitude; rows out of range or without zone lose their place.

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
    return rows.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in _PLACE)


def _check_zone(zone: str, path: Path) -> None:
    """Raise ContractError for a zone that is none; an empty one is a row without a position."""
    try:
        if zone:
            geometry.parse_zone(zone)
    except InputError as error:
        raise ContractError(f"{path}: column 'zone': {error}") from error
