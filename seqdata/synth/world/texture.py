"""A texture at all halved sizes, rows and columns halved independently (a rip map).

Walls along a street are seen at a slant: a pixel covers many texels along the wall and few down it, which square
mipmaps would blur or let shimmer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqdata.frames.images import Pixels
from seqdata.geometry import FloatArray, Int32Array


@dataclass(frozen=True)
class RipMap:
    """Texels of every size in one flat array `(N, 3)` uint8.

    Level `(i, j)` is the texture halved `i` times down its rows and `j` times along its columns; it starts at
    `offsets[i, j]` and is `widths[j]` texels wide.
    """

    texels: Pixels
    offsets: Int32Array
    widths: Int32Array
    shape: tuple[int, int]

    def index(self, row: Int32Array, column: Int32Array, i: Int32Array, j: Int32Array) -> Int32Array:
        """Compute flat indices of full-size texels `(row, column)` read at level `(i, j)`; all broadcast together."""
        base = self.offsets[i, j] + (np.clip(column, 0, self.shape[1] - 1) >> j)
        return np.asarray(base + (np.clip(row, 0, self.shape[0] - 1) >> i) * self.widths[j])


def ripmap(texture: FloatArray, levels: tuple[int, int]) -> RipMap:
    """Halve a texture again and again, down and along, into one rip map.

    Args:
        texture: (V, U, 3) float in 0..1.
        levels: How often it is halved down and along, at most.
    """
    shape = (texture.shape[0], texture.shape[1])
    # Padded to a multiple of the coarsest texel, so that every halving pairs whole texels.
    pad = [(0, -size % (1 << level)) for size, level in zip(shape, levels, strict=True)]
    down = (np.pad(texture, [*pad, (0, 0)], mode="edge") * 255).astype(np.uint8)
    blocks, offsets, total = [], np.zeros((levels[0] + 1, levels[1] + 1), np.int32), 0
    widths = [down.shape[1] >> j for j in range(levels[1] + 1)]
    for i in range(levels[0] + 1):
        along = down
        for j in range(levels[1] + 1):
            blocks.append(along.reshape(-1, 3))
            offsets[i, j], total = total, total + blocks[-1].shape[0]
            along = _mean(along[:, ::2], along[:, 1::2]) if j < levels[1] else along
        down = _mean(down[::2], down[1::2]) if i < levels[0] else down
    return RipMap(np.concatenate(blocks), offsets, np.array(widths, np.int32), shape)


def _mean(a: Pixels, b: Pixels) -> Pixels:
    """The mean of two byte arrays, without overflow."""
    # + 1 rounds half up; without it every halving would darken the texture a little.
    return ((a.astype(np.uint16) + b + 1) >> 1).astype(np.uint8)


def level(footprint: FloatArray, most: int) -> Int32Array:
    """Choose the level whose texels are about as large as a pixel: `footprint` is texels a pixel."""
    # + 0.4 rounds in the logarithm, slightly in favour of the finer level.
    return np.clip(np.floor(np.log2(np.maximum(footprint, 1.0)) + 0.4), 0, most).astype(np.int32)
