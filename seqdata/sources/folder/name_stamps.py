"""Times in file names: calendar stamps, seconds since 1970, their fractions, and clips whose frames share one stamp.

Convention: int64 microseconds since 1970, UTC. Read are calendar stamps, as in 20240131_100005,
2024-01-31T10.00.05.250 or IMG_20240131100005250, and a run of 10, 13, 16 or 19 digits: seconds, milli-, micro- or
nanoseconds since 1970. Digits behind a stamp of seconds are its fraction where all names of a folder write them so (3,
6 or 9 digits, or decimals behind a point, as TUM and ROS do); else they are a counter, as in frames of a clip that is
named by its start.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from seqdata.sources.folder.times import from_calendar

_CALENDAR = re.compile(
    r"(?:^|\D)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)[-_.T ]?([0-2]\d)[-_.:h]?([0-5]\d)[-_.:m]?([0-5]\d)"
    r"(\d{1,6}(?!\d)|\d{9}(?!\d)|(?!\d))"
)
# Zeros first are a counter, as KITTI pads its frame numbers to ten digits: seconds since September 2001 have none.
_EPOCH_DIGITS = re.compile(r"(?:^|\D)([1-9]\d{9}(?:\d{3}){0,3})(?!\d)")
_TAIL = re.compile(r"([-_.,s])(\d{1,9})(?!\d)")
# How programs that cut clips into frames number them; other words, cam1 say, tell cameras apart and not moments.
_FRAME_NUMBER = re.compile(r"[-_. ]*(?:frame|frm|fr|nf|f)[-_. ]*(\d+)(?!\d)", re.IGNORECASE)
# What browsers and cameras append to a name that is there already.
_COPY = re.compile(r"\s*\(\d+\)$")
_FRACTION_WIDTHS = (3, 6, 9)
_MICROSECOND_WIDTH = 6
# Microseconds between frames of one second: 500 frames a second. Closer numbers are counters.
_FASTEST = 2_000


@dataclass(frozen=True)
class _Stamp:
    """A stamp in a name: its time in microseconds, and the digits behind it with what separates them."""

    time: int
    separator: str = ""
    digits: str = ""


def read_stamps(names: Sequence[str], folders: Sequence[str] | None = None) -> list[tuple[int | None, bool]]:
    """Read the times in file names.

    Args:
        names: File names without folder and suffix.
        folders: What lies in one folder is written in one way; all in one where None.

    Returns:
        For each name its time, None where none stands there, and whether a counter follows, as in frames of a clip.

    Example:
        >>> read_stamps(["1622541601.250000", "20240131_100005_7", "IMG_0001"])
        [(1622541601250000, False), (1706695205000000, True), (None, False)]
    """
    stamps = [_read_stamp(_COPY.sub("", name)) for name in names]
    keys = [""] * len(stamps) if folders is None else folders
    groups: dict[tuple[str, str], list[_Stamp]] = {}
    for key, stamp in zip(keys, stamps, strict=True):
        if stamp is not None and stamp.separator:
            groups.setdefault((key, stamp.separator), []).append(stamp)
    # One decision a folder and separator: digits that are a fraction in one name are none of a counter in the next.
    scales = {key: _fraction_scale(members) for key, members in groups.items()}
    return [
        _settle(stamp, scales.get((key, stamp.separator)) if stamp else None)
        for key, stamp in zip(keys, stamps, strict=True)
    ]


def _read_stamp(name: str) -> _Stamp | None:
    """The stamp of one name, with the digits behind it that may be a fraction."""
    calendar = _CALENDAR.search(name)
    if calendar is not None:
        *parts, fraction = calendar.groups()
        try:
            year, month, day, hour, minute, second = (int(part) for part in parts)
            return _with_tail(
                from_calendar(year, month, day, hour, minute, second, fraction), name, calendar.end(), fraction
            )
        except ValueError:
            pass
    # 10, 13, 16 and 19 digits begin with the same ten, until the year 2286.
    epoch = _EPOCH_DIGITS.search(name)
    if epoch is None:
        return None
    digits = epoch.group(1)
    return _with_tail(int(digits.ljust(16, "0")[:16]), name, epoch.end(), digits[10:])


def _with_tail(time: int, name: str, end: int, fraction: str) -> _Stamp:
    """A stamp with the digits behind it; a stamp that has its fraction already keeps it, the digits are a counter."""
    frame = _FRAME_NUMBER.match(name, end)
    if frame is not None:
        return _Stamp(time, "counter", frame.group(1))
    tail = _TAIL.match(name, end)
    if tail is None:
        return _Stamp(time)
    return _Stamp(time, "counter" if fraction else tail.group(1), tail.group(2))


def _fraction_scale(stamps: list[_Stamp]) -> str | None:
    """How the digits behind the stamps of one folder are read: "decimal", "nanoseconds", or None for a counter."""
    separator = stamps[0].separator
    texts = [stamp.digits for stamp in stamps]
    widths = {len(text) for text in texts}
    if separator == "counter":
        return None
    if separator in ".,":
        # Decimals of various lengths come from programs that drop trailing zeros; a counter has numbers that end in 0.
        ends_in_zero = any(len(text) > 1 and text.endswith("0") for text in texts)
        scale = "decimal" if len(widths) == 1 or max(widths) >= _MICROSECOND_WIDTH or not ends_in_zero else None
    elif len(widths) == 1 and widths <= set(_FRACTION_WIDTHS):
        scale = "decimal"
    else:
        # ROS writes seconds_nanoseconds, some exporters without leading zeros.
        scale = "nanoseconds" if max(widths) == 9 else None
    if scale is None:
        return None
    times = sorted({(stamp.time, _fraction(stamp.digits, scale)) for stamp in stamps})
    steps = (after[1] - before[1] for before, after in pairwise(times) if after[0] == before[0])
    return scale if all(step >= _FASTEST for step in steps) else None


def _fraction(digits: str, scale: str) -> int:
    """Microseconds of the digits behind a second."""
    return int(digits) // 1000 if scale == "nanoseconds" else int(digits[:6].ljust(6, "0"))


def _settle(stamp: _Stamp | None, scale: str | None) -> tuple[int | None, bool]:
    """Time and whether a counter follows, of one name."""
    if stamp is None:
        return None, False
    if scale is None:
        return stamp.time, bool(stamp.digits)
    return stamp.time + _fraction(stamp.digits, scale), False
