"""Types of the arrays that pass through an index, and unit vectors."""

from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.geometry import Float32Array

Stored = npt.NDArray[Any]

"""Stored vectors (n, k), float32 or float16, often a memory map."""


def unit(vectors: Float32Array) -> Float32Array:
    """Vectors (n, p) of length one; those of zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
