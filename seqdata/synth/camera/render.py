"""Rendering of one view: a ray for each column against all walls, a texel for each pixel, then road and objects.

Walls are vertical and the camera is level, so one ray on the ground decides a whole column (as in early 3D games).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seqdata.geometry import FloatArray, IntArray
from seqdata.synth.camera.objects import paint_objects
from seqdata.synth.camera.road import paint_road
from seqdata.synth.camera.stage import WALL_LEVELS, View
from seqdata.synth.visits import Visit
from seqdata.synth.world.facades import PPM
from seqdata.synth.world.scene import Walls
from seqdata.synth.world.texture import level

FAR = 300.0
"""Metres beyond which there is only sky."""


class Hits(NamedTuple):
    """Where each column's ray meets a wall, `(W,)` each.

    `reach` metres, number of the `wall`, `share` of its length, and `facing`, the sine of the angle to it.
    """

    reach: FloatArray
    wall: IntArray
    share: FloatArray
    facing: FloatArray


def render(view: View) -> FloatArray:
    """Render a view: picture `(rows, W, 3)` float32 in 0..1."""
    hits = cast_rays(view.stage.scene.walls, view.position, view.rays)
    slope = view.camera.slope()
    height = view.camera.height + slope * hits.reach.astype(np.float32)
    picture = _sky(view.stage.visit, slope)
    _paint_walls(picture, view, height, hits)
    paint_road(picture, view, height, slope)
    paint_objects(picture, view, hits.reach * np.cos(view.camera.bearing))
    return picture


def cast_rays(walls: Walls, position: FloatArray, rays: FloatArray) -> Hits:
    """Find the nearest wall along each ray `(W, 2)`; reach is `FAR` where there is none."""
    # Ray and wall as two lines, solved by cross products for all (column, wall) pairs at once: `turn` is the cross
    # product of their directions, near 0 where they are parallel.
    edge, to = walls.b - walls.a, walls.a - position
    turn = rays[:, :1] * edge[:, 1] - rays[:, 1:] * edge[:, 0]
    turn = np.where(np.abs(turn) < 1e-9, 1e-9, turn)
    distance = (to[:, 0] * edge[:, 1] - to[:, 1] * edge[:, 0]) / turn
    share = (to[:, 0] * rays[:, 1:] - to[:, 1] * rays[:, :1]) / turn
    distance = np.where((share >= 0) & (share <= 1) & (distance > 0.1), distance, FAR)
    wall = distance.argmin(1)
    pick = (np.arange(len(rays)), wall)
    return Hits(distance[pick], wall, np.clip(share[pick], 0, 1), np.abs(turn[pick]) / np.hypot(*edge[wall].T))


def _sky(visit: Visit, slope: FloatArray) -> FloatArray:
    """From the horizon's colour to the zenith's, `(rows, W, 3)`."""
    # The factor 1.4 reaches the zenith's colour well inside the picture.
    top, low = (np.asarray(c, np.float32) for c in visit.sky)
    return np.asarray(low + (top - low) * np.clip(slope * 1.4, 0, 1)[..., None])


def _paint_walls(picture: FloatArray, view: View, height: FloatArray, hits: Hits) -> None:
    """Draw every pixel that meets a wall between the ground and its roof; `height` `(rows, W)` is metres there."""
    stage, scene = view.stage, view.stage.scene
    u = scene.walls.u[hits.wall]
    column = ((u[:, 0] + (u[:, 1] - u[:, 0]) * hits.share) * PPM).astype(np.int32)
    roof = scene.sheet.roof[column.clip(0, len(scene.sheet.roof) - 1)]
    inside = (height >= 0) & (height < np.where(hits.reach < FAR, roof, -1.0))
    # Texels under one pixel: along the wall a grazing ray covers 1 / sin of the incidence times more.
    texels = hits.reach / view.camera.focal * PPM
    down, along = level(texels, WALL_LEVELS[0]), level(texels / np.maximum(hits.facing, 0.02), WALL_LEVELS[1])
    colour = stage.walls.texels[stage.walls.index((height * PPM).astype(np.int32), column, down, along)]
    lit = colour * (_sunlight(stage.visit, scene.walls, hits.wall) / 255.0).astype(np.float32)[:, None]
    np.copyto(picture, stage.fade(lit, hits.reach), where=inside[..., None])


def _sunlight(visit: Visit, walls: Walls, wall: IntArray) -> FloatArray:
    """Brightness `(W,)` of each column's wall: ambient light, and the sun by the wall's direction."""
    edge, sun = walls.b[wall] - walls.a[wall], np.radians(visit.sun)
    across = np.abs(edge[:, 1] * np.sin(sun) - edge[:, 0] * np.cos(sun)) / np.hypot(*edge.T)
    return np.asarray(visit.ambient + (1 - visit.ambient) * across)
