"""The geometry of a street: walls with their texture, and objects along the kerb.

Everything here is the place itself and the same for every visit; `facades.dress` and `ground` make a visit of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqdata.geometry import FloatArray, Int32Array
from seqdata.synth.settings import generator
from seqdata.synth.world import facades
from seqdata.synth.world.facades import PPM, Sheet
from seqdata.synth.world.layout import MARGIN, Street, right_normals


@dataclass(frozen=True)
class Walls:
    """Vertical walls: ends `a`, `b` `(M, 2)` metres; texture metres `u` `(M, 2)` at both ends."""

    a: FloatArray
    b: FloatArray
    u: FloatArray


@dataclass(frozen=True)
class Scene:
    """One street: walls, the joined texture of all buildings, and fixed objects along the kerb.

    `objects` is `(N, 5)` float64: x, y, height, width (metres), kind (`sprites.KINDS`).
    """

    street: Street
    walls: Walls
    sheet: Sheet
    objects: FloatArray
    seed: int

    @property
    def kinds(self) -> Int32Array:
        """Kind of every label of the texture, `(K,)`."""
        return np.asarray(self.sheet.kinds, np.int32)


def build_scene(street: Street, seed: int) -> Scene:
    """Build the scene of one street, a function of (seed, street) alone."""
    rng = generator(seed, street.key, "scene")
    sheets: list[Sheet] = []
    lines: list[FloatArray] = []
    for side in (-1.0, 1.0):
        line = street.side_line(side * street.half_width)
        for start, end, out in zip(line[:-1], line[1:], side * right_normals(street.points), strict=True):
            _row(start, end, out, rng, sheets, lines)
    for end in (0, -1):
        ends = np.stack([street.side_line(side * street.half_width)[end] for side in (-1.0, 1.0)])
        _row(ends[0], ends[1], np.zeros(2), rng, sheets, lines)
    return Scene(street, _walls(sheets, lines), _join(sheets), _kerbside(street, rng), seed)


def _row(
    start: FloatArray,
    end: FloatArray,
    out: FloatArray,
    rng: np.random.Generator,
    sheets: list[Sheet],
    lines: list[FloatArray],
) -> None:
    """Fill one straight side with buildings, some set back, some an alley; appends `(2, 2)` fronts."""
    total = float(np.hypot(*(end - start)))
    widths = rng.uniform(6.0, 17.0, max(1, round(total / 11.0)))
    widths *= total / widths.sum()
    along, at = (end - start) / total, 0.0
    for i, width in enumerate(widths):
        inner = 0 < i < len(widths) - 1 and bool(out.any())
        setback = rng.choice([0.0, 0.0, 1.5, 4.0, 16.0]) if inner else 0.0
        height = rng.uniform(2.0, 5.0) if setback > 10 else rng.uniform(4.5, 19.0)
        sheets.append(facades.paint(float(width), float(height), rng))
        front = start + np.outer([at, at + width], along) + out * setback
        lines.append(front)
        at += width


def _walls(sheets: list[Sheet], lines: list[FloatArray]) -> Walls:
    """Fronts, and a side wall wherever neighbours are not flush; it takes the nearer one's edge texels."""
    starts = np.concatenate([[0], np.cumsum([s.labels.shape[1] for s in sheets])]) / PPM
    fronts = np.stack(lines)
    u = np.stack([starts[:-1] + 0.01, starts[1:] - 0.01], -1)
    # Neighbours in the list that lie far apart are not neighbours in the street: another side, or its end.
    gap = np.hypot(*(fronts[1:, 0] - fronts[:-1, 1]).T)
    sides = np.flatnonzero((gap > 0.1) & (gap < 20.0))
    tallest = np.array([s.roof.max() for s in sheets])
    left = tallest[sides] >= tallest[sides + 1]
    edge = np.where(left, u[sides, 1], u[sides + 1, 0])
    inward = np.where(left, edge - 0.3, edge + 0.3)
    a = np.concatenate([fronts[:, 0], fronts[sides, 1]])
    b = np.concatenate([fronts[:, 1], fronts[sides + 1, 0]])
    return Walls(a, b, np.concatenate([u, np.stack([edge, inward], -1)]))


def _join(sheets: list[Sheet]) -> Sheet:
    """All buildings side by side in one texture, labels renumbered."""
    kinds, labels = [0], []
    for sheet in sheets:
        # Label 0 (never changes) is shared; the others continue where the last building's ended.
        labels.append(np.where(sheet.labels > 0, sheet.labels + len(kinds) - 1, 0).astype(np.int32))
        kinds += sheet.kinds[1:]
    albedo = np.concatenate([s.albedo for s in sheets], 1)
    return Sheet(albedo, np.concatenate(labels, 1), kinds, np.concatenate([s.roof for s in sheets]))


def _kerbside(street: Street, rng: np.random.Generator) -> FloatArray:
    """Trees (on streets that have them), lamps and boxes on the pavements, `(N, 5)`."""
    rows = []
    trees, length = rng.random() < 0.7, street.length + 2 * MARGIN
    for side in (-1.0, 1.0):
        marks = np.cumsum(rng.uniform(7.0, 22.0, int(length / 7.0))) - MARGIN
        marks = marks[marks < length - MARGIN - 2.0]
        place, _ = street.pose(marks, np.full(len(marks), side * (street.kerb + 0.8)))
        for x, y in place:
            kind = rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15] if trees else [0.0, 0.7, 0.3])
            height = (rng.uniform(4.0, 8.5), rng.uniform(5.5, 6.5), rng.uniform(1.0, 2.2))[kind]
            width = (height * rng.uniform(0.5, 0.8), 1.2, rng.uniform(0.6, 1.5))[kind]
            rows.append((x, y, height, width, kind))
    return np.array(rows)
