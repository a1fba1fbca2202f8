"""When a photo was taken, from the clocks in its EXIF: one parser of their texts, and one rule which clock to believe.

Convention: int64 microseconds since 1970. The camera's clock shows local time; OffsetTimeOriginal says how far it is
ahead of UTC. Where no offset stands, the drive's median distance from the GPS clock gives it, in quarter hours; where
there is no GPS clock either, the camera's clock counts as UTC. A camera clock that is off by itself (by more than any
zone, or by a constant that is no zone) is put right by the GPS clock. Without a camera clock the GPS clock is the time.
Source: Exif 2.32 (CIPA DC-008), sec. 4.6.5; habits of single cameras are noted where they are read.
"""

import re
from typing import Any

import polars as pl

from seqdata.sources.folder.times import from_calendar, parse_offset

_MOMENT = re.compile(
    r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})[T\s]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d+))?)?\s*"
    r"(Z|[+-]\d{1,2}(?::?\d\d)?)?",
    re.IGNORECASE,
)
_DATE = re.compile(r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})")
_OFFSET = re.compile(r"(Z|[+-][01]?\d(?::?[0-5]\d)?)", re.IGNORECASE)
_FRACTION = re.compile(r"( *)(\d+)\s*")
# Of the EXIF standard: earlier years are what clocks start from that were never set (1970, 1980).
_FIRST_YEAR = 1995
_MICROSECONDS = 1_000_000
_QUARTER_HOUR = 900 * _MICROSECONDS
_DAY = 86_400 * _MICROSECONDS
_GREATEST_OFFSET = 15 * 3600 * _MICROSECONDS
# A guess: a clock that is this near to a quarter hour from GPS time is right and in another zone.
_SET_BY_HAND = 60 * _MICROSECONDS
# A guess: an error that varies less than this along a drive is the camera's; old GPS fixes vary more.
_STEADY = 10 * _MICROSECONDS
_WRONG_DESPITE_OFFSET = 900 * _MICROSECONDS
_ENOUGH = 3


def parse_taken(text: Any, fraction: Any = None, offset: Any = None) -> tuple[int | None, int | None]:
    """Parse a camera's clock.

    Args:
        text: Value of DateTimeOriginal, DateTimeDigitized or DateTime; dashes, ISO 8601 and 24:00:00 are read too.
        fraction: Value of the SubsecTime field beside it; blanks before the digits are zeros (GoPro HERO9 pads " 50").
        offset: Value of the OffsetTime field beside it, as `+02:00`, `+0200` or `Z`.

    Returns:
        Microseconds of the local time as if it were UTC, and microseconds ahead of UTC; None where absent or no time.

    Example:
        >>> parse_taken("1995:01:01 00:00:01", " 50", "+0200")
        (788918401050000, 7200000000)
        >>> parse_taken("1970:01:01 00:00:00")
        (None, None)
    """
    match = _MOMENT.fullmatch(_text(text).strip())
    if match is None or int(match.group(1)) < _FIRST_YEAR:
        return None, None
    *parts, own_fraction, own_offset = match.groups()
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        time = from_calendar(year, month, day, hour, minute, second, own_fraction or _fraction(_text(fraction)))
    except ValueError:
        return None, None
    return time, _offset(own_offset or _text(offset).strip())


def parse_gps_clock(date: Any, seconds: float | None) -> int | None:
    """Microseconds since 1970, UTC, of GPSDateStamp and the seconds of GPSTimeStamp; None where one is absent."""
    match = _DATE.fullmatch(_text(date).strip())
    if match is None or seconds is None or int(match.group(1)) < _FIRST_YEAR:
        return None
    year, month, day = (int(part) for part in match.groups())
    try:
        return from_calendar(year, month, day, 0, 0, 0) + round(seconds * _MICROSECONDS)
    except ValueError:
        return None


def _text(value: Any) -> str:
    """A text field up to its zero byte, "" where it is none."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.partition("\0")[0] if isinstance(value, str) else ""


def _fraction(text: str) -> str:
    match = _FRACTION.fullmatch(text)
    return "" if match is None else "0" * len(match.group(1)) + match.group(2)


def _offset(text: str) -> int | None:
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    # "+2:00" as "+02:00".
    hours = re.sub(r"^([+-])(\d)(?=:|$)", r"\g<1>0\2", text)
    offset = parse_offset(hours)
    return offset if abs(offset) <= _GREATEST_OFFSET else None


def with_times(rows: pl.DataFrame) -> pl.DataFrame:
    """Settle when each photo was taken (see the module's convention).

    Args:
        rows: One row a photo: `drive`, and int64 microseconds `taken` (local), `offset` (ahead of UTC) and `gps` (UTC),
            null where unknown.

    Returns:
        The rows with `time` (UTC) and `clock_error` (microseconds that the camera's clock is ahead of GPS time, where
        GPS time is used instead) in place of the three clocks.
    """
    has_offset = pl.col("offset").is_not_null()
    groups = ["drive", has_offset]
    # Photos with an offset and without one may lie in one drive (edited ones lose it): each kind is compared by itself.
    local = pl.col("taken") - pl.col("offset").fill_null(0)
    difference = local - pl.col("gps")
    # The median, since single fixes may be minutes old.
    ahead = difference.median().over(groups)
    steady = (difference.is_not_null().sum().over(groups) >= _ENOUGH) & (
        (difference - ahead).abs().median().over(groups) <= _STEADY
    )
    # GPSDateStamp is local in some cameras, and stale in others: whole days are taken off before the zone is read.
    days = pl.when(ahead.abs() > _GREATEST_OFFSET).then((ahead / _DAY).round() * _DAY).otherwise(0.0)
    zone = pl.when(has_offset).then(0.0).otherwise(((ahead - days) / _QUARTER_HOUR).round() * _QUARTER_HOUR)
    error = (ahead - days - zone).abs()
    allowed = pl.when(has_offset).then(_WRONG_DESPITE_OFFSET).otherwise(_SET_BY_HAND)
    is_wrong = (error > allowed) & (steady | (days != 0))
    # More than a zone off, the camera's clock is believed for nothing: each photo takes its own GPS time.
    by_gps = pl.when(days != 0).then(pl.coalesce("gps", local - ahead.round().cast(pl.Int64)))
    corrected = by_gps.otherwise(local - ahead.round().cast(pl.Int64))
    in_utc = pl.when(is_wrong).then(corrected).otherwise(local - zone.fill_null(0).cast(pl.Int64))
    return rows.with_columns(
        pl.coalesce(in_utc, "gps").alias("time"),
        pl.when(is_wrong & pl.col("taken").is_not_null()).then(ahead.round().cast(pl.Int64)).alias("clock_error"),
    ).drop("taken", "offset", "gps")
