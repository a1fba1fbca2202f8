"""Exact index files: descriptors as the index stores them, written in one stream and mapped without FAISS.

Such a file is what `faiss.write_index` writes for `Flat` or `SQfp16` behind the transform, so that plain FAISS turns
raw descriptors into neighbours. It is written block by block: the vectors are never all in memory.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import StoredVectors
from indexer.pca.transform import Transform
from indexer.search.file_layout import (
    FACTORY,
    TYPES,
    Exact,
    exact_tail_size,
    is_exact_tail,
    outer_sizes,
    write_exact_head,
)
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.storage.files import explain_write_failure

if TYPE_CHECKING:
    import faiss


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
    import faiss  # heavy

    blocks = iter(vectors)
    first = next(blocks)
    inner = faiss.index_factory(first.shape[1], FACTORY[kind], faiss.METRIC_L2)
    inner.is_trained = True
    write_exact_head(path, wrap(inner, transform, normalise), inner, rows, kind)
    try:
        with path.open("ab") as file:
            for block in chain([first], blocks):
                file.write(narrow(block, kind).data)
    except OSError as error:
        explain_write_failure(path, error)


def narrow(block: Float32Array, kind: Exact) -> StoredVectors:
    """A block (m, k) as the file stores it.

    Raises:
        ContractError: When a value does not fit into float16.
    """
    if kind == "flat":
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore"):
        half = block.astype(np.float16)
    if not np.isfinite(half).all():
        raise ContractError("a descriptor value is beyond 65,504, the greatest that fp16 holds; use --kind flat")
    return half


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
    tail_size = exact_tail_size(kind)
    if start < tail_size:
        raise ContractError(f"{path}: too short for {rows} vectors of {size} values; build the index again")
    with path.open("rb") as file:
        sizes = outer_sizes(file.read(tail_size))
        file.seek(start - tail_size)
        tail = file.read(tail_size)
    if not is_exact_tail(tail, rows, size, kind) or sizes != (input_size, rows):
        raise ContractError(f"{path}: holds no exact L2 index of {rows} vectors of {size} values ({FACTORY[kind]})")
    vectors: StoredVectors = np.memmap(path, dtype=TYPES[kind], mode="r", offset=start, shape=(rows, size))
    return vectors
