"""The places of a version as answers show them, read without polars; of a large table those row groups alone."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.versions.checks import check_file
from indexer.versions.manifest import PLACES, IndexManifest
from seqdata.errors import ContractError
from seqdata.geometry import IntArray

COLUMNS = pa.schema([
    *(pa.field(name, pa.string(), nullable=False) for name in ("key", "city", "trajectory")),
    pa.field("position", pa.int32(), nullable=False),
    *(pa.field(name, pa.float64(), nullable=False) for name in ("latitude", "longitude")),
    pa.field("zone", pa.string(), nullable=False),
    *(pa.field(name, pa.float64(), nullable=False) for name in ("easting", "northing")),
    pa.field("heading", pa.float32()),
])  # fmt: skip
"""Columns of the `places` table that an answer shows, with their types in `schemas/tables/places.toml`."""

WHOLE_BYTES = 64 << 20
"""Tables up to this size are read and hashed whole; of larger ones the pages that are read are compared with their
checksums, as of a dataset's tables (`seqdata.storage.parquet`)."""
GROUP_ROWS = 1 << 16
"""Rows of a row group of a large table: 6 MB to read for an answer's first place."""
OPEN_GROUPS = 64
"""Row groups that stay in memory; answers of a drive lie in a few."""


class PlaceTable:
    """The places of one version, one row a stored vector.

    Args:
        folder: The version's folder.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._path = folder / PLACES
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()

    def take(self, rows: IntArray) -> pa.Table:
        """Read the places of rows (n,), in their order.

        Raises:
            ContractError: If the table is damaged, or a column is absent or of another type.
        """
        record = self._manifest.files.get(PLACES)
        if record is None or record.bytes <= WHOLE_BYTES or not len(rows):
            return self.whole.take(rows)
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        needed, order = np.unique(groups, return_inverse=True)
        tables = [self._group(int(group)) for group in needed]
        starts = np.cumsum([0, *(len(table) for table in tables)])[:-1]
        return pa.concat_tables(tables).take(rows - self._starts[groups] + starts[order])

    @cached_property
    def whole(self) -> pa.Table:
        """All places.

        Raises:
            ContractError: If the file is damaged, or a column is absent or of another type.
        """
        check_file(self._folder, self._manifest, PLACES, hashed=True)
        with self._reading():
            return _typed(pq.read_table(self._path, columns=COLUMNS.names))

    @cached_property
    def _file(self) -> pq.ParquetFile:
        check_file(self._folder, self._manifest, PLACES, hashed=False)
        with self._reading():
            return pq.ParquetFile(self._path, page_checksum_verification=True)

    @cached_property
    def _starts(self) -> IntArray:
        footer = self._file.metadata
        heights = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        starts: IntArray = np.cumsum([0, *heights[:-1]], dtype=np.int64)
        return starts

    def _group(self, number: int) -> pa.Table:
        """One row group, kept while it is among those used last."""
        if number not in self._groups:
            with self._reading():
                self._groups[number] = _typed(self._file.read_row_group(number, columns=COLUMNS.names))
        self._groups.move_to_end(number)
        while len(self._groups) > OPEN_GROUPS:
            self._groups.popitem(last=False)
        return self._groups[number]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Name the table where what Arrow reads is damaged."""
        try:
            yield
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ContractError(f"{self._path}: not readable as a table of places ({reason})") from error


def _typed(places: pa.Table) -> pa.Table:
    """The contract's types; refused is what does not fit: another type, a null where none may be."""
    return places.cast(COLUMNS)
