"""Where and when photos were taken, from the EXIF in their headers; pixels are not read.

Convention: positions are WGS84 degrees, times microseconds since 1970, UTC. A position counts when latitude and
longitude stand there with their hemispheres, they and the altitude's reference have the types that the standard gives
them (else the block is damaged, and not believed), the receiver did not say that it had no fix (status V), and it is
not exactly 0°, 0° (what cameras write without one). The time is DateTimeOriginal with its fraction and
OffsetTimeOriginal; where no offset stands, the drive's median distance from the GPS clock gives it, in quarter hours;
where there is no GPS clock either, the camera's clock counts as UTC. Without DateTimeOriginal the GPS clock is the
time. Where the camera points (GPSImgDirection) is no driving direction: headings come from the track.
"""

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from seqdata.sources.csv_tables import on_globe

_TAGS: dict[str, pl.DataType] = {
    "latitude": pl.Float64(),
    "longitude": pl.Float64(),
    "taken": pl.String(),
    "fraction": pl.String(),
    "offset": pl.String(),
    "gps_date": pl.String(),
    "gps_seconds": pl.Float64(),
}
_CAMERA_CLOCK = (Base.DateTimeOriginal, Base.SubsecTimeOriginal, Base.OffsetTimeOriginal)
_DATE = "%Y:%m:%d"
_AT_ONCE = 50_000
_QUARTER_HOUR = 900_000_000
"""Microseconds; offsets from UTC are whole quarters of an hour."""
_GREATEST_OFFSET = 15 * 3_600_000_000


def read_exif(raw: Path, images: pl.DataFrame) -> pl.DataFrame:
    """Position and time of each image: `images` (needs `source`, path below `raw`, and `drive`) with latitude,
    longitude and time added, empty where they are not known. No image raises: damaged EXIF is absent EXIF.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of every damaged block
        parts = [
            pl.DataFrame([_read_tags(raw / source) for source in part["source"]], schema=_TAGS, orient="row")
            for part in images["source"].to_frame().iter_slices(_AT_ONCE)
        ]
    tags = pl.concat([pl.DataFrame(schema=_TAGS), *parts])
    placed = on_globe("latitude", "longitude") & ((pl.col("latitude") != 0) | (pl.col("longitude") != 0))
    known = pl.concat([images, tags], how="horizontal").with_columns(
        pl.when(placed).then(pl.col(name)).alias(name) for name in ("latitude", "longitude")
    )
    return _with_time(known).drop("taken", "fraction", "offset", "gps_date", "gps_seconds")


def _read_tags(path: Path) -> tuple[Any, ...]:
    """The values of `_TAGS` of one image, None for what is absent or damaged."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            gps, camera = exif.get_ifd(IFD.GPSInfo), exif.get_ifd(IFD.Exif)
            clocks = (_text(camera.get(tag)) for tag in _CAMERA_CLOCK)
            return *_position(gps), *clocks, _text(gps.get(GPS.GPSDateStamp)), _day_seconds(gps.get(GPS.GPSTimeStamp))
    except Exception:  # no closed set: any damage means that nothing is known
        return (None,) * len(_TAGS)


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """Latitude and longitude of a GPS block, None where they are absent or the block is damaged."""
    altitude_ref = gps.get(GPS.GPSAltitudeRef, 0)
    one_byte = isinstance(altitude_ref, int) or (isinstance(altitude_ref, bytes) and len(altitude_ref) == 1)
    if not one_byte or _text(gps.get(GPS.GPSStatus)) == "V":
        return None, None
    latitude = _degrees(gps.get(GPS.GPSLatitude), _text(gps.get(GPS.GPSLatitudeRef)), "NS")
    longitude = _degrees(gps.get(GPS.GPSLongitude), _text(gps.get(GPS.GPSLongitudeRef)), "EW")
    return latitude, longitude


def _degrees(value: Any, hemisphere: str | None, signs: str) -> float | None:
    """Degrees of (degrees, minutes, seconds), of which the later may be absent; None without a hemisphere."""
    parts = _numbers(value)
    if not 1 <= len(parts) <= 3 or hemisphere is None or hemisphere.upper() not in signs:
        return None
    if not all(0 <= part <= greatest for part, greatest in zip(parts, (180, 60, 60), strict=False)):
        return None
    degrees = sum(part / unit for part, unit in zip(parts, (1, 60, 3600), strict=False))
    return degrees if hemisphere.upper() == signs[0] else -degrees


def _day_seconds(value: Any) -> float | None:
    """Seconds since midnight of (hours, minutes, seconds)."""
    parts = _numbers(value)
    whole = len(parts) == 3 and all(0 <= part <= most for part, most in zip(parts, (24, 60, 61), strict=True))
    return sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if whole else None


def _numbers(value: Any) -> list[float]:
    """The finite numbers of one value or of a row of them; none where one is not (a fraction over 0 is not)."""
    parts = [float(part) for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Real)]
    return parts if all(map(math.isfinite, parts)) else []


def _text(value: Any) -> str | None:
    """A text field without its padding; None where it is empty or no text."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return (value.strip("\0 ") or None) if isinstance(value, str) else None


def _with_time(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `time` as the module's convention says; needs the clocks of `_TAGS` and `drive`."""
    taken = _moment(pl.col("taken"), f"{_DATE} %H:%M:%S") + _micros(pl.col("fraction"))
    gps = _moment(pl.col("gps_date"), _DATE) + (pl.col("gps_seconds") * 1e6).round().cast(pl.Int64)
    clocks = rows.with_columns(taken.alias("taken"), gps.alias("gps"), _offset(pl.col("offset")).alias("offset"))
    ahead = (pl.col("taken") - pl.col("gps")).median().over("drive")
    usual = (ahead / _QUARTER_HOUR).round().cast(pl.Int64) * _QUARTER_HOUR
    likely = pl.when(usual.abs() <= _GREATEST_OFFSET).then(usual)
    in_utc = pl.col("taken") - pl.coalesce("offset", likely, pl.lit(0))
    return clocks.with_columns(pl.coalesce(in_utc, "gps").alias("time")).drop("gps")


def _moment(text: pl.Expr, form: str) -> pl.Expr:
    """Microseconds since 1970 of text in `form`; null for text that is no date."""
    return text.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64)


def _micros(digits: pl.Expr) -> pl.Expr:
    """Microseconds of the digits after the second's point; 0 where there are none."""
    padded = digits.str.extract(r"^(\d+)$").str.pad_end(6, "0").str.slice(0, 6)
    return padded.cast(pl.Int64, strict=False).fill_null(0)


def _offset(text: pl.Expr) -> pl.Expr:
    """Microseconds ahead of UTC of text like +02:00; null for anything else."""
    parts = text.str.extract_groups(r"^([+-])([01]\d):([0-5]\d)$").struct
    minutes = parts.field("2").cast(pl.Int64) * 60 + parts.field("3").cast(pl.Int64)
    return pl.when(parts.field("1") == "-").then(-minutes).otherwise(minutes) * 60_000_000
