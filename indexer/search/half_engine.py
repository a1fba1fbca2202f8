"""Engine of exact search among float16 vectors: a few queries by FAISS's own float16 distances, many by products.

A product of one query with float16 vectors spends its time on widening them; FAISS's scalar quantiser widens eight or
sixteen values in a register as it reads them, and takes less time than NumPy does for float32 vectors.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.engines import NumpyEngine, half_norms, widen
from indexer.search.pools import Pool, parts, threads
from seqdata.geometry import Float32Array, IntArray

FEW = 32  # queries, above which a product of widened vectors takes less processor time
LEAST_VALUES = 1 << 24  # of the pool: below, an answer takes some milliseconds either way, and FAISS need not be loaded
NORM_VALUES = 1 << 21  # values widened at once for norms


class HalfEngine(NumpyEngine):
    """As `NumpyEngine`, for float16 vectors (n, k); what FAISS searches are these vectors where they lie, uncopied."""

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`."""
        if not isinstance(pool, slice) or len(queries) > FEW or not self._vectors.flags.c_contiguous:
            return super().best(queries, m, pool)
        start, stop, _ = pool.indices(len(self._vectors))
        if (stop - start) * self._vectors.shape[1] < LEAST_VALUES:
            return super().best(queries, m, pool)
        # FAISS gives each thread queries of its own; one query is divided by rows instead.
        workers = threads() if len(queries) == 1 else 1
        bounds = np.linspace(start, stop, workers + 1).astype(np.int64)
        indexes = [_scanner(self._vectors[low:high]) for low, high in pairwise(bounds)]
        if any(index is None for index in indexes):
            return super().best(queries, m, pool)
        with ThreadPoolExecutor(workers) as workshop:
            answers = list(workshop.map(lambda index: index.search(queries, m), indexes))
        squares = np.hstack([squares for squares, _ in answers]).astype(np.float64)
        rows = np.hstack([rows + low for (_, rows), low in zip(answers, bounds, strict=False)])
        # FAISS fills up with row -1 where a part has fewer than m rows.
        is_row = np.hstack([rows >= 0 for _, rows in answers])
        lengths = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
        scores = np.where(is_row, (lengths[:, None] - squares) / 2, -np.inf).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :m]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def half_norms(self, pool: Pool) -> Float32Array:
        """See `Engine.half_norms`."""
        for part in parts(pool, max(1, NORM_VALUES // self._vectors.shape[1])):
            if np.isnan(self._half[part]).any():
                self._half[part] = half_norms(widen(self._vectors[part]))
        return super().half_norms(pool)


def _scanner(vectors: StoredVectors) -> Any:
    """A FAISS index of float16 vectors (n, k) that reads them where they lie; None where this FAISS cannot."""
    import faiss  # heavy

    codes: Any = getattr(faiss, "MaybeOwnedVectorUInt8", None)
    if not hasattr(codes, "create_view"):  # before FAISS 1.11 codes are always copied
        return None
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
    # No owner, as nobody frees them: the engine keeps the vectors alive.
    index.codes = codes.create_view(faiss.swig_ptr(vectors.view(np.uint8).reshape(-1)), vectors.nbytes, codes().owner)
    index.ntotal = len(vectors)
    return index
