"""Delta descriptors of windows, straight from frame descriptors: no training, compared by cosine.

Form of the two halves: docs/methods.md#delta.
"""

import numpy as np

from indexer.arrays import unit
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

BLOCK_VALUES = 1 << 24  # frame values gathered at once: 64 MiB


def deltas(frames: Float32Array, windows: IntArray) -> Float32Array:
    """Compute the mean of each window's later half minus the mean of its earlier half, at unit length.

    Convention: the middle frame of an odd L belongs to neither half. The L2 distance of two unit vectors ranks as
    their cosine does.

    Args:
        frames: Frame descriptors (f, p).
        windows: Rows (n, L) of them.

    Returns:
        Unit vectors (n, p) float32.

    Raises:
        ContractError: If windows have one frame.

    Example:
        >>> deltas(np.array([[1.0, 0.0], [4.0, 4.0]], np.float32), np.array([[0, 1]])).round(2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    length = windows.shape[1]
    if length < 2:
        raise ContractError("Delta descriptors are differences in time: windows need two frames or more")
    half = length // 2
    # One weighted sum instead of two means: the middle frame of an odd length weighs nothing.
    weights = np.repeat([-1 / half, 0, 1 / half], [half, length % 2, half]).astype(np.float32)
    out = np.empty((len(windows), frames.shape[1]), np.float32)
    step = max(1, BLOCK_VALUES // (length * frames.shape[1]))
    for start in range(0, len(windows), step):
        part = slice(start, start + step)
        out[part] = unit(np.einsum("nlp,l->np", frames[windows[part]], weights))
    return out
