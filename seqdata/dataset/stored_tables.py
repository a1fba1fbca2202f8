"""The tables that a dataset stores, its own and those added later; each is checked before its values are used."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata.contracts.manifest import DatasetManifest, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.table_files import check_footer, read_table
from seqdata.dataset.extra_tables import pairs_path, read_added, table_infos
from seqdata.errors import ContractError, InputError
from seqdata.sequences.tables import nearest_name, track_name
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table


@dataclass(frozen=True)
class StoredTables:
    """The tables of one version of a dataset.

    Attributes:
        store: The dataset's store.
        manifest: Manifest of the version.
    """

    store: Store
    manifest: DatasetManifest

    def path(self, name: str) -> Path:
        """Give the local path of a table of the manifest, its footer checked.

        Args:
            name: Name of its contract, such as "frames".

        Raises:
            InputError: If it is not listed, missing, or cannot be fetched.
            ContractError: If its bytes, columns or number of rows are not those of the manifest.
        """
        info = self._own(name)
        path = local_table(self.store, info.path, info)
        check_footer(name, path, info.rows)
        return path

    def read(self, name: str) -> pl.DataFrame:
        """Read a whole table of the manifest.

        Errors are those of `path`.
        """
        return self._read(name, self._own(name))

    def nearest(self, protocol: Protocol, split: str) -> pl.DataFrame | None:
        """Read the nearest distances of a split (contract `nearest`), None where none are stored."""
        info = self._of_protocol(protocol).get(nearest_name(protocol, split))
        return None if info is None else self._read("nearest", info)

    def pairs(self, protocol: Protocol, split: str, radius: float) -> Path | None:
        """Find pairs of a split that reach `radius` or farther: local path, its footer checked; None without any."""
        return pairs_path(self.store, self._of_protocol(protocol), protocol, split, radius)

    def track(self, key: str) -> pl.DataFrame | None:
        """Read the track table of a key (contract `tracks`), None where none is stored.

        Its name states all that defines a track but the resampling rule, which is the dataset's own.

        Raises:
            ContractError: If it is damaged, or names frames that the dataset does not have.
        """
        added = {Path(path).name: info for path, info in table_infos(self.store, self.manifest.id).items()}
        info = {**added, **self.manifest.tables}.get(track_name(key))
        # One that was lost is computed: `add_tables` must be able to write it again.
        if info is None or self.store.size(info.path) is None:
            return None
        track, frames = self._read("tracks", info), self.manifest.counts.frames
        if not track["frame"].is_between(0, frames - 1).all():
            raise ContractError(f"{self.store}/{info.path}: names frames beyond the {frames} of the dataset")
        return track

    def _own(self, name: str) -> TableInfo:
        info = self.manifest.tables.get(f"{name}.parquet")
        if info is None:
            raise InputError(f"{self.store}/{name}.parquet: no such table in the manifest; build the dataset again")
        return info

    def _of_protocol(self, protocol: Protocol) -> dict[str, TableInfo]:
        """Tables of the manifest, and those that were added for a protocol."""
        # The manifest's tables win over added ones of the same name: their hashes are part of the dataset's id.
        return {**read_added(self.store, self.manifest.id, protocol).tables, **self.manifest.tables}

    def _read(self, name: str, info: TableInfo) -> pl.DataFrame:
        return read_table(name, local_table(self.store, info.path, info), info.rows)
