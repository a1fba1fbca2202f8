"""k-means on a GPU while a FAISS index is trained: vectors are assigned to centres there, all else stays on the CPU.

Nearly all of the time of training inverted lists and product quantisers is the search for each vector's nearest centre.
FAISS takes another flat index for that, which here lies on the GPU for as long as one index is trained.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from indexer.search.faiss_layers import layers
from indexer.search.gpu_engines import faiss_resources
from seqdata.errors import MissingDependencyError

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)


def has_faiss_gpu() -> bool:
    """Whether FAISS was built with a GPU and sees one."""
    try:
        return faiss_resources() is not None
    except MissingDependencyError:
        return False


def train_index(index: "faiss.Index", sample: "Any") -> None:
    """Train an index, its k-means on a GPU where FAISS has one; on the CPU where that fails.

    Centres of the two differ by rounding, as those of two CPUs do.

    Args:
        index: The index, changed in place.
        sample: Training vectors (n, d) float32, contiguous.

    Raises:
        RuntimeError: If FAISS cannot train on them.
    """
    if has_faiss_gpu():
        try:
            with assignment_on_gpu(index):
                index.train(sample)
        except RuntimeError as error:  # FAISS's only kind, for a full card too
            log.warning("k-means on the GPU failed (%s); it goes on with the CPU", str(error).splitlines()[0])
        else:
            return
    index.train(sample)


@contextmanager
def assignment_on_gpu(index: "faiss.Index") -> Iterator[None]:
    """Give every k-means of an index's layers a flat index on the GPU for its centres, and take it away at the end."""
    import faiss  # heavy

    resources = faiss_resources()
    borrowed: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, size in _trained(index):
            flat = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatL2(size))
            setattr(owner, name, flat)
            borrowed.append((owner, name, flat))
        yield
    finally:
        # Bare pointers in C++: they must not outlive the indexes, which end with this list.
        for owner, name, _ in borrowed:
            setattr(owner, name, None)


def _trained(index: "faiss.Index") -> list[tuple[Any, str, int]]:
    """What runs k-means: the owner, its field for an index that assigns, and the size of what that holds."""
    trained = []
    for layer in layers(index):
        if hasattr(layer, "clustering_index"):
            trained.append((layer, "clustering_index", int(layer.d)))
        quantizers = (getattr(layer, name, None) for name in ("pq", "refine_pq"))
        trained += [(part, "assign_index", int(part.dsub)) for part in quantizers if part is not None]
    return trained
