"""The page of a localized recording: a map of its places, how near they are over time, and frames beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.report.html import render
from indexer.report.maps import FOOT, MARGIN, crosses, dots, fit_box, place_points, round_length
from seqdata.geometry import Float64Array
from seqdata.storage.files import write_bytes_atomic

PAGE = "track.html"
LEVELS = 5
"""Steps of confidence that the map tells apart by shade."""
_MOST_PLACES = 20_000  # dots of the database on the map: more would fill megabytes and look the same
_TIMELINE = (1120.0, 150.0)


@dataclass(frozen=True)
class TrackPoint:
    """One answer on map and timeline: metres of its place, confidence 0…1, whether it is accepted, error in metres."""

    easting: float
    northing: float
    distance: float
    confidence: float | None
    accepted: bool
    error: float | None


@dataclass(frozen=True)
class TrackStrip:
    """A frame of the recording beside its place: what is said of each, and their pictures as data URIs."""

    frame: str
    place: str
    accepted: bool
    picture: str
    place_picture: str | None


@dataclass(frozen=True)
class TrackScene:
    """What the page shows: `facts` are pairs of a name and a text; `database` are metres (n, 2) of all places."""

    title: str
    facts: Sequence[tuple[str, str]]
    database: Float64Array
    points: Sequence[TrackPoint]
    strips: Sequence[TrackStrip]
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class TrackMap:
    """The map as path data: box in SVG units, database, accepted places by confidence, those rejected, scale bar."""

    width: float
    height: float
    database: str
    accepted: tuple[str, ...]
    rejected: str
    bar: float
    bar_label: str


@dataclass(frozen=True)
class Timeline:
    """Descriptor distance over the answers as path data, and marks of those rejected; the scale's highest distance."""

    width: float
    height: float
    line: str
    rejected: str
    highest: float


def write_track(out: Path, scene: TrackScene) -> Path:
    """Write the page and return its path. Names are escaped, nothing is loaded.

    Raises:
        OutputError: When it cannot be written.
    """
    page = render("track", scene=scene, map=draw_map(scene), timeline=draw_timeline(scene), margin=MARGIN)
    write_bytes_atomic(out, page.encode())
    return out


def draw_map(scene: TrackScene) -> TrackMap:
    """Draw the database and the answers, at one scale on both axes, north up."""
    database = scene.database[:: max(1, len(scene.database) // _MOST_PLACES)]
    points = np.array([[point.easting, point.northing] for point in scene.points]).reshape(-1, 2)
    accepted = np.array([point.accepted for point in scene.points], np.bool_)
    levels = np.array([_level(point.confidence) for point in scene.points], np.int64)
    corner, scale, width, height = fit_box(np.concatenate([database, points]))
    places = place_points(points, corner, scale, height)
    bar = round_length(0.3 * (width - 2 * MARGIN) / scale)
    return TrackMap(
        width=round(width, 1),
        height=round(height, 1),
        database=dots(place_points(database, corner, scale, height)),
        accepted=tuple(dots(places[accepted & (levels == level)]) for level in range(LEVELS)),
        rejected=crosses(places[~accepted], 3),
        bar=round(bar * scale, 1),
        bar_label=f"{bar / 1000:g} km" if bar >= 1000 else f"{bar:g} m",
    )


def draw_timeline(scene: TrackScene) -> Timeline:
    """Draw the descriptor distance of every answer from left to right."""
    width, height = _TIMELINE
    distances = np.array([point.distance for point in scene.points], np.float64)
    highest = float(distances.max(initial=0.0)) or 1.0
    x = MARGIN + np.linspace(0, width - 2 * MARGIN, len(distances))
    y = height - FOOT + (FOOT - height + MARGIN) * distances / highest
    steps = [f"{left:.1f} {top:.1f}" for left, top in zip(x, y, strict=True)]
    rejected = np.array([not point.accepted for point in scene.points], np.bool_)
    marks = np.stack([x, y], axis=1)[rejected].round(1)
    return Timeline(width, height, "M" + "L".join(steps) if steps else "", crosses(marks, 3), highest)


def _level(confidence: float | None) -> int:
    """The shade of a confidence: steps of a fifth, the darkest where nothing is known against it."""
    return LEVELS - 1 if confidence is None else min(LEVELS - 1, int(confidence * LEVELS))
