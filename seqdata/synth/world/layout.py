"""Streets: axis-aligned polylines with turns, laid side by side in a grid, in local metres.

Convention: x is east and y is north of the city's anchor, in metres. `s` is metres along the driven part of
the street's centre line (negative before its start). Lateral is positive to the right of the driving
direction. Headings are degrees clockwise from north.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.settings import CityPlan, CitySettings, generator

MARGIN = 45.0
"""Metres of street before and behind the driven part, so that no camera looks out of the world."""


@dataclass(frozen=True)
class Street:
    """One street: a polyline `(P, 2)` that starts `MARGIN` metres before the driven part."""

    key: str
    points: FloatArray
    half_width: float
    kerb: float
    length: float

    @property
    def marks(self) -> FloatArray:
        """Metres `s` of the polyline's points, `(P,)`."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)]) - MARGIN

    def centre(self, s: FloatArray) -> FloatArray:
        """Points `(..., 2)` of the bare polyline at metres `s`."""
        marks = self.marks
        return np.stack([np.interp(s, marks, self.points[:, 0]), np.interp(s, marks, self.points[:, 1])], -1)

    def pose(self, s: FloatArray, lateral: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions `(n, 2)` and headings `(n,)` of a car at metres `s`; corners are rounded over 10 m."""
        # The mean of points over 10 m rounds a corner as a car does, and the chord through them turns with it.
        around = self.centre(np.asarray(s)[:, None] + np.linspace(-5.0, 5.0, 11))
        ahead = around[:, -1] - around[:, 0]
        heading = np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1])) % 360.0
        right = np.stack([ahead[:, 1], -ahead[:, 0]], -1) / np.hypot(*ahead.T)[:, None]
        return around.mean(1) + right * np.asarray(lateral)[:, None], heading

    def side_line(self, offset: float) -> FloatArray:
        """The polyline `(P, 2)` shifted `offset` metres to the right, mitred at the turns."""
        right = right_normals(self.points)
        before, after = np.vstack([right[:1], right]), np.vstack([right, right[-1:]])
        # The bisector of both normals, lengthened so that it ends on both shifted lines.
        mitre = (before + after) / (1.0 + (before * after).sum(-1, keepdims=True))
        return np.asarray(self.points + offset * mitre)


def right_normals(points: FloatArray) -> FloatArray:
    """Unit normals `(P-1, 2)` to the right of each piece of a polyline `(P, 2)`."""
    steps = np.diff(points, axis=0)
    return np.asarray(np.stack([steps[:, 1], -steps[:, 0]], -1) / np.hypot(*steps.T)[:, None])


def city_streets(plan: CityPlan, settings: CitySettings, seed: int) -> list[Street]:
    """Lay out all streets of a city, at least 60 m apart, each the same for every visit."""
    columns = int(np.ceil(np.sqrt(plan.streets)))
    shapes = [_shape(plan, i, settings, seed) for i in range(plan.streets)]
    cell = max(float(np.ptp(points, axis=0).max()) for points, _ in shapes) + 60.0
    streets = []
    for i, (points, rng) in enumerate(shapes):
        corner = np.array([i % columns, i // columns]) * cell
        half = float(rng.uniform(7.5, 10.5))
        points = points - points.min(0) + corner
        streets.append(Street(f"{plan.name}/{i}", points, half, half - rng.uniform(2.2, 3.4), settings.street_length))
    return streets


def _shape(plan: CityPlan, index: int, settings: CitySettings, seed: int) -> tuple[FloatArray, np.random.Generator]:
    """A staircase polyline: straight pieces, turning right and left by turns."""
    rng = generator(seed, plan.name, "street", index)
    length = settings.street_length
    turns = max(1, round(length / 90.0))
    cuts = MARGIN + length * (np.arange(turns) + rng.uniform(0.35, 0.65, turns)) / turns
    pieces = np.diff(np.concatenate([[0.0], cuts, [length + 2 * MARGIN]]))
    first, side = rng.integers(4), rng.choice([-1, 1])
    bearings = np.radians(90.0 * (first + side * (np.arange(turns + 1) % 2)))
    # Rounded, because the cosine of 90° is 6e-17 and walls would be that much askew.
    steps = np.stack([np.sin(bearings), np.cos(bearings)], -1).round() * pieces[:, None]
    return np.vstack([np.zeros(2), np.cumsum(steps, axis=0)]), rng
