"""Types of the arrays that pass through an index, and unit vectors."""

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

Stored = npt.NDArray[Any]

"""Stored vectors (n, k), float32 or float16, often a memory map."""

Floats = npt.NDArray[np.float32]

Doubles = npt.NDArray[np.float64]


def unit(vectors: Floats) -> Floats:
    """Vectors (n, p) of length one; those of zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
