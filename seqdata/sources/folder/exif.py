"""Where and when photos were taken, from the EXIF in their headers; pixels are not read.

Convention: positions are WGS84 degrees, times microseconds since 1970, UTC (see `seqdata.sources.folder.exif_times`). A
position counts when latitude and longitude stand there with their hemispheres, they and the altitude's reference have
the types that the standard gives them (else the block is damaged, and not believed), the receiver did not say that it
had no fix (status V), and it is a fix (see `seqdata.sources.csv_tables.is_fix`). Where the camera points
(GPSImgDirection) is no driving direction: headings come from the track.
"""

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import polars as pl
from PIL.ExifTags import GPS, IFD, Base

from seqdata.frames.formats import open_header
from seqdata.sources.csv_tables import has_fix
from seqdata.sources.folder.exif_times import parse_gps_clock, parse_taken, with_times
from seqdata.storage.faults import raise_passing, read_again

_TAGS: dict[str, pl.DataType] = {
    "latitude": pl.Float64(),
    "longitude": pl.Float64(),
    "taken": pl.Int64(),
    "offset": pl.Int64(),
    "gps": pl.Int64(),
}
# The camera's clock in order of belief: programs that edit a photo change the last one alone.
_CLOCKS = (
    (Base.DateTimeOriginal, Base.SubsecTimeOriginal, Base.OffsetTimeOriginal),
    (Base.DateTimeDigitized, Base.SubsecTimeDigitized, Base.OffsetTimeDigitized),
    (Base.DateTime, Base.SubsecTime, Base.OffsetTime),
)
_ROWS_AT_ONCE = 50_000


def read_exif(raw: Path, images: pl.DataFrame) -> pl.DataFrame:
    """Read position and time of each image; no image raises, since damaged EXIF is absent EXIF.

    Args:
        raw: Folder of the dump.
        images: One row an image: `source` (path below `raw`) and `drive`.

    Returns:
        The rows with `latitude`, `longitude` (degrees), `time` (microseconds) and `clock_error` (microseconds that the
        camera's clock is off by, where GPS time is used instead), null where they are not known.
    """
    with warnings.catch_warnings():
        # Pillow warns of every damaged block.
        warnings.simplefilter("ignore")
        parts = [
            # Some rows at a time: a million tuples of Python objects would take gigabytes.
            pl.DataFrame([_read_tags(raw / source) for source in part["source"]], schema=_TAGS, orient="row")
            for part in images["source"].to_frame().iter_slices(_ROWS_AT_ONCE)
        ]
    tags = pl.concat([pl.DataFrame(schema=_TAGS), *parts])
    is_fix = has_fix("latitude", "longitude")
    positions = pl.concat([images, tags], how="horizontal").with_columns(
        pl.when(is_fix).then(pl.col(name)).alias(name) for name in ("latitude", "longitude")
    )
    return with_times(positions)


def has_gps_block(path: Path) -> bool:
    """Whether an image's EXIF has a GPS block, with or without a position in it.

    Raises:
        OSError: When the disk fails.
    """

    def read_block() -> bool:
        with open_header(path) as image:
            return bool(image.getexif().get_ifd(IFD.GPSInfo))

    try:
        return read_again(read_block)
    except Exception as error:  # Pillow raises many kinds for broken files; all mean "not known"
        raise_passing(error)
        return False


def _read_tags(path: Path) -> tuple[Any, ...]:
    """The values of `_TAGS` of one image, None for what is absent or damaged. Raises: OSError of the disk."""

    def read_header() -> tuple[Any, ...]:
        with open_header(path) as image:
            exif = image.getexif()
            gps, camera = exif.get_ifd(IFD.GPSInfo), exif.get_ifd(IFD.Exif)
            # DateTime stands in the main block, the other clocks in the camera's: one mapping serves all three.
            clock = _camera_clock({**exif, **camera})
            gps_clock = parse_gps_clock(gps.get(GPS.GPSDateStamp), _day_seconds(gps.get(GPS.GPSTimeStamp)))
            return *_position(gps), *clock, gps_clock

    try:
        return read_again(read_header)
    except Exception as error:  # no closed set: any damage means that nothing is known
        raise_passing(error)
        return (None,) * len(_TAGS)


def _camera_clock(tags: Mapping[int, Any]) -> tuple[int | None, int | None]:
    """Local time and offset of the first clock that shows a time."""
    clocks = (parse_taken(*(tags.get(tag) for tag in clock)) for clock in _CLOCKS)
    return next((clock for clock in clocks if clock[0] is not None), (None, None))


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """Latitude and longitude of a GPS block, None where they are absent or the block is damaged."""
    # A block whose offsets are damaged may still give numbers; a field of one byte that holds more shows it.
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
    # 60.0 is allowed: cameras round 59.99 seconds up and do not carry.
    if not all(0 <= part <= greatest for part, greatest in zip(parts, (180, 60, 60), strict=False)):
        return None
    degrees = sum(part / unit for part, unit in zip(parts, (1, 60, 3600), strict=False))
    return degrees if hemisphere.upper() == signs[0] else -degrees


def _day_seconds(value: Any) -> float | None:
    """Seconds since midnight of (hours, minutes, seconds)."""
    parts = _numbers(value)
    is_time = len(parts) == 3 and all(0 <= part <= most for part, most in zip(parts, (24, 60, 61), strict=True))
    return sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if is_time else None


def _numbers(value: Any) -> list[float]:
    """The finite numbers of one value or of a row of them; none where one is not (a fraction over 0 is not)."""
    # Pillow gives fractions of its own; one over zero is no number, and is refused when it becomes a float.
    parts = [float(part) for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Real)]
    return parts if all(map(math.isfinite, parts)) else []


def _text(value: Any) -> str | None:
    """A text field without its padding; None where it is empty or no text."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return (value.strip("\0 ") or None) if isinstance(value, str) else None
