"""The tables that a dataset stores, its own and those added later; each is checked before its values are used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from seqdata.contracts.dataset_tables import frames_table, stored_table
from seqdata.contracts.manifest import DatasetManifest, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.table_files import check_footer, read_table
from seqdata.contracts.tables import table_contract
from seqdata.dataset.extra_tables import pairs_path, read_added, table_infos
from seqdata.errors import ContractError
from seqdata.sequences.sequencer import ROLES
from seqdata.sequences.tables import nearest_name, positives_name, reach, track_name
from seqdata.sequences.window_numbers import WindowNumbers, stored_numbers
from seqdata.storage.parquet import scan_parquet, translated
from seqdata.storage.segments import SegmentedTable
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table


@dataclass(frozen=True)
class StoredPairs:
    """The stored pairs of a split.

    Attributes:
        paths: The files.
        numbers: The numbers that pairs hold, by role; none of a role where they hold rows.
    """

    paths: tuple[Path, ...]
    numbers: Mapping[str, WindowNumbers] = field(default_factory=dict)

    def select(self, condition: pl.Expr) -> pl.DataFrame:
        """Read the pairs that fulfil a condition.

        Returns:
            Contract `positives`: rows of the window tables, rising by query and database.

        Raises:
            ContractError: If a file is damaged or breaks its contract.
        """
        pairs = pl.concat(self._parts(condition, tuple(table_contract("positives").polars_schema())))
        return pairs.sort("query", "database") if self.numbers or len(self.paths) > 1 else pairs

    def count_queries(self, condition: pl.Expr) -> int:
        """Count the queries that have a pair which fulfils a condition; pairs that hold rows are never loaded whole.

        Raises:
            ContractError: As `select`.
        """
        if self.numbers or len(self.paths) > 1:
            return pl.concat([part["query"] for part in self._parts(condition, ROLES)]).n_unique()
        with translated(self.paths[0]):
            pairs = scan_parquet(self.paths[0]).filter(condition)
            return int(pairs.select(pl.col("query").n_unique()).collect(engine="streaming").item())

    def _parts(self, condition: pl.Expr, columns: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Yield the pairs of each file that fulfil a condition and count, with rows in place of numbers."""
        for path in self.paths:
            with translated(path):
                part = scan_parquet(path).filter(condition).select(columns).collect(engine="streaming")
            table_contract("positives").validate(part, path, columns)
            yield self._with_rows(part, path)

    def _with_rows(self, pairs: pl.DataFrame, path: Path) -> pl.DataFrame:
        """Put rows in place of numbers; pairs of a window that is gone are left out."""
        for role, numbers in self.numbers.items():
            if pairs.height and int(pairs[role].max()) >= numbers.next:  # type: ignore[arg-type]
                raise ContractError(f"{path}: column '{role}' names windows beyond the {numbers.next} of its numbering")
            rows = numbers.rows()[pairs[role].to_numpy()]
            pairs = pairs.with_columns(pl.Series(role, rows - 1)).filter(pl.Series(rows > 0))
        return pairs


@dataclass(frozen=True)
class StoredTables:
    """The tables of one version of a dataset.

    Attributes:
        store: The dataset's store.
        manifest: Manifest of the version.
    """

    store: Store
    manifest: DatasetManifest

    @property
    def frames(self) -> SegmentedTable:
        """The frames table, its files checked at every use: copies in the cache may be cut or gone.

        Raises:
            InputError: If it is not listed, missing, or cannot be fetched.
            ContractError: If its bytes, columns or number of rows are not those of the manifest.
        """
        return frames_table(self.store, self.manifest)

    def read(self, name: str) -> pl.DataFrame:
        """Read a whole table of the manifest: "trajectories" or "quarantine".

        Raises:
            InputError, ContractError: As `frames`.
        """
        return stored_table(self.store, self.manifest, name)

    def nearest(self, protocol: Protocol, split: str) -> pl.DataFrame | None:
        """Read the nearest distances of a split (contract `nearest`), None where none are stored."""
        info = self._of_protocol(protocol).get(nearest_name(protocol, split))
        return None if info is None else self._read("nearest", info)

    def pairs(self, protocol: Protocol, split: str, radius: float) -> StoredPairs | None:
        """Find the pairs of a split that reach `radius` or farther, the footers of their files checked.

        Returns:
            None where no stored ones reach that far.

        Raises:
            InputError, ContractError: As `frames`.
        """
        paths = []
        for info in self.manifest.parts(positives_name(protocol, split)):
            path = local_table(self.store, info.path, info)
            check_footer("positives", path, info.rows)
            paths.append(path)
        if paths and min(reach(path, protocol, split) for path in paths) >= radius:
            numbers = {role: self._numbers[split, role] for role in ROLES if (split, role) in self._numbers}
            return StoredPairs(tuple(paths), numbers)
        added = read_added(self.store, self.manifest.id, protocol).tables
        path_of_added = pairs_path(self.store, added, protocol, split, radius)
        return None if path_of_added is None else StoredPairs((path_of_added,))

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

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], WindowNumbers]:
        return stored_numbers(self.store, self.manifest)

    def _of_protocol(self, protocol: Protocol) -> dict[str, TableInfo]:
        """Tables of the manifest, and those that were added for a protocol."""
        # The manifest's tables win over added ones of the same name: their hashes are part of the dataset's id.
        return {**read_added(self.store, self.manifest.id, protocol).tables, **self.manifest.tables}

    def _read(self, name: str, info: TableInfo) -> pl.DataFrame:
        return read_table(name, local_table(self.store, info.path, info), info.rows)
