"""Fixes of a GPX or a CSV, as the four fields of a Track.

Convention: as in along.py; all segments of a GPX follow each other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.errors import InputError, NotEnoughDataError
from seqdata.geometry import Float64Array
from seqdata.sources.csv_tables import has_fix, read_text_csv
from seqdata.sources.folder.gpx import read_track

Fixes = tuple[Float64Array, Float64Array, Float64Array, str]

UNTIMED_SPEED = 10.0
"""Metres a second of a drive whose file names no times."""
_NAMES = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng"),
    "easting": ("easting",),
    "northing": ("northing",),
    "time": ("time",),
    "microseconds": ("timestamp", "timestamp_us"),
}


def read_gpx_fixes(path: Path) -> Fixes:
    """Read time, easting, northing and zone of the tracks of a GPX.

    Raises:
        InputError: When it is absent or cannot be read.
        NotEnoughDataError: If no point has a position.
    """
    track = read_track(path)
    table = pl.DataFrame(
        {"latitude": track.latitude, "longitude": track.longitude, "time": track.time.astype(np.float64) / 1e6}
    )
    return _finish(_projected(table))


def read_csv_fixes(path: Path, zone: str | None) -> Fixes:
    """Read time, easting, northing and zone of a CSV.

    Raises:
        InputError: When it is absent or cannot be read, or lacks columns or a zone.
        NotEnoughDataError: If no row has a position.
    """
    table = read_text_csv(path)
    column_names = {
        name: next((column for column in table.columns if column.lower() in spellings), None)
        for name, spellings in _NAMES.items()
    }
    columns = [_numbers(column_names[name], name) for name in ("latitude", "longitude", "easting", "northing")]
    fixes = table.select(*columns, _time(column_names["time"], column_names["microseconds"]))
    if column_names["latitude"] and column_names["longitude"]:
        return _finish(_projected(fixes))
    if not (column_names["easting"] and column_names["northing"]):
        raise InputError(
            f"{path}: a track needs columns latitude and longitude, or easting and northing; "
            f"found {', '.join(table.columns) or 'none'}"
        )
    zones = table["zone"].drop_nulls().unique().to_list() if "zone" in table.columns else [zone or ""]
    if len(zones) != 1 or not zones[0]:
        raise InputError(f"{path}: easting and northing need one UTM zone (a column 'zone' such as 32N)")
    number, northern = geometry.parse_zone(str(zones[0]))
    return _finish((fixes, f"{number}{'N' if northern else 'S'}"))


def _numbers(column: str | None, name: str) -> pl.Expr:
    """A column of texts as float64 under another name; null where there is none or the text is no number."""
    if column is None:
        return pl.lit(None, pl.Float64).alias(name)
    return pl.col(column).str.strip_chars().cast(pl.Float64, strict=False).alias(name)


def _time(text: str | None, microseconds: str | None) -> pl.Expr:
    """Seconds: numbers as they are, ISO 8601 since 1970 (UTC where it names no offset), microseconds divided."""
    if text is not None:
        column = pl.col(text).str.strip_chars()
        stamp = column.str.replace(" ", "T").str.to_datetime(strict=False, time_unit="us", time_zone="UTC")
        return pl.coalesce(column.cast(pl.Float64, strict=False), stamp.dt.epoch("us") / 1e6).alias("time")
    return (_numbers(microseconds, "time") / 1e6).alias("time")


def _projected(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Fixes on the globe with easting and northing in the zone of their median."""
    table = table.filter(has_fix("latitude", "longitude"))
    if not table.height:
        raise NotEnoughDataError("no usable fix: latitude and longitude are empty or off the globe")
    latitude, longitude = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    zone = geometry.choose_zone(latitude, longitude)
    easting, northing = geometry.to_utm(latitude, longitude, zone)
    return table.with_columns(pl.Series("easting", easting), pl.Series("northing", northing)), zone


def _finish(fixes: tuple[pl.DataFrame, str]) -> Fixes:
    """Finite fixes only, in the order of time where all have one (a repeated second keeps its first fix)."""
    table, zone = fixes
    table = table.filter(pl.all_horizontal(pl.col("easting", "northing").is_finite()).fill_null(value=False))
    # Times of some fixes alone would order these and not the others: then none counts, and the file's order holds.
    if table["time"].null_count() or not table["time"].is_finite().all():
        metres = geometry.track_metres(table["easting"].to_numpy(), table["northing"].to_numpy())
        table = table.with_columns(pl.Series("time", metres / UNTIMED_SPEED))
    table = table.sort("time", maintain_order=True).unique("time", keep="first", maintain_order=True)
    easting, northing, time = (table[name].to_numpy() for name in ("easting", "northing", "time"))
    return time, easting, northing, zone
