"""The four CSVs of a city's database or query folder, column for column as MSLS has them.

Convention: easting and northing are UTM metres of the city's zone; a southern northing is stored *without* the
10,000 km false northing (negative). lon and lat are the same measured position in degrees.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import utm

from seqdata import geometry
from seqdata.geometry import FloatArray
from seqdata.synth.drives.drives import Trajectory
from seqdata.synth.settings import CityPlan
from seqdata.synth.visits import VISITS

FALSE_NORTHING = 10_000_000.0
COLUMNS = {
    "seq_info": ("key", "sequence_key", "frame_number"),
    "postprocessed": (
        "key",
        "easting",
        "northing",
        "unique_cluster",
        "control_panel",
        "night",
        "view_direction",
    ),
    "raw": ("key", "lon", "lat", "ca", "captured_at", "pano"),
    "subtask_index": ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"),
}
"""Column names of each file, after the unnamed index column."""


def city_tables(plan: CityPlan, drives: list[Trajectory], panoramas: frozenset[str]) -> dict[str, bytes]:
    """The CSV bytes by file stem for the trajectories of one role; row i is the same image in all four."""
    rows = [row for trajectory in drives for row in _rows(plan, trajectory, panoramas)]
    return {stem: _csv(columns, rows) for stem, columns in COLUMNS.items()}


def _csv(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> bytes:
    """A CSV with an unnamed integer index column first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("", *columns))
    writer.writerows((i, *(row[c] for c in columns)) for i, row in enumerate(rows))
    return text.getvalue().encode()


def _rows(plan: CityPlan, trajectory: Trajectory, panoramas: frozenset[str]) -> list[dict[str, Any]]:
    """One dict an image with the columns of all four files."""
    easting, northing, lat, lon = positions(plan, trajectory.measured)
    day = np.datetime64(trajectory.visit.date)
    same = {
        "sequence_key": trajectory.key,
        "control_panel": trajectory.visit.bonnet,
        "night": trajectory.visit.night,
        "view_direction": "Forward",
        "captured_at": str(day),
        **subtasks(plan, trajectory),
    }
    # MSLS numbers clusters of frames that lie together; cells of 10 m stand for them here. Nothing reads the column.
    cluster = np.floor(trajectory.position / 10.0).astype(int) @ np.array([1000, 1])
    return [
        {
            "key": key,
            "frame_number": int(trajectory.number[i]),
            "easting": float(easting[i]),
            "northing": float(northing[i]),
            "lon": float(lon[i]),
            "lat": float(lat[i]),
            "ca": float(trajectory.compass[i]),
            "unique_cluster": int(cluster[i]),
            "pano": key in panoramas,
            **same,
        }
        for i, key in enumerate(trajectory.keys)
    ]


def positions(plan: CityPlan, local: FloatArray) -> tuple[Any, Any, Any, Any]:
    """Easting, northing (as MSLS stores it), latitude and longitude of local metres `(n, 2)`, float64 `(n,)` each."""
    if plan.track:
        (east0, north0), (zone, north) = plan.track.origin, geometry.parse_zone(plan.track.zone)
    else:
        north = plan.latitude >= 0
        east0, north0, zone, _ = utm.from_latlon(plan.latitude, plan.longitude)
    easting, northing = east0 + local[:, 0], north0 + local[:, 1]
    # A recorded track may leave the zone of its first fix, whose metres it keeps; utm refuses that by default.
    lat, lon = utm.to_latlon(easting, northing, zone, northern=north, strict=plan.track is None)
    return easting, northing - (0.0 if north else FALSE_NORTHING), lat, lon


def subtasks(plan: CityPlan, trajectory: Trajectory) -> dict[str, bool]:
    """Which MSLS subtasks (summer to winter, day to night, old to new, ...: map to query) an image is part of."""
    query = trajectory.role == "query"
    old = VISITS[plan.database[0]].year
    new = trajectory.visit.year > old
    return {
        "all": True,
        "s2w": trajectory.visit.winter == query,
        "w2s": trajectory.visit.winter != query,
        "o2n": new == query,
        "n2o": new != query,
        "d2n": trajectory.visit.night == query,
        "n2d": trajectory.visit.night != query,
    }
