"""The picture from one pose: a ray a column against all walls, a texture read a pixel, objects pasted over.

Convention: pixels `(row, column)` from the top left; a camera's columns carry a bearing to the right of its
heading (radians) and a focal length (pixels), so that a panorama is only another set of columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdata.synth.facades import PPM, dress
from seqdata.synth.ground import GPM, REACH, road_strip
from seqdata.synth.layout import MARGIN
from seqdata.synth.scene import Scene
from seqdata.synth.settings import generator
from seqdata.synth.sprites import VARIANTS, sprite_set
from seqdata.synth.texture import RipMap, level, ripmap
from seqdata.synth.visits import Visit

Floats = NDArray[np.floating[Any]]
FAR = 300.0
WALL_LEVELS = (4, 6)
ROAD_LEVELS = (5, 3)


@dataclass(frozen=True)
class Camera:
    """Columns `(W,)` of a camera: bearing (rad), focal length (px); picture height and horizon row (px)."""

    bearing: Floats
    focal: Floats
    rows: int
    horizon: float
    height: float
    flat: float | None
    """Focal length of a flat picture, None for a panorama (which shows no loose objects)."""


def pinhole(width: int, height: int, field: float, pitch: float, above: float) -> Camera:
    """A flat picture: horizontal `field` of view and `pitch` in degrees, lens `above` metres over the road."""
    focal = width / 2 / np.tan(np.radians(field) / 2)
    bearing = np.arctan((np.arange(width) + 0.5 - width / 2) / focal)
    horizon = height * 0.52 + focal * np.tan(np.radians(pitch))
    return Camera(bearing, focal / np.cos(bearing), height, horizon, above, focal)


def panorama(height: int, above: float) -> Camera:
    """A full circle, twice as wide as high, as MSLS's panoramas are."""
    width = 2 * height
    bearing = (np.arange(width) + 0.5 - width / 2) * 2 * np.pi / width
    return Camera(bearing, np.full(width, width / (2 * np.pi)), height, height / 2, above, None)


@dataclass(frozen=True)
class Stage:
    """A street dressed for one visit: everything `render` reads."""

    scene: Scene
    visit: Visit
    walls: RipMap
    road: RipMap
    sprites: dict[tuple[int, int], Floats]
    objects: Floats


def set_stage(scene: Scene, visit: Visit, parked: Floats) -> Stage:
    """Dress a street for a visit; `parked` `(N, 5)` are this visit's own objects."""
    rng = generator(scene.seed, scene.street.key, visit.name, "dress")
    lit = dress(scene.sheet.albedo, scene.sheet.labels, scene.kinds, visit, rng)
    return Stage(
        scene,
        visit,
        ripmap(lit, WALL_LEVELS),
        ripmap(road_strip(scene, visit), ROAD_LEVELS),
        sprite_set(visit, rng),
        np.concatenate([scene.objects, parked]),
    )


def render(stage: Stage, camera: Camera, position: Floats, heading: float, close: Floats) -> Floats:
    """The picture `(rows, W, 3)` float32 in 0..1 from `position` `(2,)` towards `heading` (degrees).

    `close` `(N, 5)` are vehicles that only this frame sees.
    """
    aim = np.radians(heading) + camera.bearing
    rays = np.stack([np.sin(aim), np.cos(aim)], -1)
    reach, wall, share, facing = _cast(stage.scene, position, rays)
    slope = ((camera.horizon - np.arange(camera.rows) - 0.5)[:, None] / camera.focal).astype(np.float32)
    height = camera.height + slope * reach.astype(np.float32)
    picture = _sky(stage.visit, slope)
    _paint_walls(picture, stage, camera, height, reach, wall, share, facing)
    _paint_road(picture, stage, camera, height, slope, position, rays)
    if camera.flat is not None:
        _paint_objects(picture, stage, camera, position, heading, reach * np.cos(camera.bearing), close)
    return picture


def _cast(scene: Scene, position: Floats, rays: Floats) -> tuple[Floats, NDArray[np.intp], Floats, Floats]:
    """Nearest wall of every column: distance, which one, share of its length, sine of the angle of incidence."""
    walls = scene.walls
    edge, to = walls.b - walls.a, walls.a - position
    turn = rays[:, :1] * edge[:, 1] - rays[:, 1:] * edge[:, 0]
    turn = np.where(np.abs(turn) < 1e-9, 1e-9, turn)
    distance = (to[:, 0] * edge[:, 1] - to[:, 1] * edge[:, 0]) / turn
    share = (to[:, 0] * rays[:, 1:] - to[:, 1] * rays[:, :1]) / turn
    distance = np.where((share >= 0) & (share <= 1) & (distance > 0.1), distance, FAR)
    wall = distance.argmin(1)
    pick = (np.arange(len(rays)), wall)
    return distance[pick], wall, np.clip(share[pick], 0, 1), np.abs(turn[pick]) / np.hypot(*edge[wall].T)


def _sky(visit: Visit, slope: Floats) -> Floats:
    """From the horizon's colour to the zenith's, `(rows, W, 3)`."""
    top, low = (np.asarray(c, np.float32) for c in visit.sky)
    up = np.clip(slope * 1.4, 0, 1)[..., None]
    picture: Floats = low + (top - low) * up
    return picture


def _paint_walls(
    picture: Floats, stage: Stage, camera: Camera, height: Floats, reach: Floats,
    wall: NDArray[np.intp], share: Floats, facing: Floats,
) -> None:  # fmt: skip
    """Draw every pixel that meets a wall between the ground and its roof."""
    u = stage.scene.walls.u[wall]
    column = ((u[:, 0] + (u[:, 1] - u[:, 0]) * share) * PPM).astype(np.int32)
    roof = stage.scene.sheet.roof[column.clip(0, len(stage.scene.sheet.roof) - 1)]
    inside = (height >= 0) & (height < np.where(reach < FAR, roof, -1.0))
    texels = reach / camera.focal * PPM
    down, along = level(texels, WALL_LEVELS[0]), level(texels / np.maximum(facing, 0.02), WALL_LEVELS[1])
    colour = stage.walls.texels[stage.walls.index((height * PPM).astype(np.int32), column, down, along)]
    lit = colour * (_sunlight(stage, wall) / 255.0).astype(np.float32)[:, None]
    np.copyto(picture, _fade(lit, stage.visit, reach)[:, :], where=inside[..., None])


def _sunlight(stage: Stage, wall: NDArray[np.intp]) -> Floats:
    """Brightness of each column's wall: ambient light plus the sun on the side that faces it."""
    edge = stage.scene.walls.b[wall] - stage.scene.walls.a[wall]
    sun = np.radians(stage.visit.sun)
    across = np.abs(edge[:, 1] * np.sin(sun) - edge[:, 0] * np.cos(sun)) / np.hypot(*edge.T)
    return stage.visit.ambient + (1 - stage.visit.ambient) * across


def _fade(colour: Floats, visit: Visit, distance: Floats) -> Floats:
    """Mix towards the horizon's colour with distance (metres)."""
    haze = (1 - np.exp(-distance / visit.haze)).astype(np.float32)[..., None]
    return colour + (np.asarray(visit.sky[1], np.float32) - colour) * haze


def _paint_road(
    picture: Floats,
    stage: Stage,
    camera: Camera,
    height: Floats,
    slope: Floats,
    position: Floats,
    rays: Floats,
) -> None:
    """Draw every pixel whose ray meets the ground before a wall."""
    top = max(0, int(np.floor(camera.horizon)))
    below = (height[top:] < 0) & (slope[top:] < -1e-4)
    distance = camera.height / np.maximum(-slope[top:], camera.height / FAR)
    x = np.float32(position[0]) + distance * rays[:, 0].astype(np.float32)
    y = np.float32(position[1]) + distance * rays[:, 1].astype(np.float32)
    s, t, aligned = _street_metres(stage.scene, x, y, position, rays.astype(np.float32))
    texels, stretch = distance / camera.focal * GPM, distance / camera.height
    across = np.sqrt(np.maximum(1 - aligned**2, 0))
    index = stage.road.index(
        ((s + MARGIN) * GPM).astype(np.int32),
        ((t + REACH) * GPM).astype(np.int32),
        level(texels * (stretch * aligned + across), ROAD_LEVELS[0]),
        level(texels * (stretch * across + aligned), ROAD_LEVELS[1]),
    )
    colour = stage.road.texels[index] * np.float32(1 / 255)
    np.copyto(picture[top:], _fade(colour, stage.visit, distance), where=below[..., None])


def _street_metres(scene: Scene, x: Floats, y: Floats, position: Floats, rays: Floats) -> tuple[Floats, Floats, Floats]:
    """Metres along and across the street of points `(rows, W)`, by the nearest piece of its polyline in sight.

    The third answer is how far each pixel's ray runs along that piece (0 across, 1 along).
    """
    points, marks = scene.street.points, scene.street.marks
    best = np.full(x.shape, np.inf, np.float32)
    s, t, aligned = np.zeros_like(x), np.zeros_like(x), np.ones_like(x)
    for a, b, mark in zip(points[:-1], points[1:], marks[:-1], strict=True):
        length = float(np.hypot(*(b - a)))
        ex, ey = ((b - a) / length).astype(np.float32)
        if _beyond(a, b, position, 60.0):
            continue
        dx, dy = x - np.float32(a[0]), y - np.float32(a[1])
        run, side = dx * ex + dy * ey, dx * ey - dy * ex
        over = run - np.clip(run, 0, length)
        gap = np.abs(side) + np.abs(over)
        closer = gap < best - np.float32(0.05)  # outside a corner both pieces are equally near
        np.copyto(best, gap, where=closer)
        np.copyto(s, run + np.float32(mark), where=closer)
        np.copyto(t, side, where=closer)
        np.copyto(aligned, np.abs(rays @ np.array([ex, ey])), where=closer)
    return s, t, aligned


def _beyond(a: Floats, b: Floats, position: Floats, reach: float) -> bool:
    """Whether a position lies farther than `reach` metres from the box around a piece of street."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return bool((np.maximum(low - position, position - high) > reach).any())


def _paint_objects(
    picture: Floats,
    stage: Stage,
    camera: Camera,
    position: Floats,
    heading: float,
    depth: Floats,
    close: Floats,
) -> None:
    """Paste objects from far to near, hidden where a wall is nearer."""
    things = np.concatenate([stage.objects, close])
    h = np.radians(heading)
    east, north = (things[:, :2] - position).T
    ahead, right = east * np.sin(h) + north * np.cos(h), east * np.cos(h) - north * np.sin(h)
    seen = (ahead > 2.0) & (ahead < 70.0) & (np.abs(right) < ahead * 1.3 + 3.0)
    for i in np.flatnonzero(seen)[np.argsort(-ahead[seen])]:
        sprite = stage.sprites[int(things[i, 4]), int(abs(things[i, 0]) * 7) % VARIANTS]
        _paste(picture, stage.visit, camera, sprite, things[i], float(ahead[i]), float(right[i]), depth)


def _paste(
    picture: Floats, visit: Visit, camera: Camera, sprite: Floats, thing: Floats,
    ahead: float, right: float, depth: Floats,
) -> None:  # fmt: skip
    """Paste one object `ahead` and `right` metres off."""
    assert camera.flat is not None
    scale = camera.flat / ahead
    middle, foot = picture.shape[1] / 2 + right * scale, camera.horizon + camera.height * scale
    left, top = middle - thing[3] / 2 * scale, foot - thing[2] * scale
    columns = np.arange(max(0, round(left)), min(picture.shape[1], round(left + thing[3] * scale)))
    columns = columns[depth[columns] > ahead]
    rows = np.arange(max(0, round(top)), min(picture.shape[0], round(foot)))
    if not len(rows) or not len(columns):
        return
    size = sprite.shape[0]
    i = ((rows + 0.5 - top) / (foot - top) * size).astype(int).clip(0, size - 1)
    j = ((columns + 0.5 - left) / (thing[3] * scale) * size).astype(int).clip(0, size - 1)
    cut = sprite[np.ix_(i, j)]
    colour = _fade(cut[..., :3], visit, np.float32(ahead))
    where = np.ix_(rows, columns)
    picture[where] += (colour - picture[where]) * cut[..., 3:]
