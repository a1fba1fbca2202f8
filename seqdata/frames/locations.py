"""Where stored frames lie in the shards, read lazily: a random read of ten million frames loads no whole table."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from seqdata.storage.segments import RowGroup, SegmentedTable

Hashes = npt.NDArray[np.uint8]
"""XXH3-128 of stored frames: uint8 (F, 16)."""

HASH_BYTES = 16
GREATEST = 1 << 53  # bytes; eight petabytes, so that sums of two stay within int64
_NUMBERS = ("shard", "offset", "length")


@dataclass(frozen=True)
class FrameLocations:
    """Where every frame of a dataset lies: shard, offset and length in bytes, int64 (F,) each, and its hash."""

    shard: IntArray
    offset: IntArray
    length: IntArray
    hash: Hashes

    def numbers(self) -> IntArray:
        """Shard, offset and length as one array (3, F)."""
        return np.stack([self.shard, self.offset, self.length])


class LazyLocations:
    """The locations in a frames table on disk, read one Parquet row group at a time when rows of it are needed.

    Costs 40 bytes of memory for each frame of the row groups in use.

    Raises:
        ContractError: If the table is damaged.
    """

    def __init__(self, table: SegmentedTable) -> None:
        self._table = table
        groups = table.groups
        # A row group whose frames were all withdrawn has no rows: the next one then begins at the same row.
        self._starts = table.rows_of([*(group.start for group in groups), table.stored_height])
        self._is_read = np.zeros(len(groups), dtype=bool)
        # np.zeros asks the system for pages that it hands out when they are first written: unread groups cost nothing.
        shard, offset, length = (np.zeros(table.height, dtype=np.int64) for _ in _NUMBERS)
        hashes = np.zeros((table.height, HASH_BYTES), dtype=np.uint8)
        self._locations = FrameLocations(shard, offset, length, hashes)

    def covering(self, rows: IntArray) -> FrameLocations:
        """Read what is missing for frame rows `rows` (n,); entries of other rows may be zero.

        Raises:
            IndexError: For a row that the table does not have.
            ContractError: If the table is damaged.
        """
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._starts[-1]):
            raise IndexError(f"frame rows {rows.min()} to {rows.max()} of {self._starts[-1]}")
        return self._read(np.unique(np.searchsorted(self._starts, rows, side="right") - 1))

    def all(self) -> FrameLocations:
        """Read the locations of every frame.

        Raises:
            ContractError: When the table is damaged.
        """
        return self._read(range(len(self._is_read)))

    def _read(self, groups: Iterable[int]) -> FrameLocations:
        for number in groups:
            if self._is_read[number]:
                continue
            group = self._table.groups[number]
            rows = slice(self._starts[number], self._starts[number + 1])
            # Without Arrow's threads: they do not survive the fork that makes a loader worker.
            table = self._table.read_group(group, [*_NUMBERS, "hash"], use_threads=False)
            for name in _NUMBERS:
                getattr(self._locations, name)[rows] = self._checked(group, name, table[name].to_numpy())
            self._locations.hash[rows] = _hash_bytes(table["hash"])
            self._is_read[number] = True
        return self._locations

    @staticmethod
    def _checked(group: RowGroup, name: str, values: IntArray) -> IntArray:
        """Refuse numbers that no build writes; a read at such an offset would give another frame's bytes."""
        if len(values) and not 0 <= values.min() <= values.max() <= GREATEST:
            raise ContractError(f"{group.path}: column '{name}' holds numbers that are none of a shard")
        return values


def _hash_bytes(column: pa.ChunkedArray) -> Hashes:
    """A binary column of 16-byte values as uint8 (n, 16); the cast refuses values of another length."""
    fixed = column.cast(pa.binary(HASH_BYTES)).combine_chunks()
    parts = fixed.chunks if isinstance(fixed, pa.ChunkedArray) else [fixed]
    values = b"".join(part.buffers()[1][part.offset * HASH_BYTES :][: len(part) * HASH_BYTES] for part in parts)
    return np.frombuffer(values, dtype=np.uint8).reshape(-1, HASH_BYTES)
