"""Types of the arrays that pass through an index, unit vectors, and vectors spooled to the disk."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array
from seqdata.storage.files import explain_write_failure

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


# The header is a Python literal, and NumPy 2 lets what its parser raises at a broken one pass.
_BROKEN_NPY = (
    ValueError, EOFError, MemoryError, OverflowError, RecursionError, SyntaxError, TypeError, TokenError,
)  # fmt: skip


def open_npy(path: Path) -> npt.NDArray[Any]:
    """Map the array of a `.npy` file; nothing in it is ever executed.

    Args:
        path: The file, from whomever.

    Returns:
        The array, mapped for reading.

    Raises:
        InputError: If it is absent or cannot be read.
        ContractError: If it is something else, damaged, or holds Python objects.
    """
    # Without pickles a file can hold numbers only, so that one from a stranger runs no code.
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _BROKEN_NPY as error:
        raise ContractError(f"{path}: no .npy file of numbers, or its header is broken ({error})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ContractError(f"{path}: an .npz archive; save one array with numpy.save")
    return array


def map_blocks(
    folder: Path, blocks: Iterable[Float32Array], shape: tuple[int, int], kind: npt.DTypeLike = np.float32
) -> StoredVectors:
    """Write blocks of vectors into a file without a name, and map it.

    The file goes with the array, or with this process, however that ends: a killed one leaves nothing behind.

    Args:
        folder: Where the file lies; it is made.
        blocks: Vectors (m, k).
        shape: Vectors in all, and k.
        kind: Type in the file.

    Returns:
        The vectors, mapped for reading.

    Raises:
        OutputError: If the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed below; what fails in `blocks` is no write)
    except OSError as error:
        explain_write_failure(folder, error)
    with file:
        for block in blocks:
            try:
                file.write(np.ascontiguousarray(block, kind).data)
            except OSError as error:
                explain_write_failure(folder, error)
        try:
            file.flush()
        except OSError as error:
            explain_write_failure(folder, error)
        # The mapping keeps the nameless file alive after it is closed here.
        mapped: StoredVectors = np.memmap(file, kind, "r", shape=shape)
    return mapped
