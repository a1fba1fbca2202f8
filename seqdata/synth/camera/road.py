"""Road pixels: where each ray meets the ground, in metres along and across the street."""

from __future__ import annotations

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.camera.stage import ROAD_LEVELS, View
from seqdata.synth.world.ground import GPM, REACH
from seqdata.synth.world.layout import MARGIN, Street
from seqdata.synth.world.texture import level

SIGHT = 60.0
"""Pieces of street farther than this from the camera are left out."""


def paint_road(picture: FloatArray, view: View, height: FloatArray, slope: FloatArray) -> None:
    """Draw every pixel whose ray meets the ground before a wall.

    Args:
        picture: (rows, W, 3), painted into.
        view: The view.
        height: Metres over the ground at which each pixel's ray meets its wall, (rows, W); below 0 where it meets the
            ground first.
        slope: Rise of each pixel's ray a metre, (rows, W).
    """
    camera, road = view.camera, view.stage.road
    top = max(0, int(np.floor(camera.horizon)))
    below = (height[top:] < 0) & (slope[top:] < -1e-4)
    # Similar triangles: the ray falls `-slope` a metre, and the lens is `height` metres up; at most 300 m.
    distance = camera.height / np.maximum(-slope[top:], camera.height / 300.0)
    s, t, aligned = street_metres(view.stage.scene.street, view, distance)
    # A pixel covers `texels` across its ray and `stretch` times more along it, as the ground is seen at a slant.
    texels, stretch = distance / camera.focal.astype(np.float32) * GPM, distance / camera.height
    across = np.sqrt(np.maximum(1 - aligned**2, 0))
    index = road.index(
        ((s + MARGIN) * GPM).astype(np.int32),
        ((t + REACH) * GPM).astype(np.int32),
        level(texels * (stretch * aligned + across), ROAD_LEVELS[0]),
        level(texels * (stretch * across + aligned), ROAD_LEVELS[1]),
    )
    colour = road.texels[index] * np.float32(1 / 255)
    np.copyto(picture[top:], view.stage.fade(colour, distance), where=below[..., None])


def street_metres(street: Street, view: View, distance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Locate the ground `distance` `(rows, W)` metres away on the street, by the nearest piece in sight.

    Returns metres along and across the street, and how far each pixel's ray runs along that piece (0 across, 1 along),
    `(rows, W)` float32 each.
    """
    rays = view.rays.astype(np.float32)
    x, y = (np.float32(view.position[i]) + distance * rays[:, i] for i in (0, 1))
    best = np.full(distance.shape, np.inf, np.float32)
    s, t, aligned = np.zeros_like(best), np.zeros_like(best), np.ones_like(best)
    for a, b, mark in zip(street.points[:-1], street.points[1:], street.marks[:-1], strict=True):
        if _beyond(a, b, view.position):
            continue
        length = float(np.hypot(*(b - a)))
        ex, ey = ((b - a) / length).astype(np.float32)
        dx, dy = x - np.float32(a[0]), y - np.float32(a[1])
        run, side = dx * ex + dy * ey, dx * ey - dy * ex
        gap = np.abs(side) + np.abs(run - np.clip(run, 0, length))
        # Outside a corner both pieces are equally near; the margin keeps the first, or the texture would flicker.
        closer = gap < best - np.float32(0.05)
        here = (gap, run + np.float32(mark), side, np.abs(rays @ np.array([ex, ey])))
        for field, value in zip((best, s, t, aligned), here, strict=True):
            np.copyto(field, value, where=closer)
    return s, t, aligned


def _beyond(a: FloatArray, b: FloatArray, position: FloatArray) -> bool:
    """Whether a position lies farther than `SIGHT` from the box around a piece of street."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return bool((np.maximum(low - position, position - high) > SIGHT).any())
