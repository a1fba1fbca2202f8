"""The exact FAISS index: filling, writing, memory-mapped reading, nearest rows by plain L2 distance."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.transform import Floats, Transform
from seqdata.errors import ContractError, OutputError

if TYPE_CHECKING:
    import faiss

Rows = npt.NDArray[np.int64]

REFINE_VALUES = 1 << 24  # float32 values gathered at once while distances are recomputed: 64 MiB


def fill(blocks: Iterable[Floats], rows: int, transform: Transform | None, normalise: bool) -> "faiss.Index":
    """An exact index over the blocks (m, d), projected and, when asked, L2-normalised, in one stream.

    The vectors' memory is taken once, `rows` × k float32, and filled in place. With a transform the result
    is a `faiss.IndexPreTransform`, so that the file alone turns raw descriptors into neighbours.
    Raises: ContractError when the blocks do not hold `rows` finite descriptors of one size.
    """
    flat, done, size = None, 0, None
    for block in blocks:
        descriptors = check_descriptors(block, size)
        size = descriptors.shape[1]
        vectors = project(descriptors, transform, normalise)
        if flat is None:
            flat = _empty(rows, vectors.shape[1])
        if done + len(vectors) > rows:
            raise ContractError(f"more than {rows} descriptors came for {rows} places")
        _view(flat)[done : done + len(vectors)] = vectors
        done += len(vectors)
    if flat is None or done != rows:
        raise ContractError(f"{done} descriptors came for {rows} places: one is needed for each")
    return _with_transform(flat, transform, normalise, int(size or 0))


def project(descriptors: Floats, transform: Transform | None, normalise: bool) -> Floats:
    """Descriptors (m, d) as the index stores them: transformed (m, k), then L2-normalised when asked."""
    vectors = descriptors if transform is None else transform.apply(descriptors)
    if not normalise:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
    return unit


def check_descriptors(descriptors: npt.ArrayLike, size: int | None) -> Floats:
    """Descriptors as C-ordered float32 (n, d). Raises: ContractError on another shape, or not finite."""
    array = np.ascontiguousarray(descriptors, dtype=np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (size is not None and array.shape[1] != size):
        wanted = "(n, d)" if size is None else f"(n, {size})"
        raise ContractError(f"descriptors of shape {array.shape} where {wanted} is needed: another model's?")
    if not np.isfinite(array).all():
        raise ContractError("a descriptor holds NaN or infinity; check the model's weights")
    return array


def _empty(rows: int, size: int) -> "faiss.IndexFlatL2":
    """A flat index whose storage is already `rows` long; `add` would grow it by doubling, twice the peak."""
    import faiss

    flat = faiss.IndexFlatL2(size)
    flat.codes.resize(rows * flat.code_size)
    flat.ntotal = rows
    return flat


def _view(flat: "faiss.IndexFlatL2") -> Floats:
    """The stored vectors (n, k) of a flat index, without a copy; read-only when memory-mapped."""
    import faiss

    vectors: Floats = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return vectors


def _with_transform(
    flat: "faiss.IndexFlatL2", transform: Transform | None, normalise: bool, size: int
) -> "faiss.Index":
    import faiss

    if transform is None and not normalise:
        return flat
    index = faiss.IndexPreTransform(flat)
    if normalise:
        index.prepend_transform(faiss.NormalizationTransform(flat.d, 2.0))
    if transform is not None:
        linear = faiss.LinearTransform(size, flat.d, True)
        offset = -(transform.matrix.astype(np.float64) @ transform.mean.astype(np.float64))
        faiss.copy_array_to_vector(transform.matrix.ravel(), linear.A)
        faiss.copy_array_to_vector(offset.astype(np.float32), linear.b)
        linear.is_trained = True
        index.prepend_transform(linear)
    return index


def write(index: "faiss.Index", path: Path) -> None:
    """Write the index to `path` with FAISS. Raises: OutputError when the file system refuses."""
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise OutputError(f"{path}: cannot be written, most likely no space is left ({reason})") from error


class FlatVectors:
    """The stored vectors (n, k) of an index file, memory-mapped, with exact nearest rows.

    The file must have been checked against its hash first: FAISS does not survive every damaged file.
    """

    def __init__(self, path: Path) -> None:
        """Map the file. Raises: ContractError when FAISS refuses it or it holds another kind of index."""
        import faiss

        try:
            self._index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ContractError(f"{path}: not a readable FAISS index ({reason})") from error
        inner = self._index
        if isinstance(inner, faiss.IndexPreTransform):
            inner = faiss.downcast_index(inner.index)
        if not isinstance(inner, faiss.IndexFlatL2):
            raise ContractError(f"{path}: holds a {type(inner).__name__}, an exact L2 index is needed")
        self._vectors = _view(inner)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, k): stored vectors and their size."""
        return int(self._vectors.shape[0]), int(self._vectors.shape[1])

    @property
    def input_size(self) -> int:
        """d, the size of a descriptor before the transform."""
        return int(self._index.d)

    def nearest(self, queries: Floats, k: int, rows: Rows | None = None) -> tuple[Floats, Rows]:
        """Plain L2 distances (q, k) float32 and rows (q, k) int64 of the vectors nearest to queries.

        Queries are projected already. With `rows`, among those only. k is cut to what there is. FAISS finds
        the candidates; their distances are then recomputed from differences, because its product form loses
        digits near zero and depends on the batch. Ties are ordered by row.
        """
        import faiss

        pool = self._vectors if rows is None else self._pool(rows)
        k = min(k, len(pool))
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        _, found = faiss.knn(queries, pool, k)
        distances, found = _refine(queries, pool, found)
        return distances, found if rows is None else rows[found]

    def _pool(self, rows: Rows) -> Floats:
        """The vectors of `rows`: a slice without a copy when they follow each other, else a gathered copy."""
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all()):
            return self._vectors[rows[0] : rows[-1] + 1]
        return self._vectors[rows]


def _refine(queries: Floats, pool: Floats, found: Rows) -> tuple[Floats, Rows]:
    distances = np.empty(found.shape, np.float32)
    step = max(1, REFINE_VALUES // (found.shape[1] * pool.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        difference = pool[found[part]] - queries[part, None, :]
        squares = np.einsum("qkd,qkd->qk", difference, difference, dtype=np.float64)
        distances[part] = np.sqrt(squares)
    order = np.lexsort((found, distances), axis=1)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)
