"""Vectors added to FAISS indexes, so that a vector's list depends on the vector alone.

FAISS assigns fewer than 20 vectors by differences and more by matrix products whose rounding depends on the height of
the block, so that a vector as near to two centres may change its list with the vectors beside it. Here assignments to
flat and multi-index quantisers are exact (ties go to the first centre); those to other quantisers, and codes of product
quantisers with 16 or more values a part, remain FAISS's own and may depend on the block.
"""

from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.exact import nearest_row
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    import faiss

ADD_VALUES = 1 << 24  # float32 values handed to FAISS at once: 64 MiB


def add(index: "faiss.Index", vectors: StoredVectors) -> None:
    """Add projected vectors (n, k) block by block, as the rows that follow the last."""
    # The vectors may be mapped and larger than memory: only a block of them is read at a time.
    step = max(1, ADD_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        add_block(index, np.ascontiguousarray(vectors[start : start + step], dtype=np.float32))


def add_block(index: "faiss.Index", vectors: Float32Array, first: int | None = None) -> None:
    """Add vectors (m, k) float32 to an index, as the rows from `first` on (without: that follow the last)."""
    import faiss  # heavy

    inner = faiss.downcast_index(index)
    lists = _assign(inner, vectors) if isinstance(inner, faiss.IndexIVF) and len(vectors) else None
    if lists is None:
        if first is None:
            inner.add(vectors)
        else:
            inner.add_with_ids(vectors, np.arange(first, first + len(vectors)))
        return
    start = inner.ntotal if first is None else first
    rows = np.arange(start, start + len(vectors), dtype=np.int64)
    # `add_core` is `add_with_ids` behind the assignment; it has no wrapper for arrays in FAISS's Python module.
    inner.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, rows, lists)))


def _assign(index: "faiss.IndexIVF", vectors: Float32Array) -> IntArray | None:
    """The list (m,) of every vector, None where only FAISS knows how the quantiser divides them."""
    import faiss  # heavy

    quantizer = faiss.downcast_index(index.quantizer)
    if isinstance(quantizer, faiss.MultiIndexQuantizer):
        return _assign_to_pairs(quantizer, vectors)
    if not isinstance(quantizer, faiss.IndexFlat) or quantizer.metric_type != faiss.METRIC_L2:
        return None
    centres = faiss.rev_swig_ptr(quantizer.get_xb(), quantizer.ntotal * quantizer.d)
    return nearest_row(vectors, centres.reshape(quantizer.ntotal, quantizer.d))


def _assign_to_pairs(quantizer: "faiss.MultiIndexQuantizer", vectors: Float32Array) -> IntArray:
    """The cell (m,) of every vector: the nearest centre of each part, the first part's in the lowest bits."""
    import faiss  # heavy

    pq = quantizer.pq
    centres = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    parts = vectors.reshape(len(vectors), pq.M, pq.dsub)
    cells = np.zeros(len(vectors), np.int64)
    for part in range(pq.M):
        cells |= nearest_row(np.ascontiguousarray(parts[:, part]), centres[part]) << (part * pq.nbits)
    return cells
