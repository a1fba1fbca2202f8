"""A GPX track, and where each image lies on it by its time.

Convention: track points are WGS84 degrees with times in microseconds since 1970, UTC. A position is interpolated
linearly in time between the two points around it, which must be of one segment: a new one starts where reception was
lost, and where the clock goes back. Points without a fix are passed over. Several points of one whole second, as
receivers of several Hertz write them, lie evenly over that second.
Source: the GPX 1.1 schema, https://www.topografix.com/GPX/1/1/.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

import numpy as np

from seqdata.errors import InputError
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sources.csv_tables import is_fix
from seqdata.sources.folder.times import has_zone, parse_moment
from seqdata.storage.faults import read_again

_SECOND = 1_000_000
# Rounding of degrees must not make a path that is as long look longer.
_LONGER = 1.001


@dataclass(frozen=True)
class Track:
    """Track points in order of time.

    Attributes:
        time: (n,) int64 microseconds, rising or equal.
        latitude: (n,) float64 degrees.
        longitude: (n,) float64 degrees.
        segment: (n,) int64, the number of the part of the track without an interruption.
        dropped: How many points had no fix, or no time.
        unzoned: How many points name no time zone; they count as UTC, as the standard says.
    """

    time: IntArray
    latitude: Float64Array
    longitude: Float64Array
    segment: IntArray
    dropped: int = 0
    unzoned: int = 0

    def notes(self, name: str) -> tuple[str, ...]:
        """Say of the track file `name` what a user should know about its points."""
        dropped = f"{name}: {self.dropped:,} points have no fix or no time, and are passed over"
        unzoned = f"{name}: the times of {self.unzoned:,} points name no time zone, and are taken for UTC"
        return (*([dropped] if self.dropped else []), *([unzoned] if self.unzoned else []))


@dataclass(frozen=True)
class TrackPositions:
    """Where n images lie on a track.

    Attributes:
        latitude: (n,) float64 degrees, NaN where `outside` or `in_gap` holds.
        longitude: (n,) float64 degrees, NaN as latitude.
        outside: (n,) bool, before the first or after the last point.
        in_gap: (n,) bool, the points around it are too far apart in time, or of two segments.
    """

    latitude: Float64Array
    longitude: Float64Array
    outside: BoolArray
    in_gap: BoolArray


@dataclass
class _Collector:
    """Takes a parser's events; collects the points of all tracks that have a place and a time."""

    path: Path
    rows: list[tuple[int, float, float, int]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    segment: int = 0
    points: int = 0
    unzoned: int = 0
    place: tuple[str, str] = ("", "")
    texts: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, *_: object) -> NoReturn:
        raise InputError(f"{self.path}: has a document type declaration, which no GPX file needs; it is not read")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.open.append(name.rpartition(" ")[2])
        if self.open[-1] == "trkseg":
            self.segment += 1
        elif self.open[-1] == "trkpt":
            self.place, self.texts = (attributes.get("lat", ""), attributes.get("lon", "")), {"time": [], "fix": []}

    def characters(self, text: str) -> None:
        if self.open[-2:-1] == ["trkpt"] and self.open[-1] in self.texts:
            self.texts[self.open[-1]].append(text)

    def end(self, _: str) -> None:
        if self.open.pop() == "trkpt":
            self.points += 1
            text = "".join(self.texts["time"]).strip()
            time = parse_moment(text)
            self.unzoned += time is not None and not has_zone(text)
            latitude, longitude = (_number(text) for text in self.place)
            # <fix>none</fix> is a receiver that repeats its last position.
            if time is not None and "".join(self.texts["fix"]).strip().lower() != "none":
                self.rows.append((time, latitude, longitude, self.segment))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _collect(path: Path) -> _Collector:
    """Parse a file whose points are not checked yet. Raises: OSError, ExpatError and the parser's other errors."""
    collector = _Collector(path)
    # A streaming parser: of a long log three numbers a point are used, and no tree of it fills the memory.
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = collector.refuse
    parser.StartElementHandler, parser.EndElementHandler = collector.start, collector.end
    parser.CharacterDataHandler = collector.characters
    with path.open("rb") as file:
        parser.ParseFile(file)
    return collector


def read_track(path: Path) -> Track:
    """Read every point of every track in the file that has a position and a time, in order of time.

    Args:
        path: A GPX file.

    Raises:
        InputError: If the file is missing, is no GPX or declares entities, has no such point, or holds tracks that
            overlap in time (also one whose clock goes back).
    """
    try:
        collector = read_again(partial(_collect, path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; name a GPX track") from error
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not readable as GPX ({error})") from error
    # Without points there are no columns to transpose.
    columns = [np.array(column) for column in zip(*collector.rows, strict=True)] or [np.zeros(0)] * 4
    time, latitude, longitude, segment = columns
    fix = is_fix(latitude, longitude)
    if not fix.any():
        raise InputError(f"{path}: no track point (trkpt) with a place and a time; waypoints and routes are not read")
    track = _in_time(path, time[fix], latitude[fix], longitude[fix], segment[fix])
    return Track(*track, dropped=collector.points - int(fix.sum()), unzoned=collector.unzoned)


def _in_time(
    path: Path, time: IntArray, latitude: Float64Array, longitude: Float64Array, segment: IntArray
) -> tuple[IntArray, Float64Array, Float64Array, IntArray]:
    """The points sorted by time, all (n,). Raises: InputError when segments overlap in time: which one holds?"""
    segment = _split_at_falls(time, latitude, longitude, segment)
    order = np.lexsort((segment, time))
    ordered = segment[order]
    # Segments that follow one another change n − 1 times; one more change means that two of them are interleaved.
    if int(np.count_nonzero(np.diff(ordered))) >= len(np.unique(segment)):
        raise InputError(
            f"{path}: holds tracks that overlap in time (or a clock that goes back); keep one of them in the file"
        )
    spread = _spread_seconds(time[order], latitude[order], longitude[order], ordered)
    return spread, latitude[order], longitude[order], ordered


def _split_at_falls(time: IntArray, latitude: Float64Array, longitude: Float64Array, segment: IntArray) -> IntArray:
    """Number segments anew, from 1, so that a second pass under an earlier clock is one of its own: all (n,) -> (n,).

    Points that a logger only wrote out of order (or from the last to the first) lie on a path that is no longer when
    they are sorted by time. Two passes make a longer one: sorting would lead the car to and fro between them.
    """
    is_start = np.concatenate([[True], np.diff(segment) != 0])
    is_fall = np.concatenate([[False], np.diff(time) < 0]) & ~is_start
    starts = np.flatnonzero(is_start)
    for first, stop in zip(starts, np.append(starts[1:], len(time)), strict=True):
        part = slice(first, stop)
        if is_fall[part].any():
            order = np.argsort(time[part], kind="stable")
            north, east = latitude[part], longitude[part] * np.cos(np.radians(latitude[part]))
            as_written, by_time = _path_length(north, east), _path_length(north[order], east[order])
            is_start[part] |= is_fall[part] & (by_time > as_written * _LONGER)
    return np.cumsum(is_start)


def _path_length(north: Float64Array, east: Float64Array) -> float:
    return float(np.hypot(np.diff(north), np.diff(east)).sum())


def _spread_seconds(time: IntArray, latitude: Float64Array, longitude: Float64Array, segment: IntArray) -> IntArray:
    """Spread points of one whole second evenly over it: all (n,), sorted by time -> times (n,).

    Without this a car at 10 m/s lies 4 m behind on a track of 5 Hz. A point that is written twice is one point.
    """
    same = (np.diff(time) == 0) & (np.diff(segment) == 0)
    is_new = np.concatenate([[True], ~(same & (np.diff(latitude) == 0) & (np.diff(longitude) == 0))])
    points, parts = time[is_new], segment[is_new]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(points) != 0) | (np.diff(parts) != 0)]))
    counts = np.diff(np.append(starts, len(points)))
    rank = np.arange(len(points)) - np.repeat(starts, counts)
    share = np.where(points % _SECOND == 0, rank / np.repeat(counts, counts), 0.0)
    spread = points + np.round(share * _SECOND).astype(np.int64)
    every: IntArray = spread[np.cumsum(is_new) - 1]
    return every


def place_on(track: Track, time: IntArray, gap: float) -> TrackPositions:
    """Interpolate where images lie on a track.

    Args:
        track: The track.
        time: (n,) int64 microseconds, when the images were taken.
        gap: Greatest time between the two points around an image, in seconds. A point at the image's own time needs no
            second one.

    Example:
        >>> track = Track(np.array([0, 2_000_000]), np.array([48.0, 48.2]), np.array([16.0, 16.0]), np.array([0, 0]))
        >>> place_on(track, np.array([1_000_000]), gap=10.0).latitude
        array([48.1])
    """
    after = np.searchsorted(track.time, time)
    last = len(track.time) - 1
    # Without this an image at the last point's own time would lie outside.
    exact = track.time[np.minimum(after, last)] == time
    before = np.where(exact, after, after - 1)
    outside = (before < 0) | (after > last)
    low, high = np.clip(before, 0, last), np.clip(after, 0, last)
    span = track.time[high] - track.time[low]
    in_gap = ~outside & ((span > gap * _SECOND) | (track.segment[low] != track.segment[high]))
    share = np.where(span > 0, (time - track.time[low]) / np.maximum(span, 1), 0.0)
    # The shorter way around: a step over the 180th meridian must not cross the whole globe.
    turn = (track.longitude[high] - track.longitude[low] + 180.0) % 360.0 - 180.0
    latitude = track.latitude[low] + share * (track.latitude[high] - track.latitude[low])
    longitude = (track.longitude[low] + share * turn + 180.0) % 360.0 - 180.0
    nowhere = outside | in_gap
    return TrackPositions(np.where(nowhere, np.nan, latitude), np.where(nowhere, np.nan, longitude), outside, in_gap)
