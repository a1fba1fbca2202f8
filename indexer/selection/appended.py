"""Search parameters and recall of an index that has grown, measured against exact search of what its file keeps.

The vectors of a new version are not at hand as they are in a plain build: the old ones lie in the index alone.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.search.approximate import FaissVectors, open_faiss
from indexer.search.exact import ExactVectors, Readable
from indexer.search.faiss_layers import estimate, kept_vectors
from indexer.search.kinds import KindSpec
from indexer.selection.choose import Point, settle
from indexer.selection.held_out import FLOAT16, FLOAT32, Searcher, hold_out
from indexer.versions.manifest import IndexManifest
from seqdata.geometry import Float32Array, IntArray

CODES = "not measured: the index keeps codes, not the vectors to compare with"
HALVES = "not measured: the older vectors are kept as float16 alone, with nothing to compare them with"


class ListVectors:
    """Whole vectors in the inverted lists of an index, read by row; 8 bytes a row tell where each lies."""

    def __init__(self, searcher: FaissVectors) -> None:
        """Read and search the lists of `searcher`."""
        self._searcher = searcher
        # FAISS numbers vectors by list; without this map each read by row would search all lists for it.
        searcher.index.make_direct_map()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, k)."""
        return self._searcher.index.ntotal, self._searcher.index.d

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: IntArray) -> Float32Array:
        vectors: Float32Array = self._searcher.index.reconstruct_batch(rows)
        return vectors

    def nearest(self, queries: Float32Array, k: int, rows: IntArray | None = None) -> tuple[Float32Array, IntArray]:
        """The nearest of all vectors, through all lists; see `indexer.selection.held_out.Searcher`."""
        return self._searcher.nearest_of_all(queries, k)


def recalibrate(path: Path, parent: IndexManifest, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose search parameters for an index that has grown.

    Held-out queries are rows of the database, target and choice those of a plain build; the file is mapped. Where an
    index keeps codes alone (PQ, SQ8, ...) nothing can be compared: the parameters of `parent` stay, and the curve says
    so. An index that keeps float16 vectors beside its lists or codes is compared with an exact search of those, which
    `truth` then says; one that is float16 alone (fp16) would be compared with itself, so nothing is measured.

    Args:
        path: The file of the index that has grown.
        parent: Manifest of the version that it grew from.
        rows: Its vectors.

    Returns:
        The parameters by FAISS's names, and what `indexer.versions.manifest.Measured` records.

    Raises:
        ContractError: If the file is damaged.
    """
    if parent.storage == "fp16":
        point = Point(parent.storage, parent.factory, {}, rows * parent.size * 2, note=HALVES)
        return {}, {"curve": [asdict(point)]}
    searcher = open_faiss(path, rows, parent.size, parent.input_size, parent.factory, parent.search)
    whole = _whole(searcher)
    if whole is None:
        point = Point(parent.storage, parent.factory, parent.search, estimate(searcher.index, rows), note=CODES)
        return parent.search, {"curve": [asdict(point)]}
    vectors, exact, truth = whole
    spec = KindSpec(recall_target=parent.settings["recall_target"], seed=parent.seed)
    held_out = hold_out(vectors, exact, spec.seed, truth=truth)
    selection = settle(searcher, held_out, parent.storage, parent.factory, spec)
    return selection.point.search, selection.facts()


def _whole(searcher: FaissVectors) -> tuple[Readable, Searcher, str] | None:
    """The vectors that an index keeps, their exact search, and what they are; None where it keeps codes alone."""
    import faiss  # heavy

    vectors = kept_vectors(searcher.index)
    # Refined indexes and graphs keep whole vectors in order of rows, which an exact search reads faster than lists.
    if vectors is not None:
        return vectors, ExactVectors(vectors, "cpu"), FLOAT32 if vectors.dtype == "float32" else FLOAT16
    index = faiss.downcast_index(searcher.index)
    # float16 codes are still one number a value: decoded they are whole vectors, unlike those of PQ or SQ8.
    halves = isinstance(index, faiss.IndexIVFScalarQuantizer) and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16
    if not halves and not isinstance(index, faiss.IndexIVFFlat):
        return None
    lists = ListVectors(searcher)
    return lists, lists, FLOAT16 if halves else FLOAT32
