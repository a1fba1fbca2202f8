"""The tables of one version of a dataset: each is written whole and remembered as the manifest will name it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from seqdata.manifest import VERSIONS, TableInfo
from seqdata.storage import Store, parquet_writer, xxh3_file


class Tables:
    """Writes tables of `version` into a store: those of version 1 beside the manifest, later ones in `versions/<n>`.

    `infos` holds what was written so far, by the table's name.
    """

    def __init__(self, store: Store, version: int = 1) -> None:
        self.store = store
        self.folder = "" if version == 1 else f"{VERSIONS}/{version:06d}"
        self.infos: dict[str, TableInfo] = {}

    def path(self, name: str) -> str:
        """Where the table `name` of this version stands in the dataset."""
        return f"{self.folder}/{name}" if self.folder else name

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write the Parquet table `name` to. Raises: OutputError."""
        with self.store.writing(self.path(name)) as temporary:
            yield temporary
            size, rows = temporary.stat().st_size, pq.read_metadata(temporary).num_rows
            info = TableInfo(path=self.path(name), bytes=size, hash=xxh3_file(temporary), rows=rows)
        self.infos[name] = info

    def write(self, name: str, table: pl.DataFrame, metadata: Mapping[str, str]) -> None:
        """Write a whole table. Raises: OutputError."""
        with self.writing(name) as temporary, parquet_writer(temporary, table.schema, metadata) as put:
            put(table)

    def clear(self) -> None:
        """Remove what an unfinished run left of this version: its tables, and half-written files beside them.

        Only for whoever holds the place alone: a writer's files are half-written too.
        """
        for folder in {"", VERSIONS, self.folder}:
            for name in self.store.names(folder):
                base = name.rsplit("/", 1)[-1]
                table = folder == self.folder and base.endswith(".parquet") and not base.startswith(".")
                if table or base.endswith(".tmp"):
                    self.store.remove(name)
