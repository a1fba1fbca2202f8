"""A texture in all halved sizes, across and along apart, so that grazing walls do not shimmer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqdata.synth.settings import Floats, Ints


@dataclass(frozen=True)
class RipMap:
    """Texels of every size in one flat array `(N, 3)` uint8.

    Level `(i, j)` is the texture halved `i` times down its rows and `j` times along its columns; it starts at
    `offsets[i, j]` and is `widths[j]` texels wide.
    """

    texels: NDArray[np.uint8]
    offsets: Ints
    widths: Ints
    shape: tuple[int, int]

    def index(self, row: Ints, column: Ints, i: Ints, j: Ints) -> Ints:
        """Flat indices of full-size texels `(row, column)` read at level `(i, j)`; all broadcast together."""
        base = self.offsets[i, j] + (np.clip(column, 0, self.shape[1] - 1) >> j)
        return np.asarray(base + (np.clip(row, 0, self.shape[0] - 1) >> i) * self.widths[j])


def ripmap(texture: Floats, levels: tuple[int, int]) -> RipMap:
    """Halve a `(V, U, 3)` float texture (0..1) up to `levels` times down and along."""
    shape = (texture.shape[0], texture.shape[1])
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


def _mean(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of two byte arrays, without overflow."""
    return ((a.astype(np.uint16) + b + 1) >> 1).astype(np.uint8)


def level(footprint: Floats, most: int) -> Ints:
    """The level whose texels are about as large as a pixel: `footprint` is texels a pixel."""
    return np.clip(np.floor(np.log2(np.maximum(footprint, 1.0)) + 0.4), 0, most).astype(np.int32)
