"""Index files made of older ones with the same transform and quantiser: a file and new vectors, or parts side by side.

Exact kinds are copied block by block, inverted lists list by list; the other kinds are held in memory while they grow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np

from indexer.builder import merge_lists
from indexer.pca.exact_product import ARITHMETIC, projection_of
from indexer.pca.transform import Transform
from indexer.search.file_layout import FACTORY, Exact, write
from indexer.search.flat_file import map_exact, write_exact
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.storage.files import atomic_path

COPY_ROWS = 4096


@dataclass(frozen=True)
class Shape:
    """What all files of one index have in common: how vectors are stored, the transform before them, their sizes."""

    storage: str
    transform: Transform | None
    normalised: bool
    input_size: int
    size: int

    @property
    def exact(self) -> Exact | None:
        """The exact kind of storage, None for the others."""
        return cast("Exact", self.storage) if self.storage in FACTORY else None

    @property
    def is_wrapped(self) -> bool:
        """Whether the index in the file stands behind a transform or a normalisation."""
        return self.transform is not None or self.normalised


def check_arithmetic(arithmetic: str | None, storage: str, transform: Transform | None, path: Path) -> None:
    """Refuse to add vectors to those of another arithmetic; where nothing is computed any is as good.

    Raises:
        ContractError: If older vectors were projected, or assigned to lists, in another way than new ones would be.
    """
    # How a PCA was fitted (a second name) does not matter here: appended vectors are projected by the stored one.
    if projection_of(arithmetic) != ARITHMETIC and (transform is not None or storage not in FACTORY):
        raise ContractError(
            f"{path}: its vectors were computed by another arithmetic ({arithmetic or 'float32 products'}) than new "
            f"ones are ({ARITHMETIC}), and one index holds vectors of one only; build the index again, in a new folder"
        )


def grow(old: Path, rows: int, new: Iterable[Float32Array], count: int, shape: Shape, path: Path) -> None:
    """Write an index file that holds the vectors of an older one and new ones after them.

    Args:
        old: The older file.
        rows: Its vectors.
        new: The new vectors, projected blocks (m, k) float32.
        count: How many they are.
        shape: What both have in common.
        path: The file to write.

    Raises:
        ContractError: If a file is damaged.
        OutputError: If the disk refuses.
    """
    if shape.exact is not None:
        blocks = chain(_file_blocks(old, rows, shape, shape.input_size), new)
        write_exact(path, blocks, rows + count, shape.exact, shape.transform, shape.normalised)
        return
    index = merge_lists.open_index(old)
    # A graph or an array of codes grows only in memory: FAISS has no form of them in parts.
    if not merge_lists.has_lists(index):
        for block in new:
            merge_lists.add_projected(index, block, is_wrapped=shape.is_wrapped)
        write(index, path)
        return
    # Closed before the file is mapped again below: two copies of a large index would be in memory.
    del index
    # The new vectors are encoded into a part of their own, so that joining needs one list in memory, not the index.
    with atomic_path(path.with_name(f".{path.name}.part")) as part:
        encode(old, new, rows, part, shape.is_wrapped)
        merge_lists.join([old, part], path)
    path.with_name(f".{path.name}.part").unlink()


def encode(trained: Path, vectors: Iterable[Float32Array], first: int, path: Path, is_wrapped: bool) -> None:
    """Write projected vectors, encoded by the quantiser of another index file, as an index file of their own.

    Args:
        trained: An index file with that quantiser; its vectors are left out.
        vectors: Blocks (m, k) float32.
        first: The row of the first vector.
        path: The file to write.
        is_wrapped: Whether `trained` has a transform or a normalisation before its index.

    Raises:
        ContractError: If `trained` is damaged.
        OutputError: If the disk refuses.
    """
    index = merge_lists.trained(trained)
    for block in vectors:
        merge_lists.add_projected(index, block, first, is_wrapped=is_wrapped)
        first += len(block)
    write(index, path)


def join_exact(parts: Sequence[tuple[Path, int]], shape: Shape, path: Path) -> None:
    """Write the vectors of exact part files (path, rows), which lack the transform, one after another behind it."""
    if shape.exact is None:
        raise ContractError(f"{path}: parts of kind {shape.storage} are not joined as exact vectors")
    blocks = chain.from_iterable(_file_blocks(part, rows, shape, shape.size) for part, rows in parts)
    write_exact(path, blocks, sum(rows for _, rows in parts), shape.exact, shape.transform, shape.normalised)


def _file_blocks(path: Path, rows: int, shape: Shape, input_size: int) -> Iterator[Float32Array]:
    """The vectors of an exact file in blocks, float32."""
    assert shape.exact is not None  # noqa: S101  (the callers' branch)
    mapped = map_exact(path, rows, shape.size, input_size, shape.exact)
    for start in range(0, rows, COPY_ROWS):
        yield np.asarray(mapped[start : start + COPY_ROWS], np.float32)
