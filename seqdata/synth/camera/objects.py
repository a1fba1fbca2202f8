"""Trees, lamps and vehicles: flat pictures pasted from far to near, hidden where a wall is nearer."""

from __future__ import annotations

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.camera.stage import View
from seqdata.synth.world.sprites import VARIANTS


def paint_objects(picture: FloatArray, view: View, depth: FloatArray) -> None:
    """Paste all objects in sight; panoramas show none.

    Args:
        picture: (rows, W, 3), painted into.
        view: The view.
        depth: How far ahead each column's wall is in metres, (W,).
    """
    if view.camera.flat is None:
        return
    things = np.concatenate([view.stage.objects, view.close])
    h = np.radians(view.heading)
    east, north = (things[:, :2] - view.position).T
    ahead, right = east * np.sin(h) + north * np.cos(h), east * np.cos(h) - north * np.sin(h)
    seen = (ahead > 2.0) & (ahead < 70.0) & (np.abs(right) < ahead * 1.3 + 3.0)
    # From far to near, so that nearer objects cover farther ones (painter's algorithm).
    for i in np.flatnonzero(seen)[np.argsort(-ahead[seen], kind="stable")]:
        # The variant follows from where the object stands, so that it looks alike in every frame.
        sprite = view.stage.sprites[int(things[i, 4]), int(abs(things[i, 0]) * 7) % VARIANTS]
        scale = view.camera.flat / float(ahead[i])
        middle = picture.shape[1] / 2 + float(right[i]) * scale
        foot = view.camera.horizon + view.camera.height * scale
        size = things[i, 2:4] * scale
        box = (foot - size[0], foot, middle - size[1] / 2, middle + size[1] / 2)
        _paste(picture, view, sprite, box, float(ahead[i]), depth)


def _paste(
    picture: FloatArray,
    view: View,
    sprite: FloatArray,
    box: tuple[float, float, float, float],
    ahead: float,
    depth: FloatArray,
) -> None:
    """Stretch a sprite over `box` (top, bottom, left, right in pixels) where no wall is nearer than `ahead`."""
    top, bottom, left, right = box
    rows = np.arange(max(0, round(top)), min(picture.shape[0], round(bottom)))
    columns = np.arange(max(0, round(left)), min(picture.shape[1], round(right)))
    columns = columns[depth[columns] > ahead]
    if not len(rows) or not len(columns):
        return
    size = sprite.shape[0]
    i = ((rows + 0.5 - top) / (bottom - top) * size).astype(int).clip(0, size - 1)
    j = ((columns + 0.5 - left) / (right - left) * size).astype(int).clip(0, size - 1)
    cut, where = sprite[np.ix_(i, j)], np.ix_(rows, columns)
    colour = view.stage.fade(cut[..., :3], np.asarray(ahead))
    picture[where] += (colour - picture[where]) * cut[..., 3:]
