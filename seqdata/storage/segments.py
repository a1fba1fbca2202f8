"""A table that lies in several Parquet files, and of which some rows no longer count: read as one table.

A table that grows or loses rows is never written again: new rows lie in files of their own (*segments*), rows that are
gone are listed. One file of which every row counts is read as any other table.

Convention: a *stored row* counts the rows of all files, one after another; a *row* counts those that are left of them.
Their order is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from seqdata.storage.parquet import lazy_blocks, open_parquet, read_schema, scan_parquet

# As `seqdata.geometry.IntArray`: rooms of one row do not know each other.
RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowGroup:
    """A row group of one of the files: which, its number there, and its first stored row and the one after its last."""

    path: Path
    number: int
    start: int
    stop: int


def _no_rows() -> RowArray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class SegmentedTable:
    """The files of a table, and what holds instead of some of their rows.

    Attributes:
        paths: The files, in the order of their rows.
        columns: The columns that all files have; a file may have others, which are not part of the table.
        removed: Stored rows that are left out, rising, int64 (r,).
        changed: Stored rows with other values than their file holds, rising, int64 (c,).
        values: These values, one column for each column that they replace, c rows.

    Example:
        >>> table = SegmentedTable((), (), removed=np.array([1, 4]))
        >>> table.rows_of(np.array([0, 2, 5])).tolist()
        [0, 1, 3]
        >>> table.stored_rows(np.array([0, 1, 3])).tolist()
        [0, 2, 5]
    """

    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    removed: RowArray = field(default_factory=_no_rows)
    changed: RowArray = field(default_factory=_no_rows)
    values: pl.DataFrame = field(default_factory=pl.DataFrame)

    @cached_property
    def groups(self) -> tuple[RowGroup, ...]:
        """The row groups of all files. Raises: ContractError, InputError: as `open_parquet`."""
        groups, start = [], 0
        for path in self.paths:
            with open_parquet(path) as file:
                footer = file.metadata
            for number in range(footer.num_row_groups):
                stop = start + footer.row_group(number).num_rows
                groups.append(RowGroup(path, number, start, stop))
                start = stop
        return tuple(groups)

    @property
    def stored_height(self) -> int:
        """Number of stored rows."""
        return self.groups[-1].stop if self.groups else 0

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.stored_height - len(self.removed)

    def rows_of(self, stored_rows: npt.ArrayLike) -> RowArray:
        """Give the rows of stored rows (n,) that are left; one that is left out gives the row of the next."""
        at = np.asarray(stored_rows, dtype=np.int64)
        rows: RowArray = at - np.searchsorted(self.removed, at)
        return rows

    def stored_rows(self, rows: npt.ArrayLike) -> RowArray:
        """Give the stored rows of rows (n,)."""
        at = np.asarray(rows, dtype=np.int64)
        # The i-th removed row lies before row r when r is greater than or equal to its number less i.
        shifts = np.searchsorted(self.removed - np.arange(len(self.removed)), at, side="right")
        moved: RowArray = at + shifts
        return moved

    def read_group(self, group: RowGroup, columns: Sequence[str] | None, *, use_threads: bool = True) -> pa.Table:
        """Read the rows that are left of a row group, with the values of their file.

        Args:
            group: One of `groups`.
            columns: The columns; None reads `columns`.
            use_threads: Whether Arrow may use threads, which do not survive a fork.

        Raises:
            ContractError: If the file is damaged.
        """
        names = list(self.columns if columns is None else columns)
        with open_parquet(group.path) as file:
            table = file.read_row_group(group.number, columns=names, use_threads=use_threads)
        gone = self._between(self.removed, group)
        if not len(gone):
            return table
        is_left = np.ones(group.stop - group.start, dtype=bool)
        is_left[gone - group.start] = False
        return table.filter(pa.array(is_left))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield the table by row groups.

        Args:
            columns: The columns to read; None reads all.

        Raises:
            ContractError: If a file is damaged.
        """
        names = list(self.columns if columns is None else columns)
        for group in self.groups:
            # Arrow gives columns in their order in the file.
            block = pl.DataFrame(pl.from_arrow(self.read_group(group, names))).select(names)
            yield self._replace(block, group)

    def scan(self) -> pl.LazyFrame:
        """Scan the table lazily; what is collected from it is collected within `translated`.

        Raises:
            InputError, ContractError: As `scan_parquet`.
        """
        if len(self.paths) == 1 and not len(self.removed) and not len(self.changed):
            return scan_parquet(self.paths[0])
        schema = read_schema(self.paths[0])
        return lazy_blocks(self.blocks, {name: schema[name] for name in self.columns})

    def _replace(self, block: pl.DataFrame, group: RowGroup) -> pl.DataFrame:
        """Put the values in place that differ from the file's."""
        names = [name for name in self.values.columns if name in block.columns]
        changed = self._between(self.changed, group)
        if not names or not len(changed):
            return block
        first = int(np.searchsorted(self.changed, changed[0]))
        values = self.values[first : first + len(changed)]
        rows = self.rows_of(changed) - int(self.rows_of(group.start))
        return block.with_columns(block[name].scatter(rows, values[name]) for name in names)

    @staticmethod
    def _between(stored_rows: RowArray, group: RowGroup) -> RowArray:
        """Select the stored rows of a row group from rising ones."""
        start, stop = np.searchsorted(stored_rows, (group.start, group.stop))
        return stored_rows[start:stop]
