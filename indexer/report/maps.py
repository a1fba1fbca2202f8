"""Maps of hits and misses as path data for inline SVG: equal scale on both axes, north up, a scale bar in metres."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seqdata.geometry import BoolArray, Float64Array

if TYPE_CHECKING:
    from indexer.report.scene import ReportScene

WIDTH, HEIGHT, MARGIN, FOOT = 560.0, 420.0, 18.0, 34.0
LEAST_SPAN = 20.0  # metres: a map of one place still shows a neighbourhood
MOST_CITIES = 6  # a page of maps stays readable and small


@dataclass(frozen=True)
class Map:
    """One city's map: SVG path data by layer, box size in SVG units, mark size, counts, scale bar."""

    city: str
    width: float
    height: float
    database: str
    left_out: str
    size: float
    hit: str
    near: str
    miss: str
    joins: str
    counts: dict[str, int]
    bar: float
    bar_label: str


def make_maps(scene: "ReportScene") -> tuple[Map, ...]:
    """Draw the maps of the cities with the most queries, at most six, most queries first.

    Convention: SVG's y grows downwards, north is up, and both axes have one scale.
    """
    names, counts = np.unique(scene.query_city, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CITIES]
    return tuple(_city_map(scene, str(names[row])) for row in order)


def _city_map(scene: "ReportScene", city: str) -> Map:
    """The map of one city's queries and database."""
    here = scene.query_city == city
    queries = scene.query_xy[here]
    status = scene.query_status[here]
    database = scene.database_xy[scene.database_city == city]
    corner, scale, width, height = fit_box(np.concatenate([queries, database]))
    points = place_points(queries, corner, scale, height)
    size = mark_size(points)
    bar = round_length(0.3 * (width - 2 * MARGIN) / scale)
    return Map(
        city=city,
        width=round(width, 1),
        height=round(height, 1),
        database=dots(place_points(database, corner, scale, height)),
        left_out=dots(points[status == "left-out"]),
        size=size,
        hit=dots(points[status == "hit"]),
        near=_triangles(points[status == "near"], round(4 * size, 1)),
        miss=crosses(points[status == "miss"], round(3 * size, 1)),
        joins=_joins(scene, here, lambda xy: place_points(xy, corner, scale, height)),
        counts={name: int((status == name).sum()) for name in ("hit", "near", "miss", "left-out")},
        bar=round(bar * scale, 1),
        bar_label=f"{bar / 1000:g} km" if bar >= 1000 else f"{bar:g} m",
    )


def _joins(scene: "ReportScene", here: BoolArray, place: Callable[[Float64Array], Float64Array]) -> str:
    """Lines from the misses and near misses of a city to where they were placed in it."""
    if scene.nearest is None:
        return ""
    rows = np.flatnonzero(here & np.isin(scene.query_status, ("miss", "near")) & (scene.nearest >= 0))
    # An answer in another city has no place on this map.
    rows = rows[scene.database_city[scene.nearest[rows]] == scene.query_city[rows]]
    ends = place(scene.query_xy[rows]), place(scene.database_xy[scene.nearest[rows]])
    return "".join(f"M{x:g} {y:g}L{u:g} {v:g}" for (x, y), (u, v) in zip(*ends, strict=True))


def fit_box(points: Float64Array) -> tuple[Float64Array, float, float, float]:
    """South-west corner, SVG units a metre, and box width and height that hold all points at equal scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    # A single place has no extent: without a least span the scale would be infinite.
    span = np.maximum(high - low, LEAST_SPAN)
    corner = (low + high - span) / 2
    # One scale for both axes, or the streets would be bent.
    scale = float(min((WIDTH - 2 * MARGIN) / span[0], (HEIGHT - 2 * MARGIN - FOOT) / span[1]))
    width = max(float(span[0]) * scale + 2 * MARGIN, 200.0)
    corner[0] -= (width - 2 * MARGIN - float(span[0]) * scale) / (2 * scale)
    return corner, scale, width, float(span[1]) * scale + 2 * MARGIN + FOOT


def place_points(points: Float64Array, corner: Float64Array, scale: float, height: float) -> Float64Array:
    """Metres (n, 2) to SVG units, to half a unit, y turned so that north is up."""
    # Half units keep the path short; marks that fall together are then drawn once.
    moved = (points - corner) * scale
    x, y = moved[:, 0] + MARGIN, height - FOOT - MARGIN - moved[:, 1]
    return np.round(np.stack([x, y], axis=1) * 2) / 2


def mark_size(points: Float64Array) -> float:
    """1 where marks have room, down to 0.4 where many fall on one spot of 6 units."""
    # Marks shrink with the share of them that would cover each other.
    spots = len(np.unique(np.round(points / 6), axis=0))
    return round(float(np.clip(np.sqrt(spots / max(len(points), 1)), 0.4, 1.0)), 2)


def round_length(limit: float) -> float:
    """The greatest of 1, 2 or 5 times a power of ten not above `limit`."""
    # The factor before the comparison forgives rounding, so that 5 fits into 5.
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step * power for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))


def dots(points: Float64Array) -> str:
    """Path data of a dot at each distinct point: a line of length 0, which round caps draw as a disc."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in np.unique(points, axis=0))


def _triangles(points: Float64Array, size: float) -> str:
    """Triangles of the given half-width around points."""
    return "".join(f"M{x:g} {y - size:g}l{size:g} {1.75 * size:g}h{-2 * size:g}z" for x, y in np.unique(points, axis=0))


def crosses(points: Float64Array, size: float) -> str:
    """Crosses of the given half-width on points."""
    span = 2 * size
    return "".join(
        f"M{x - size:g} {y - size:g}l{span:g} {span:g}m0 {-span:g}l{-span:g} {span:g}"
        for x, y in np.unique(points, axis=0)
    )
