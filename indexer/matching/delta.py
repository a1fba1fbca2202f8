"""Delta descriptors of windows, straight from frame descriptors: no training, compared by cosine."""

import numpy as np

from indexer.arrays import unit
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

BLOCK_VALUES = 1 << 24


def deltas(frames: Float32Array, windows: IntArray) -> Float32Array:
    """Unit vectors (n, p) float32: the mean of each window's later half minus the mean of its earlier half.

    `frames` (f, p), `windows` (n, L) rows of them. Convention: the middle frame of an odd L belongs to neither half.
    The L2 distance of two unit vectors ranks as their cosine does.
    Raises: ContractError for windows of one frame. Source: methods, "Delta descriptors", form of the two halves.
    """
    length = windows.shape[1]
    if length < 2:
        raise ContractError("Delta descriptors are differences in time: windows need two frames or more")
    half = length // 2
    weights = np.repeat([-1 / half, 0, 1 / half], [half, length % 2, half]).astype(np.float32)
    out = np.empty((len(windows), frames.shape[1]), np.float32)
    step = max(1, BLOCK_VALUES // (length * frames.shape[1]))
    for start in range(0, len(windows), step):
        part = slice(start, start + step)
        out[part] = unit(np.einsum("nlp,l->np", frames[windows[part]], weights))
    return out
