"""A GPX track, and where each image lies on it by its time.

Convention: track points are WGS84 degrees with times in microseconds since 1970, UTC. A position is interpolated
linearly in time between the two points around it, which must be of one segment: a new one starts where reception was
lost. Source: the GPX 1.1 schema, https://www.topografix.com/GPX/1/1/.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

import numpy as np

from seqdata.errors import InputError
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sources.folder.times import parse_moment


@dataclass(frozen=True)
class Track:
    """Track points in order of time: time (n,) microseconds, latitude and longitude (n,) degrees, segment (n,)."""

    time: IntArray
    latitude: Float64Array
    longitude: Float64Array
    segment: IntArray


@dataclass(frozen=True)
class Placed:
    """Where images lie on a track: latitude and longitude (n,) degrees, NaN where `outside` or `in_gap` holds.

    `outside`: before the first or after the last point; `in_gap`: the points around it are too far apart in time, or
    of two segments.
    """

    latitude: Float64Array
    longitude: Float64Array
    outside: BoolArray
    in_gap: BoolArray


@dataclass
class _Collector:
    """Takes a parser's events; keeps the points of all tracks that have a place and a time."""

    path: Path
    rows: list[tuple[int, float, float, int]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    segment: int = 0
    place: tuple[str, str] = ("", "")
    text: list[str] = field(default_factory=list)

    def refuse(self, *_: object) -> NoReturn:
        raise InputError(f"{self.path}: has a document type declaration, which no GPX file needs; it is not read")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.open.append(name.rpartition(" ")[2])
        if self.open[-1] == "trkseg":
            self.segment += 1
        elif self.open[-1] == "trkpt":
            self.place, self.text = (attributes.get("lat", ""), attributes.get("lon", "")), []

    def characters(self, text: str) -> None:
        if self.open[-2:] == ["trkpt", "time"]:
            self.text.append(text)

    def end(self, _: str) -> None:
        if self.open.pop() == "trkpt":
            time = parse_moment("".join(self.text).strip())
            latitude, longitude = (_number(text) for text in self.place)
            if time is not None and -80 <= latitude <= 84 and -180 <= longitude <= 180:
                self.rows.append((time, latitude, longitude, self.segment))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_track(path: Path) -> Track:
    """Every point of every track in the file that has a place and a time, in order of time.

    Raises: InputError when the file is missing, is no GPX or declares entities, has no such point, or holds tracks that
    overlap in time.
    """
    found = _Collector(path)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = found.refuse
    parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
    parser.CharacterDataHandler = found.characters
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; name a GPX track") from error
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not readable as GPX ({error})") from error
    if not found.rows:
        raise InputError(f"{path}: no track point (trkpt) with a place and a time; waypoints and routes are not read")
    return _in_time(path, found.rows)


def _in_time(path: Path, rows: list[tuple[int, float, float, int]]) -> Track:
    """The points sorted by time. Raises: InputError when segments overlap in time: which one holds is not known."""
    time, latitude, longitude, segment = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((segment, time))
    track = Track(time[order], latitude[order], longitude[order], segment[order])
    changes = int(np.count_nonzero(np.diff(track.segment)))
    if changes >= len(np.unique(segment)):
        raise InputError(f"{path}: holds tracks that overlap in time; keep one of them")
    return track


def place_on(track: Track, time: IntArray, gap: float) -> Placed:
    """Where images taken at `time`, (n,) microseconds, lie on the track; `gap` is the greatest one in seconds.

    Convention: see the module; a time that a point has itself needs no second one.
    """
    after = np.searchsorted(track.time, time)
    last = len(track.time) - 1
    exact = track.time[np.minimum(after, last)] == time
    before = np.where(exact, after, after - 1)
    outside = (before < 0) | (after > last)
    low, high = np.clip(before, 0, last), np.clip(after, 0, last)
    span = track.time[high] - track.time[low]
    in_gap = ~outside & ((span > gap * 1e6) | (track.segment[low] != track.segment[high]))
    share = np.where(span > 0, (time - track.time[low]) / np.maximum(span, 1), 0.0)
    turn = (track.longitude[high] - track.longitude[low] + 180.0) % 360.0 - 180.0
    latitude = track.latitude[low] + share * (track.latitude[high] - track.latitude[low])
    longitude = (track.longitude[low] + share * turn + 180.0) % 360.0 - 180.0
    nowhere = outside | in_gap
    return Placed(np.where(nowhere, np.nan, latitude), np.where(nowhere, np.nan, longitude), outside, in_gap)
