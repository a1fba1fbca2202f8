"""FAISS index files joined on disk: inverted lists of parts, copied list by list into one file, never all in memory.

Parts share one trained quantiser and carry their rows as ids. The result has the bytes of `faiss.write_index` of one
index to which all vectors were added in order. Kinds without inverted lists are grown in memory instead.

Why FAISS's own merge does not serve, and how its files begin, stands in `indexer.search.file_layout`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.search.file_layout import lists_head
from indexer.search.inverted_lists import add_block
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray
from seqdata.storage.files import explain_write_failure

if TYPE_CHECKING:
    import faiss


def core(index: "faiss.Index") -> Any:
    """The innermost index behind transforms, as its own class."""
    import faiss  # heavy

    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    return inner


def has_lists(index: "faiss.Index") -> bool:
    """Whether the index keeps its vectors in inverted lists alone, so that parts of it can be joined on disk."""
    import faiss  # heavy

    return isinstance(core(index), faiss.IndexIVF)


def trained(path: Path) -> "faiss.Index":
    """The index of a file without its vectors: transform and quantiser, ready to add. Only with inverted lists.

    Raises:
        ContractError: When FAISS refuses the file.
    """
    import faiss  # heavy

    index = open_index(path, faiss.IO_FLAG_MMAP)
    inner = core(index)
    # True: the index owns the new lists and frees them; the mapped ones go here.
    inner.replace_invlists(_empty_lists(inner), True)
    inner.ntotal = 0
    _set_total(index, 0)
    return index


def open_index(path: Path, flags: int = 0) -> "faiss.Index":
    """`faiss.read_index`.

    Raises:
        ContractError: When FAISS refuses the file.
    """
    import faiss  # heavy

    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise ContractError(f"{path}: not a readable FAISS index ({str(error).strip().splitlines()[-1]})") from error


def _empty_lists(inner: Any) -> Any:
    import faiss  # heavy

    lists: Any = faiss.ArrayInvertedLists(inner.nlist, inner.code_size)
    lists.this.disown()  # the index owns and frees them: Python must not
    return lists


def _set_total(index: "faiss.Index", total: int) -> None:
    """Write the number of vectors into every layer."""
    import faiss  # heavy

    layer = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexPreTransform):
        layer.ntotal = total
        layer = faiss.downcast_index(layer.index)
    layer.ntotal = total


def join(parts: Sequence[Path], path: Path) -> None:
    """Write one index file that holds the inverted lists of all parts, in their order; memory: one list of one part.

    Raises:
        ContractError: When a part is damaged or parts differ in their quantiser's shape.
        OutputError: When it cannot be written.
    """
    import faiss  # heavy

    # Read-only memory maps: pages of a part come and go as its lists are copied.
    opened = [open_index(part, faiss.IO_FLAG_MMAP) for part in parts]
    inner = [core(index) for index in opened]
    # The seals say that the parts are whole; this says that they belong together.
    shapes = {(index.nlist, index.code_size, index.d) for index in inner}
    if len(shapes) != 1:
        raise ContractError(f"{parts[0].parent}: the parts were made by different quantisers; make them again")
    sizes = np.array([[index.invlists.list_size(number) for number in range(index.nlist)] for index in inner])
    empty = trained(parts[0])
    _set_total(empty, int(sizes.sum()))
    try:
        with path.open("wb") as file:
            file.write(lists_head(empty, inner[0].code_size, sizes.sum(axis=0)))
            for number in np.flatnonzero(sizes.sum(axis=0)):
                filled_lists = [index.invlists for index, size in zip(inner, sizes[:, number], strict=True) if size]
                for take in (_codes, _ids):
                    for lists in filled_lists:
                        file.write(take(lists, int(number)).data)
    except OSError as error:
        explain_write_failure(path, error)


def _codes(lists: Any, number: int) -> npt.NDArray[np.uint8]:
    import faiss  # heavy

    size = lists.list_size(number) * lists.code_size
    codes: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(lists.get_codes(number), size)
    return codes


def _ids(lists: Any, number: int) -> IntArray:
    import faiss  # heavy

    ids: IntArray = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
    return ids


def add_projected(
    index: "faiss.Index", vectors: Float32Array, first: int | None = None, *, is_wrapped: bool = True
) -> None:
    """Add vectors behind the stored transform, but before the rotations that a factory string may begin with.

    Args:
        index: The index, changed in place.
        vectors: Projected vectors (m, k) float32.
        first: The row of the first vector; by default that after the last of the index.
        is_wrapped: Whether the outermost layer is the wrapper that `indexer.search.flat_file.wrap` puts around an index
            with a transform or a normalisation. Files do not tell a stored PCA from a factory's rotation.
    """
    import faiss  # heavy

    inner = faiss.downcast_index(index)
    if is_wrapped and isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    while isinstance(inner, faiss.IndexPreTransform):
        for position in range(inner.chain.size()):
            vectors = faiss.downcast_VectorTransform(inner.chain.at(position)).apply(np.ascontiguousarray(vectors))
        inner = faiss.downcast_index(inner.index)
    add_block(inner, vectors, first)
    _set_total(index, inner.ntotal)
