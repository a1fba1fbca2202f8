"""The layers of a FAISS index: what each class of them needs and offers, in one table.

An index is built of layers: a transform before an index, an index refined by whole vectors, inverted lists behind a
coarse quantiser. `LAYERS` holds an entry for each class that is treated in its own way; all others are taken as arrays
of codes, searched whole. A new class of FAISS index is one entry here.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arrays import StoredVectors
from seqdata.errors import ContractError

if TYPE_CHECKING:
    import faiss

LINK_BYTES = 4
GRAPH_BYTES = 16  # an HNSW's level and offset of a vector
ID_BYTES = 8
MOST_PROBES = 4096  # more lists than these take longer than an exact search of everything
EF_SEARCH = tuple(2**power for power in range(4, 11))
K_FACTORS = (4, 16, 64)


@dataclass(frozen=True)
class Layer:
    """What a class of FAISS index adds to the indexes that it is part of.

    Attributes:
        name: The class in `faiss`; subclasses count.
        memory: Bytes of an index (first argument) with so many vectors.
        ladder: Search parameters to measure, cheapest first.
        search_all: FAISS search parameters that visit everything among a selector's rows (None: all).
        vectors: The vectors (n, k) that it keeps by row, float32 or float16, or None.
    """

    name: str
    memory: "Callable[[Any, int], int]"
    ladder: "Callable[[Any], list[dict[str, int]]]"
    search_all: "Callable[[Any, Any], Any]"
    vectors: "Callable[[Any], StoredVectors | None]"


def layers(index: "faiss.Index") -> "list[faiss.Index]":
    """List the index, all that it wraps, its coarse quantiser and its refinement, outermost first."""
    import faiss  # heavy

    nested = [faiss.downcast_index(index)]
    for name in ("index", "base_index", "refine_index", "quantizer", "storage"):
        inner = getattr(nested[0], name, None)
        if isinstance(inner, faiss.Index):
            nested += layers(inner)
    return nested


def estimate(index: "faiss.Index", rows: int) -> int:
    """Estimate the bytes of an index of this kind with `rows` vectors: codes, ids, links, coarse centres."""
    outer, layer = _outermost(index)
    return layer.memory(outer, rows)


def ladder(index: "faiss.Index") -> list[dict[str, int]]:
    """List search parameters to measure, cheapest first: nprobe, efSearch and k_factor where the index has them."""
    outer, layer = _outermost(index)
    return layer.ladder(outer)


def search_everything(index: "faiss.Index", selector: Any = None) -> Any:
    """Make FAISS search parameters that visit all lists or links, among the rows of a selector (None: all)."""
    outer, layer = _outermost(index)
    return layer.search_all(outer, selector)


def kept_vectors(index: "faiss.Index") -> StoredVectors | None:
    """Map the vectors (n, k) that an index keeps by row, float32 or float16, without a copy; None where it has none."""
    outer, layer = _outermost(index)
    return layer.vectors(outer)


def _outermost(index: "faiss.Index") -> tuple[Any, Layer]:
    """An index as its own class, and the entry of that."""
    import faiss  # heavy

    outer = faiss.downcast_index(index)
    return outer, next(layer for layer in LAYERS if isinstance(outer, getattr(faiss, layer.name)))


def _codebooks(index: Any) -> int:
    return int(index.pq.ksub * index.d) * 4 if hasattr(index, "pq") else 0


def _graph_memory(index: Any, rows: int) -> int:
    links = 2 * LINK_BYTES * int(index.hnsw.nb_neighbors(1))
    return rows * (int(index.storage.sa_code_size()) + links + GRAPH_BYTES)


def _probes(index: Any) -> list[dict[str, int]]:
    most = min(index.nlist, MOST_PROBES)
    # Doubling: each rung costs twice the one before, so the whole climb at most twice the rung that is chosen.
    return [{"nprobe": 2**power} for power in range(math.ceil(math.log2(most)))] + [{"nprobe": most}]


def _refined_search(index: Any, selector: Any) -> Any:
    import faiss  # heavy

    inner = search_everything(index.base_index, selector)
    return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)


def _parameters(name: str, **fields: "Callable[[Any], Any]") -> "Callable[[Any, Any], Any]":
    """A `search_all` that makes FAISS's class `name` of a selector and of fields read from the index."""

    def make(index: Any, selector: Any) -> Any:
        import faiss  # heavy

        return getattr(faiss, name)(sel=selector, **{field: read(index) for field, read in fields.items()})

    return make


def _wrapped_search(index: Any, selector: Any) -> Any:
    import faiss  # heavy

    return faiss.SearchParametersPreTransform(index_params=search_everything(index.index, selector))


def _values(index: Any) -> StoredVectors | None:
    """The vectors that an array of codes holds whole: float32, or float16 of a scalar quantiser."""
    import faiss  # heavy

    codes = faiss.downcast_index(index)
    if isinstance(codes, faiss.IndexFlat):
        values: StoredVectors = faiss.rev_swig_ptr(codes.get_xb(), codes.ntotal * codes.d)
        return values.reshape(codes.ntotal, codes.d)
    if isinstance(codes, faiss.IndexScalarQuantizer) and codes.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
        bits: StoredVectors = faiss.rev_swig_ptr(codes.codes.data(), codes.ntotal * codes.code_size)
        halves: StoredVectors = bits.view(np.float16).reshape(codes.ntotal, codes.d)
        return halves
    return None


def _no_vectors(index: Any) -> StoredVectors | None:
    return None


# Looked through in this order: a class stands before those that it is derived from.
LAYERS = (
    Layer(
        "IndexPreTransform",
        memory=lambda index, rows: estimate(index.index, rows),
        ladder=lambda index: ladder(index.index),
        search_all=_wrapped_search,
        vectors=_no_vectors,  # they are those behind the transform, which is not undone
    ),
    Layer(
        "IndexRefine",
        memory=lambda index, rows: estimate(index.base_index, rows) + estimate(index.refine_index, rows),
        ladder=lambda index: [
            {**step, "k_factor": factor} for factor in K_FACTORS for step in ladder(index.base_index)
        ],
        search_all=_refined_search,
        vectors=lambda index: _values(index.refine_index),
    ),
    Layer(
        "IndexIVF",
        memory=lambda index, rows: (
            rows * (int(index.code_size) + ID_BYTES) + estimate(index.quantizer, index.nlist) + _codebooks(index)
        ),
        ladder=_probes,
        search_all=_parameters("SearchParametersIVF", nprobe=lambda index: index.nlist),
        vectors=_no_vectors,  # lists hold them by list, not by row
    ),
    Layer(
        "IndexHNSW",
        memory=_graph_memory,
        ladder=lambda index: [{"efSearch": width} for width in EF_SEARCH],
        search_all=_parameters("SearchParametersHNSW", efSearch=lambda index: index.ntotal),
        vectors=lambda index: _values(index.storage),
    ),
    Layer(
        "MultiIndexQuantizer",
        memory=lambda index, rows: _codebooks(index),
        ladder=lambda index: [{}],
        search_all=_parameters("SearchParameters"),
        vectors=_no_vectors,
    ),
    Layer(
        "Index",
        memory=lambda index, rows: rows * int(index.sa_code_size()) + _codebooks(index),
        ladder=lambda index: [{}],
        search_all=_parameters("SearchParameters"),
        vectors=_no_vectors,
    ),
)


def set_search(index: "faiss.Index", parameters: dict[str, Any]) -> None:
    """Set search parameters in every layer that has them; the index file keeps them.

    Args:
        index: The index, changed in place.
        parameters: Whole numbers above 0 by FAISS's names, such as {"nprobe": 16}.

    Raises:
        ContractError: If no layer has a parameter of a name, or a value is no whole number above 0.
    """
    import faiss  # heavy

    for name, value in parameters.items():
        if not isinstance(value, int) or not 0 < value < 1 << 31:
            raise ContractError(f"search parameter '{name}': {value!r} is no whole number above 0")
        owners = [layer for layer in layers(index) if _takes(layer, name)]
        if not owners:
            raise ContractError(f"search parameter '{name}': this index has none of that name")
        # efSearch is a field of the graph: on the index it would become a Python attribute, which FAISS never reads.
        owner = owners[0].hnsw if name == "efSearch" and isinstance(owners[0], faiss.IndexHNSW) else owners[0]
        setattr(owner, name, value)


def _takes(layer: "faiss.Index", name: str) -> bool:
    return hasattr(layer.hnsw, name) if hasattr(layer, "hnsw") else hasattr(layer, name)


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Run FAISS on so many threads: short work of two threads takes twenty times as long on a busy machine."""
    import faiss  # heavy

    # The number is FAISS's own for the whole process: the caller's setting is put back.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
