"""Types of the arrays that pass through an index, and unit vectors."""

from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.geometry import Float32Array

StoredVectors = npt.NDArray[Any]

"""Stored vectors (n, k), float32 or float16, often a memory map."""


def unit(vectors: Float32Array) -> Float32Array:
    """Vectors (n, p) of length one; those of zeros stay zeros."""
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Squares of float32 values below 1e-19 or above 1e19 leave its range: such rows are scaled by their largest value.
    is_extreme = ((lengths < 1e-15) | (lengths > 1e15)).ravel()
    if is_extreme.any():
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        vectors = np.where(is_extreme[:, None] & (largest > 0), vectors / np.where(largest > 0, largest, 1), vectors)
        lengths = np.where(is_extreme[:, None], np.linalg.norm(vectors, axis=1, keepdims=True), lengths)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
