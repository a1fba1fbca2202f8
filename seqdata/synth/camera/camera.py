"""Cameras: columns with a bearing and a focal length, so that a panorama is only another set of columns.

Convention: bearings are radians to the right of the camera's heading, focal lengths pixels, rows count from the top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqdata.geometry import FloatArray


@dataclass(frozen=True)
class Camera:
    """Columns `(W,)` of a level camera, its picture's height and horizon row, and the lens' height over the road.

    `flat` is the focal length of a flat picture, None for a panorama (which shows no loose objects).
    """

    bearing: FloatArray
    focal: FloatArray
    rows: int
    horizon: float
    height: float
    flat: float | None

    def slope(self) -> FloatArray:
        """Rise a metre of distance of every pixel's ray, `(rows, W)` float32; negative under the horizon."""
        above = self.horizon - np.arange(self.rows) - 0.5
        return np.asarray(above[:, None] / self.focal, np.float32)


def pinhole(width: int, height: int, field: float, pitch: float, above: float) -> Camera:
    """Make a camera of flat pictures.

    Args:
        width: Pixels.
        height: Pixels.
        field: Horizontal field of view, in degrees.
        pitch: Degrees by which the camera looks up.
        above: Height of the lens over the road, in metres.
    """
    focal = width / 2 / np.tan(np.radians(field) / 2)
    bearing = np.arctan((np.arange(width) + 0.5 - width / 2) / focal)
    horizon = height * 0.52 + focal * np.tan(np.radians(pitch))
    # A column off the axis sees a wall at distance d from its own ray: the focal length along that ray is longer by
    # 1/cos.
    return Camera(bearing, focal / np.cos(bearing), height, float(horizon), above, float(focal))


def panorama(height: int, above: float) -> Camera:
    """Make a camera of full circles, twice as wide as high, as MSLS's panoramas are."""
    width = 2 * height
    bearing = (np.arange(width) + 0.5 - width / 2) * 2 * np.pi / width
    return Camera(bearing, np.full(width, width / (2 * np.pi)), height, height / 2, above, None)
