"""Exact index files: descriptors as the index stores them, written in one stream and mapped without FAISS.

Such a file is what `faiss.write_index` writes for `Flat` or `SQfp16` behind the transform, so that plain FAISS turns
raw descriptors into neighbours. It is written block by block: the vectors are never all in memory.
"""

import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from indexer.arrays import StoredVectors
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, OutputError
from seqdata.geometry import Float32Array
from seqdata.storage.files import explain_write_failure

if TYPE_CHECKING:
    import faiss

Exact = Literal["flat", "fp16"]

FACTORY: dict[str, str] = {"flat": "Flat", "fp16": "SQfp16"}
TYPES: dict[str, Any] = {"flat": np.float32, "fp16": np.float16}
# FAISS's file format, little-endian: code, d, ntotal, two unused, is_trained, metric (1 is L2).
INDEX_HEADER = struct.Struct("<4siqqq?i")
# SQfp16 goes on with its type (4 is fp16), range statistic and its argument, d, bytes a vector, trained values.
QUANTISER = struct.Struct("<iifQQQ")
COUNT = struct.Struct("<Q")
ALIGNMENT = 4


def wrap(inner: "faiss.Index", transform: Transform | None, normalise: bool) -> "faiss.Index":
    """The index behind its transform, so that the file alone turns raw descriptors into neighbours."""
    import faiss  # heavy

    if transform is None and not normalise:
        return inner
    index = faiss.IndexPreTransform(inner)
    if normalise:
        index.prepend_transform(faiss.NormalizationTransform(inner.d, 2.0))
    if transform is not None:
        linear = faiss.LinearTransform(transform.input_size, inner.d, True)
        # FAISS multiplies before it subtracts: A x + b with b = -A mean, summed in float64 as the mean may be far off.
        mean = transform.mean.astype(np.float64)
        offset = np.array([-(row.astype(np.float64) @ mean) for row in transform.matrix])
        faiss.copy_array_to_vector(transform.matrix.ravel(), linear.A)
        faiss.copy_array_to_vector(offset.astype(np.float32), linear.b)
        linear.is_trained = True
        index.prepend_transform(linear)
    index.ntotal = inner.ntotal
    return index


def write(index: "faiss.Index", path: Path) -> None:
    """Write the index to `path` with FAISS. Raises: OutputError when the file system refuses."""
    import faiss  # heavy

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OutputError(f"{path}: cannot be written, most likely no space is left ({faiss_reason(error)})") from error


def faiss_reason(error: BaseException) -> str:
    """The last line of a FAISS error: what was wrong, without the place in its source."""
    return str(error).strip().splitlines()[-1].rpartition("failed: ")[2]


def write_exact(
    path: Path, vectors: Iterable[Float32Array], rows: int, kind: Exact, transform: Transform | None, normalise: bool
) -> None:
    """Write projected vectors to an exact index file in one stream.

    Args:
        path: The file to write.
        vectors: Blocks (m, k) float32.
        rows: Vectors in all.
        kind: `flat` or `fp16`.
        transform: The transform before the vectors, None for none.
        normalise: Whether they were L2-normalised after it.

    Raises:
        OutputError: If the file system refuses.
        ContractError: If a value does not fit into float16.
    """
    blocks = iter(vectors)
    first = next(blocks)
    _write_head(path, kind, rows, first.shape[1], transform, normalise)
    try:
        with path.open("ab") as file:
            for block in chain([first], blocks):
                file.write(narrow(block, kind).data)
    except OSError as error:
        explain_write_failure(path, error)


def narrow(block: Float32Array, kind: Exact) -> StoredVectors:
    """A block (m, k) as the file stores it. Raises: ContractError when a value does not fit into float16."""
    if kind == "flat":
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore"):
        half = block.astype(np.float16)
    if not np.isfinite(half).all():
        raise ContractError("a descriptor value is beyond 65,504, the greatest that fp16 holds; use --kind flat")
    return half


def _write_head(path: Path, kind: Exact, rows: int, size: int, transform: Transform | None, normalise: bool) -> None:
    """All bytes of the file before the vectors, as FAISS writes them, with the number of rows put in."""
    import faiss  # heavy

    # An empty index is written by FAISS itself, then its counts are patched: the vectors need not be in memory, and all
    # but three numbers of the format stay FAISS's business. Layers write ntotal 8 bytes after their start.
    inner = faiss.index_factory(size, FACTORY[kind], faiss.METRIC_L2)
    inner.is_trained = True
    index = wrap(inner, transform, normalise)
    write(index, path)
    length = path.stat().st_size
    starts = {0, length - faiss.serialize_index(inner).size}
    # NumPy copies what is not aligned before every product: wrappers without transforms, of 41 bytes, move the rest.
    padding = -length % ALIGNMENT
    if padding:
        # FAISS keeps a pointer to what a wrapper wraps: the list keeps the Python objects alive until all is written.
        outer = [index]
        for _ in range(padding):
            outer.append(faiss.IndexPreTransform(outer[-1]))
        write(outer[-1], path)
        wrapper = (path.stat().st_size - length) // padding
        starts = {wrapper * depth for depth in range(padding)} | {start + wrapper * padding for start in starts}
    try:
        with path.open("r+b") as file:
            for start in starts:
                file.seek(start + 8)
                file.write(struct.pack("<q", rows))
            file.seek(-COUNT.size, 2)
            file.write(COUNT.pack(rows * size * (1 if kind == "flat" else 2)))
    except OSError as error:
        explain_write_failure(path, error)


def map_exact(path: Path, rows: int, size: int, input_size: int, kind: Exact) -> StoredVectors:
    """Map the vectors of an exact index file without reading them.

    Args:
        path: The file.
        rows: Vectors that it must hold.
        size: Values of a vector.
        input_size: Values of a vector before the transform.
        kind: `flat` or `fp16`.

    Returns:
        The vectors (rows, size), float32 or float16.

    Raises:
        ContractError: If it is no such file, or holds another number or size of vectors.
    """
    length = path.stat().st_size
    start = length - rows * size * np.dtype(TYPES[kind]).itemsize
    tail = INDEX_HEADER.size + (QUANTISER.size if kind == "fp16" else 0) + COUNT.size
    if start < tail:
        raise ContractError(f"{path}: too short for {rows} vectors of {size} values; build the index again")
    with path.open("rb") as file:
        outer = INDEX_HEADER.unpack(file.read(INDEX_HEADER.size))
        file.seek(start - tail)
        inner = file.read(tail)
    if not _fits(inner, rows, size, kind) or outer[1:3] != (input_size, rows):
        raise ContractError(f"{path}: holds no exact L2 index of {rows} vectors of {size} values ({FACTORY[kind]})")
    vectors: StoredVectors = np.memmap(path, dtype=TYPES[kind], mode="r", offset=start, shape=(rows, size))
    return vectors


def _fits(tail: bytes, rows: int, size: int, kind: Exact) -> bool:
    code, d, count, _, _, trained, metric = INDEX_HEADER.unpack_from(tail)
    (value_count,) = COUNT.unpack_from(tail, len(tail) - COUNT.size)
    good = (d, count, bool(trained), metric) == (size, rows, True, 1)
    if kind == "flat":
        return good and code == b"IxF2" and value_count == rows * size
    quantiser = QUANTISER.unpack_from(tail, INDEX_HEADER.size)
    return (
        good
        and code == b"IxSQ"
        and value_count == rows * size * 2
        and quantiser[0] == 4
        and quantiser[3:5] == (size, size * 2)
    )
