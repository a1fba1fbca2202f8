"""Moments as text: ISO 8601 and seconds since 1970, as tables and GPX tracks write them.

Convention: microseconds since 1970, UTC; text without an offset counts as UTC.
"""

import re
from datetime import datetime, timedelta, timezone

_ISO = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d+))?)?)?"
    r" ?(Z|UTC|[+-][01]\d(?::?[0-5]\d)?)?",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,](\d*))?[eE]\+?(\d+)")
_LEAST_DECIMALS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Beyond the year 5000: such a number counts milli- or microseconds.
_GREATEST_SECONDS = 1e11


def parse_moment(text: str) -> int | None:
    """Parse ISO 8601 text, or seconds since 1970.

    Args:
        text: Such as `2024-01-31T10:00:05.5+02:00`, `2024-1-31 10:00` or `1706695205.25`.

    Returns:
        Microseconds since 1970, UTC. None for anything else, such as a number in scientific notation that was rounded
        to more than a second.

    Example:
        >>> [parse_moment(text) for text in ("1970-1-1T0:0:1Z", "1970-01-01T24:00:00", "2.5", "1.62E+09", "noon")]
        [1000000, 86400000000, 2500000, None, None]
    """
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            return None if is_rounded(text) else _from_seconds(float(text.replace(",", ".")))
        *parts, fraction, offset = match.groups()
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        time = from_calendar(year, month, day, hour, minute, second, fraction or "")
        return time - parse_offset(offset or "Z")
    except (ValueError, OverflowError):
        return None


def has_zone(text: str) -> bool:
    """Whether a text that `parse_moment` reads says how far it is from UTC; seconds since 1970 do."""
    match = _ISO.fullmatch(text)
    return match is None or match[8] is not None


def _from_seconds(seconds: float) -> int | None:
    return round(seconds * 1e6) if abs(seconds) < _GREATEST_SECONDS else None


def from_calendar(year: int, month: int, day: int, hour: int, minute: int, second: int, fraction: str = "") -> int:
    """Microseconds since 1970 of a date and time of day; `fraction` is the digits behind the second's point.

    24:00:00 is the next day's midnight, and a leap second the next minute's first.

    Raises:
        ValueError: For no time.
    """
    midnight = (hour, minute, second) == (24, 0, 0)
    leap = second == 60
    moment = datetime(year, month, day, 0 if midnight else hour, minute, 59 if leap else second, tzinfo=timezone.utc)
    moment += timedelta(days=midnight, seconds=leap)
    return (moment - _EPOCH) // timedelta(microseconds=1) + int(fraction[:6].ljust(6, "0"))


def parse_offset(text: str) -> int:
    """Microseconds ahead of UTC of `Z`, `UTC`, `+02`, `+0200` or `+02:00`.

    Raises:
        ValueError: For other text.
    """
    if text.upper() in ("Z", "UTC"):
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    microseconds = (int(digits[:2]) * 60 + int(digits[2:])) * 60_000_000
    return -microseconds if text[0] == "-" else microseconds


def is_rounded(text: str) -> bool:
    """Whether a number in scientific notation says less than whole seconds, as spreadsheets show times since 1970.

    Example:
        >>> [is_rounded(text) for text in ("1.62E+09", "1.62254e+09", "1.7041032e9")]
        [True, True, False]
    """
    match = _SCIENTIFIC.fullmatch(text)
    # Spreadsheets show three digits, and "%g" six. Times below 1e9 are seconds since a start, not since 1970.
    return match is not None and int(match.group(2)) >= 9 and len(match.group(1) or "") < _LEAST_DECIMALS


def show_moment(time: int) -> str:
    """Write a time as people read it, to the second; for messages.

    Example:
        >>> show_moment(1_706_695_205_250_000)
        '2024-01-31T10:00:05Z'
    """
    try:
        return (_EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{time} µs"
