"""Moments as text: ISO 8601 and seconds in tables, stamps in file names.

Convention: microseconds since 1970, UTC; text without an offset counts as UTC.
"""

import re
from datetime import datetime, timedelta, timezone

import polars as pl

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)? ?(Z|[+-][01]\d(?::?[0-5]\d)?)?",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_GREATEST_SECONDS = 1e11
"""Beyond the year 5000: such a number counts milli- or microseconds."""
_CALENDAR = (
    r"(?:^|\D)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)[-_.T ]?"
    r"([0-2]\d)[-_.:h]?([0-5]\d)[-_.:m]?([0-5]\d)(?:[-_.,s]?(\d{1,6}))?(?:\D|$)"
)
_EPOCH_DIGITS = r"(?:^|\D)(\d{10}|\d{13}|\d{16}|\d{19})(?:\D|$)"


def parse_moment(text: str) -> int | None:
    """Microseconds of ISO 8601 text, or of seconds since 1970; None for anything else."""
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


def show_moment(time: int) -> str:
    """A time as people read it, to the second; for messages."""
    try:
        return (_EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{time} µs"


def stamped_times(names: pl.Series) -> pl.Series:
    """The moment in each file name (without folder), null where none stands there: int64 microseconds.

    Read are calendar stamps, as in 20240131_100005, 2024-01-31T10.00.05.250 or IMG_20240131100005250, and a run of 10,
    13, 16 or 19 digits: seconds, milli-, micro- or nanoseconds since 1970.
    """
    table = names.rename("name").to_frame()
    parts = pl.col("name").str.extract_groups(_CALENDAR).struct
    written = pl.concat_str([parts.field(str(group)) for group in range(1, 7)])
    calendar = written.str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False).cast(pl.Int64)
    fraction = parts.field("7").fill_null("").str.pad_end(6, "0").cast(pl.Int64)
    digits = pl.col("name").str.extract(_EPOCH_DIGITS)
    epoch = digits.str.pad_end(16, "0").str.slice(0, 16).cast(pl.Int64)
    return table.select(pl.coalesce(calendar + fraction, epoch).alias("time"))["time"]
