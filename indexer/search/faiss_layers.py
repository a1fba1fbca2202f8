"""The layers of a FAISS index: what wraps what, size, threads, and the search parameters that layers have."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seqdata.errors import ContractError

if TYPE_CHECKING:
    import faiss

LINK_BYTES = 4
GRAPH_BYTES = 16  # an HNSW's level and offset of a vector
MOST_PROBES = 4096


def layers(index: "faiss.Index") -> "list[faiss.Index]":
    """The index, all that it wraps, its coarse quantiser and its refinement, outermost first."""
    import faiss

    found = [faiss.downcast_index(index)]
    for name in ("index", "base_index", "refine_index", "quantizer", "storage"):
        inner = getattr(found[0], name, None)
        if isinstance(inner, faiss.Index):
            found += layers(inner)
    return found


def estimate(index: "faiss.Index", rows: int) -> int:
    """Bytes of an index of this kind with `rows` vectors: codes, ids, links, coarse centres."""
    import faiss

    outer = faiss.downcast_index(index)
    if isinstance(outer, faiss.IndexPreTransform):
        return estimate(outer.index, rows)
    if isinstance(outer, faiss.IndexRefine):
        return estimate(outer.base_index, rows) + estimate(outer.refine_index, rows)
    codebooks = int(outer.pq.ksub * outer.d) * 4 if hasattr(outer, "pq") else 0
    if isinstance(outer, faiss.IndexIVF):
        return rows * (int(outer.code_size) + 8) + estimate(outer.quantizer, outer.nlist) + codebooks
    if isinstance(outer, faiss.IndexHNSW):
        links = 2 * LINK_BYTES * int(outer.hnsw.nb_neighbors(1))
        return rows * (int(outer.storage.sa_code_size()) + links + GRAPH_BYTES)
    if isinstance(outer, faiss.MultiIndexQuantizer):
        return codebooks
    return rows * int(outer.sa_code_size()) + codebooks


def ladder(index: "faiss.Index") -> list[dict[str, int]]:
    """Search parameters to measure, cheapest first: nprobe, efSearch and k_factor where the index has them."""
    import faiss

    found = layers(index)
    steps: list[dict[str, int]] = [{}]
    lists = [layer.nlist for layer in found if hasattr(layer, "nlist")]
    if lists:
        most = min(lists[0], MOST_PROBES)
        steps = [{"nprobe": 2**power} for power in range(math.ceil(math.log2(most)))] + [{"nprobe": most}]
    elif any(isinstance(layer, faiss.IndexHNSW) for layer in found):
        steps = [{"efSearch": 2**power} for power in range(4, 11)]
    if any(isinstance(layer, faiss.IndexRefine) for layer in found):
        steps = [{**step, "k_factor": factor} for factor in (4, 16, 64) for step in steps]
    return steps


def set_search(index: "faiss.Index", parameters: dict[str, Any]) -> None:
    """Set search parameters in every layer that has them; the index file keeps them.

    Raises: ContractError when none has one, or the value is no number above 0.
    """
    import faiss

    for name, value in parameters.items():
        if not isinstance(value, int) or not 0 < value < 1 << 31:
            raise ContractError(f"search parameter '{name}': {value!r} is no whole number above 0")
        owners = [layer for layer in layers(index) if _takes(layer, name)]
        if not owners:
            raise ContractError(f"search parameter '{name}': this index has none of that name")
        owner = owners[0].hnsw if name == "efSearch" and isinstance(owners[0], faiss.IndexHNSW) else owners[0]
        setattr(owner, name, value)


def _takes(layer: "faiss.Index", name: str) -> bool:
    return hasattr(layer.hnsw, name) if hasattr(layer, "hnsw") else hasattr(layer, name)


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Run FAISS on so many threads: short work of two threads takes twenty times as long on a busy machine."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
