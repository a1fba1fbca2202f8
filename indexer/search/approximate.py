"""FAISS indexes of any kind: opened memory-mapped, searched, results whole and ordered as the exact ones are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.search.exact import ExactVectors
from indexer.search.faiss_layers import faiss_threads, kept_vectors, layers, search_everything, set_search
from indexer.search.file_layout import check_header, faiss_reason
from indexer.search.gpu_engines import FAISS_GREATEST_K, gpu_copy
from indexer.search.kinds import create
from indexer.search.pools import threads
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    import faiss

ADD_VALUES = 1 << 24
FEW = 4  # fewer queries run on one thread: what is shared out is too short to be worth a meeting of threads


class FaissVectors:
    """The vectors of a FAISS index (its part behind the transform), with their approximately nearest rows."""

    def __init__(self, index: "faiss.Index", where: str = "index") -> None:
        """Search `index`, which takes projected queries; `where` begins error messages."""
        self.index, self._where = index, where
        self._exact: ExactVectors | None = None
        self._on_device: faiss.Index | None = None

    def use_gpu(self) -> None:
        """Keep a copy on the GPU, which then answers whatever visits no more than the index's own lists.

        Kinds that FAISS has no GPU form of (graphs, multi-indexes, refinement) stay on the CPU, with a line in the log.

        Raises:
            MissingDependencyError: Where FAISS was built without a GPU, or sees none.
        """
        self._on_device = gpu_copy(self.index, self._where)

    def nearest(self, queries: Float32Array, k: int, rows: IntArray | None = None) -> tuple[Float32Array, IntArray]:
        """Find near vectors of queries.

        Where too few lists or links were visited to find k, the query runs again through all of them; a row that cannot
        be reached even so stands last, at distance infinity.

        Args:
            queries: Projected queries (q, d) float32.
            k: Neighbours a query; cut to what there is.
            rows: Search among these rows (m,) only, and thoroughly: exactly where the index keeps its vectors, else
                through all its lists or codes.

        Returns:
            Plain L2 distances (q, k) float32 and rows (q, k) int64, in the order of (distance, row). A kind that keeps
            only codes (PQ without refinement) gives the distances of these.
        """
        k = min(k, self.index.ntotal if rows is None else len(rows))
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if rows is not None:
            return self._among(queries, k, rows)
        squared, neighbours = self._run(queries, k, None)
        # FAISS fills with -1 where the visited lists or links hold fewer than k vectors.
        lost = np.flatnonzero((neighbours < 0).any(axis=1))
        if len(lost):
            squared[lost], neighbours[lost] = self._run(queries[lost], k, search_everything(self.index))
            _fill(squared, neighbours, np.arange(self.index.ntotal))
        return self._ordered(squared, neighbours)

    def nearest_of_all(self, queries: Float32Array, k: int) -> tuple[Float32Array, IntArray]:
        """As `nearest`, through all lists or links: exact where lists hold whole vectors."""
        return self._ordered(*self._run(queries, min(k, self.index.ntotal), search_everything(self.index)))

    def _among(self, queries: Float32Array, k: int, rows: IntArray) -> tuple[Float32Array, IntArray]:
        import faiss  # heavy

        if self._exact is None and (vectors := kept_vectors(self.index)) is not None:
            self._exact = ExactVectors(vectors, "cpu")
        if self._exact is not None:
            return self._exact.nearest(queries, k, rows)
        if not any(isinstance(layer, faiss.IndexIVF) for layer in layers(self.index)):
            return self._decoded(queries, k, rows)
        squared, neighbours = self._run(queries, k, search_everything(self.index, faiss.IDSelectorBatch(rows)))
        _fill(squared, neighbours, rows)
        return self._ordered(squared, neighbours)

    def _decoded(self, queries: Float32Array, k: int, rows: IntArray) -> tuple[Float32Array, IntArray]:
        """The nearest of the decoded vectors of `rows`, a block at a time."""
        squared, neighbours = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        step = max(1, ADD_VALUES // self.index.d)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            block_distances, nearest = ExactVectors(self.index.reconstruct_batch(part), "cpu").nearest(queries, k)
            squared, neighbours = np.hstack([squared, block_distances**2]), np.hstack([neighbours, part[nearest]])
        distances, neighbours = self._ordered(squared, neighbours)
        return distances[:, :k], neighbours[:, :k]

    def _run(self, queries: Float32Array, k: int, parameters: Any) -> tuple[Float32Array, IntArray]:
        on_device = self._on_device if parameters is None and k <= FAISS_GREATEST_K else None
        try:
            with faiss_threads(1 if len(queries) < FEW else threads()):
                index = on_device or self.index
                squared, neighbours = index.search(np.ascontiguousarray(queries), k, params=parameters)
        except RuntimeError as error:
            raise ContractError(f"{self._where}: FAISS cannot search so ({faiss_reason(error)})") from error
        # Rows come from the file: one beyond the places would end in an index error far from here.
        if neighbours.max() >= self.index.ntotal:
            raise ContractError(f"{self._where}: damaged, it holds rows beyond its {self.index.ntotal}")
        return squared, neighbours

    def _ordered(self, squared: Float32Array, neighbours: IntArray) -> tuple[Float32Array, IntArray]:
        distances = np.sqrt(np.maximum(squared, 0.0))
        order = np.lexsort((neighbours, distances), axis=1)
        return np.take_along_axis(distances, order, 1), np.take_along_axis(neighbours, order, 1)


def _fill(squared: Float32Array, neighbours: IntArray, rows: IntArray) -> None:
    """Put the first rows that were not reached, at infinity, where -1 stands (links may leave rows unreachable)."""
    for line in np.flatnonzero((neighbours < 0).any(axis=1)):
        missing = neighbours[line] < 0
        unreached = np.setdiff1d(rows, neighbours[line][~missing])
        neighbours[line, missing], squared[line, missing] = unreached[: missing.sum()], np.inf


def open_faiss(path: Path, rows: int, size: int, input_size: int, factory: str, search: dict[str, Any]) -> FaissVectors:
    """Map an index file of a factory string, with its search parameters.

    The file must have been checked against its hash first: FAISS does not survive every damaged file.

    Args:
        path: The file.
        rows: Vectors that it must hold.
        size: Values of a vector behind the transform.
        input_size: Values of a vector before it.
        factory: The FAISS factory string of the index behind the transform.
        search: Search parameters by FAISS's names.

    Returns:
        The index behind the transform, searchable.

    Raises:
        ContractError: If FAISS refuses the file, or it is of another kind or size.
    """
    import faiss  # heavy

    check_header(path, rows, input_size)
    # IFC maps flat codes and graphs too; older releases of FAISS lack it and map inverted lists alone.
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP) | faiss.IO_FLAG_ONDISK_SAME_DIR
    try:
        index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise ContractError(f"{path}: not a readable FAISS index ({faiss_reason(error)})") from error
    if (index.d, index.ntotal, index.metric_type) != (input_size, rows, faiss.METRIC_L2):
        raise ContractError(f"{path}: holds {index.ntotal} vectors of {index.d} values, not {rows} of {input_size}")
    try:
        # The manifest says what the file must hold: a file of another kind would answer with other distances.
        expected = _classes(create(factory, size))
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    # Layers are peeled off until the classes agree: the stored transform comes first, and a factory string may begin
    # with one of its own.
    while _classes(index) != expected:
        if not isinstance(index, faiss.IndexPreTransform):
            raise ContractError(f"{path}: holds a {type(index).__name__}, not the index of '{factory}'")
        outer, index = index, faiss.downcast_index(index.index)
        # The inner index lives inside the outer one, which Python would free without this reference.
        index.referenced_objects = [outer]
    if (index.d, index.ntotal) != (size, rows):
        raise ContractError(f"{path}: holds {index.ntotal} vectors of {index.d} values, not {rows} of {size}")
    try:
        set_search(index, search)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    return FaissVectors(index, str(path))


def _classes(index: "faiss.Index") -> list[str]:
    """The class names of an index's layers; FAISS reads some back as a class of another name, but the same content."""
    names = [type(layer).__name__ for layer in layers(index)]
    return [{"IndexRefineFlat": "IndexRefine", "IndexFlat": "IndexFlatL2"}.get(name, name) for name in names]
