"""Where frames lie, found a few at a time: a random read of a dataset of ten million frames loads no whole table."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from seqdata.errors import ContractError
from seqdata.geometry import IntArray


@dataclass(frozen=True)
class FramePlaces:
    """Where every frame of a dataset lies: shard, offset and length in bytes, int64 (F,) each."""

    shard: IntArray
    offset: IntArray
    length: IntArray


_COLUMNS = ("shard", "offset", "length")


class LazyPlaces:
    """The places in a frames table on disk, filled one Parquet row group at a time as rows are asked for.

    Memory that was never asked for is never touched, so it costs nothing: 24 bytes a frame of the row groups in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            footer = file.metadata
        heights = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(heights, dtype=np.int64)])
        self._filled = np.zeros(len(heights), dtype=bool)
        self._places = FramePlaces(*(np.zeros(footer.num_rows, dtype=np.int64) for _ in _COLUMNS))

    def of(self, rows: npt.NDArray[np.int64]) -> FramePlaces:
        """The places, right for `rows`. Raises: IndexError for a row that is not there, ContractError when damaged."""
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._starts[-1]):
            raise IndexError(f"frame rows {rows.min()} to {rows.max()} of {self._starts[-1]}")
        return self._fill(np.unique(np.searchsorted(self._starts, rows, side="right") - 1))

    def all(self) -> FramePlaces:
        """The places of every frame. Raises: ContractError when the table is damaged."""
        return self._fill(range(len(self._filled)))

    def _fill(self, groups: Iterable[int]) -> FramePlaces:
        missing = [int(group) for group in groups if not self._filled[group]]
        if not missing:
            return self._places
        with self._open() as file:
            for group in missing:
                rows = slice(self._starts[group], self._starts[group + 1])
                table = file.read_row_group(group, columns=list(_COLUMNS), use_threads=False)
                for name in _COLUMNS:
                    getattr(self._places, name)[rows] = table[name].to_numpy()
                self._filled[group] = True
        return self._places

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self._path) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise ContractError(f"{self._path}: damaged; run seqdata verify") from error
