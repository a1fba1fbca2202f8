"""Streets along a recorded GNSS track, so that synthetic drives can follow it.

Convention: `Track` is UTM metres of one zone ("32N"; southern northings with the false northing) and seconds that rise.
Local metres are x east and y north of the track's first fix. A course is the line that streets can be built along: the
track with a corner every 20 m at the nearest, which cuts about 10 m off a right angle and less than one off a bend.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from seqdata import geometry
from seqdata.errors import InputError, NotEnoughDataError
from seqdata.geometry import Float64Array, IntArray
from seqdata.synth.drives.track_files import read_csv_fixes, read_gpx_fixes
from seqdata.synth.settings import CityPlan, generator
from seqdata.synth.tracks import Track
from seqdata.synth.world.layout import MARGIN, Street

CORNER = 20.0
"""Least metres between the corners of a course, so that walls on the inside of a bend do not cross."""
SHARPEST = 70.0
"""Degrees; at a sharper turn one street ends and the next begins."""
LONGEST = 300.0
"""Metres of one street: what is drawn at a time is bounded."""
GREATEST_STEP = 200.0
"""Metres between fixes above which the drive is broken off: what lies between is not recorded."""
BREAK = 1.0
"""Metres of a course that stand for a gap, so that both sides of it have metres of their own."""


@dataclass(frozen=True, eq=False)
class Course:
    """The streets along a track: `starts` (k,) metres of the course at which each begins, `metres` (n,) of each fix."""

    streets: tuple[Street, ...]
    starts: Float64Array
    metres: Float64Array

    @cached_property
    def length(self) -> float:
        """Metres from the first street's beginning to the last one's end."""
        return float(self.starts[-1] + self.streets[-1].length)

    def place(self, metres: Float64Array, lateral: Float64Array) -> tuple[IntArray, Float64Array, Float64Array]:
        """Find street number (m,), local position (m, 2) and heading (m,) in degrees at metres (m,) of the course.

        `lateral` (m,) is metres to the right of the course's line.
        """
        number = np.clip(np.searchsorted(self.starts, metres, side="right") - 1, 0, len(self.starts) - 1)
        position, heading = np.empty((len(metres), 2)), np.empty(len(metres))
        for k in np.unique(number):
            here = number == k
            position[here], heading[here] = self.streets[k].pose(metres[here] - self.starts[k], lateral[here])
        return number, position, heading


def made_track(
    seconds: int, *, speed: float, latitude: float, longitude: float, seed: int, name: str = "track"
) -> Track:
    """Make up a gently winding track with a fix a second.

    Args:
        seconds: Length of the drive.
        speed: Metres a second, give or take a tenth.
        latitude: Degrees of the first fix.
        longitude: Degrees of the first fix.
        seed: The same seed gives the same track.
        name: Makes another track of the same seed.

    Returns:
        The track, in the zone of its first fix.

    Raises:
        InputError: If the place lies outside UTM.
        NotEnoughDataError: If the drive takes less than two seconds.
    """
    rng = generator(seed, name, "track")
    # A random walk of the bearing; its step grows with the square root of the speed, so that bends keep their radius.
    bearing = rng.uniform(0, 360) + 0.6 * np.sqrt(speed) * np.cumsum(rng.normal(0, 1, seconds))
    steps = speed * (1 + 0.1 * np.sin(np.arange(seconds) * 2 * np.pi / 97))
    steps[:1] = 0.0
    zone = geometry.choose_zone([latitude], [longitude])
    easting, northing = geometry.to_utm([latitude], [longitude], zone)
    east, north = (np.cumsum(steps * turn(np.radians(bearing))) for turn in (np.sin, np.cos))
    return Track(np.arange(seconds, dtype=np.float64), easting + east, northing + north, zone)


def course_of(track: Track, name: str, seed: int) -> Course:
    """Lay streets along a track.

    Args:
        track: The track.
        name: Streets are named `<name>/<number>`.
        seed: The same seed gives the same streets.

    Returns:
        The course of the streets.

    Raises:
        NotEnoughDataError: If the track covers less than 40 m.
    """
    points = track.local
    corners = _corners(points)
    streets: list[Street] = []
    starts, marks, course_metres = [], np.full(len(corners), np.nan), 0.0
    for first, last in _pieces(points[corners]):
        course_metres += BREAK if np.isnan(marks[first]) and streets else 0.0
        line = points[corners[first : last + 1]]
        length = float(np.hypot(*np.diff(line, axis=0).T).sum())
        streets.append(_street(f"{name}/{len(streets)}", line, length, seed))
        starts.append(course_metres)
        marks[first : last + 1] = course_metres + np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        course_metres += length
    if course_metres < 2 * CORNER:
        raise NotEnoughDataError(f"the track covers {course_metres:.0f} m; a street needs at least {2 * CORNER:.0f} m")
    return Course(tuple(streets), np.array(starts), _on_course(points, corners, marks))


def city_along(name: str, split: str, track: Track, *, database: str = "summer", query: str = "winter") -> CityPlan:
    """Plan a city for `write_msls` whose one route is a track.

    Args:
        name: Name of the city.
        split: Split of the demo protocol that it belongs to.
        track: The route.
        database: Visit that the database drives in, one of `visits.VISITS`.
        query: Visit that the queries drive in.

    Returns:
        The plan.

    Example:
        >>> import numpy as np
        >>> metres = np.arange(0.0, 100.0, 10.0)
        >>> track = Track(metres / 10, 500_000 + metres, np.full(10, 5_000_000.0), "32N")
        >>> city_along("here", "test", track).query
        ('winter',)
    """
    latitude, longitude = geometry.to_latlon(track.easting[:1], track.northing[:1], track.zone)
    return CityPlan(name, split, 1, float(latitude[0]), float(longitude[0]), (database,), (query,), track)


def _corners(points: Float64Array) -> IntArray:
    """Fixes at least `CORNER` metres from the one taken before, and both ends of the track and of its gaps."""
    gap = np.hypot(*np.diff(points, axis=0).T) > GREATEST_STEP
    # Both fixes beside a gap are corners, whatever their distance, so that no street spans it.
    forced = np.append(gap, True) | np.insert(gap, 0, True)
    corners = [0]
    for i in range(1, len(points)):
        far = np.hypot(*(points[i] - points[corners[-1]])) >= CORNER
        # A forced corner replaces one that is nearer than `CORNER`, unless that was forced itself.
        if forced[i] and not far and not forced[corners[-1]]:
            corners[-1] = i
        elif far or (forced[i] and (points[i] != points[corners[-1]]).any()):
            corners.append(i)
    return np.array(corners)


def _pieces(corners: Float64Array) -> list[tuple[int, int]]:
    """First and last corner of each street: cut at sharp turns, at gaps of the track, and where it grows too long."""
    steps = np.diff(corners, axis=0)
    length = np.hypot(*steps.T)
    bearing = np.degrees(np.arctan2(steps[:, 0], steps[:, 1]))
    pieces, first, run = [], 0, 0.0
    for i in range(len(steps)):
        turn = geometry.heading_difference(bearing[i], bearing[i - 1]) if i > first else 0.0
        gap = length[i] > GREATEST_STEP
        if i > first and (gap or turn > SHARPEST or run + length[i] > LONGEST):
            pieces.append((first, i))
            first, run = i, 0.0
        if gap:
            first, run = i + 1, 0.0
        else:
            run += float(length[i])
    if first < len(steps):
        pieces.append((first, len(steps)))
    return pieces


def _street(key: str, line: Float64Array, length: float, seed: int) -> Street:
    """A street along `line` `(P, 2)`, lengthened straight by the margin at both ends."""
    rng = generator(seed, key, "street")
    before, after = line[0] - line[1], line[-1] - line[-2]
    ends = [line[0] + before / np.hypot(*before) * MARGIN, line[-1] + after / np.hypot(*after) * MARGIN]
    half = float(rng.uniform(7.5, 10.5))
    points = np.vstack([ends[:1], line, ends[1:]])
    return Street(key, points, half, half - float(rng.uniform(2.2, 3.4)), length)


def _on_course(points: Float64Array, corners: IntArray, marks: Float64Array) -> Float64Array:
    """Metres of the course at every fix: its foot on the piece between the corners around it, never going back."""
    is_corner = np.isfinite(marks)
    corners, marks = corners[is_corner], marks[is_corner]
    piece = np.clip(np.searchsorted(corners, np.arange(len(points)), side="right") - 1, 0, len(corners) - 2)
    a, b = points[corners[piece]], points[corners[piece + 1]]
    # The foot of the perpendicular, as a share of the piece; 1e-9 keeps pieces of no length finite.
    along = ((points - a) * (b - a)).sum(-1) / np.maximum(((b - a) ** 2).sum(-1), 1e-9)
    run = marks[piece] + np.clip(along, 0, 1) * (marks[piece + 1] - marks[piece])
    return np.asarray(np.maximum.accumulate(run))


def read_track(path: str | Path, *, zone: str | None = None) -> Track:
    """Read the track in a GPX file, or in a CSV that names latitude and longitude, or easting and northing with a zone.

    A CSV's `time` is ISO 8601 or seconds, or `timestamp`, `timestamp_us` microseconds; without times the drive is at
    10 m/s. Fixes without a place are left out.

    Args:
        path: The file.
        zone: UTM zone such as "32N", where a CSV in metres has no column of that name.

    Returns:
        The track.

    Raises:
        InputError: If the file has another format.
        NotEnoughDataError: If it has fewer than two fixes.
    """
    path = Path(path)
    try:
        is_gpx = path.suffix.lower() == ".gpx"
        return Track(*(read_gpx_fixes(path) if is_gpx else read_csv_fixes(path, zone)))
    except (InputError, NotEnoughDataError) as error:
        if str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}: {error}") from error
