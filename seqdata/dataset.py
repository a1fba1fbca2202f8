"""An opened dataset: lazy tables, windows of any length and spacing, their truth, and pixels on demand."""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata import protocols
from seqdata.contracts import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.manifest import DatasetManifest, read_manifest
from seqdata.pixels import Pixels
from seqdata.protocol_tables import positives_name, stored_radius
from seqdata.protocols import Protocol, Rule, Unit
from seqdata.reading import FramePlaces, FrameReader
from seqdata.sequences import GEOMETRY_COLUMNS, Sequencer, TrackPolicy
from seqdata.storage import Store, read_parquet
from seqdata.stream import Stream
from seqdata.truth import accept, accepts

Integers = npt.NDArray[np.int64]


def open(path: str | Path) -> "Dataset":
    """The sealed dataset at `path`; nothing but its manifest is read yet.

    Raises: InputError when there is no dataset or the build is unfinished, ContractError when the manifest is broken.
    """
    return Dataset(Path(path), read_manifest(path))


class Dataset:
    """A sealed dataset; make it with `seqdata.open(path)`.

    Convention: a *frame row* is a row number of the frames table; window tables follow the contract `sequences`.
    """

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self.manifest = manifest
        self.store = Store(path)

    @property
    def id(self) -> str:
        """SHA-256 of the manifest: equal ids mean equal datasets."""
        return self.manifest.id

    @property
    def frames(self) -> pl.LazyFrame:
        """The frames table (contract `frames`), lazily: one row a frame, in (trajectory, position) order."""
        return pl.scan_parquet(self._checked("frames.parquet"))

    @cached_property
    def trajectories(self) -> pl.DataFrame:
        """One row a drive or contributor sequence (contract `trajectories`)."""
        return self._table("trajectories")

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Every input left out, with its reason (contract `quarantine`)."""
        return self._table("quarantine")

    def sequences(
        self,
        protocol: str | Path | Protocol | None = None,
        split: str | None = None,
        role: str | None = None,
        length: int = 5,
        stride: int = 1,
        spacing: float | None = None,
    ) -> pl.DataFrame:
        """Windows, one a row (contract `sequences`).

        With a `protocol` its length, stride, spacing and policies hold, `split` and `role` choose among its windows.
        Without one, panoramas are dropped and `length` (frames), `stride` (frames) and `spacing` (metres) hold.
        Raises: ContractError for an unknown protocol, split or role, or a split without a protocol.
        """
        if protocol is not None:
            return self._sequencer.of_protocol(self.load_protocol(protocol), split, role)
        if split is not None:
            raise ContractError(f"split '{split}' needs a protocol: splits are defined by protocols")
        table = self._sequencer.windows(TrackPolicy(spacing=spacing), length, stride)
        return table if role is None else table.filter(pl.col("role") == role)

    def load_protocol(self, protocol: str | Path | Protocol) -> Protocol:
        """The protocol that this dataset was built under when it has that name, else a shipped one or a file's.

        Raises: as `seqdata.protocols.load`.
        """
        stored = self.manifest.protocol
        if stored is not None and protocol == stored.name:
            return stored
        return protocols.load(protocol)

    def frame_rows(self, table: pl.DataFrame) -> Integers:
        """Frame row of every frame of every window: int64 (n, L)."""
        return self._sequencer.frame_rows(table)

    def places(self, table: pl.DataFrame) -> pl.DataFrame:
        """The windows with key, position, coordinates and heading of their centre frames (contract `places`)."""
        wanted = ("key", "position", "latitude", "longitude", "zone", "easting", "northing", "heading")
        columns = self.frame_columns(*wanted)[table["centre"].to_numpy()]
        return table_contract("places").conform(pl.concat([table, columns], how="horizontal"))

    def positives(
        self,
        query: pl.DataFrame,
        database: pl.DataFrame,
        radius: float = 25.0,
        rule: Rule = "any",
        unit: Unit = "metres",
        heading_max: float | None = None,
    ) -> pl.DataFrame:
        """Pairs of a query and a database window that the rule accepts, with all their distances.

        Rows are those of the two given tables (contract `positives`). Convention: metres within one zone and strictly
        less than `radius`; with unit frames at most `radius` apart in rank; `heading_max` in degrees.
        Raises: ContractError for an unknown rule or unit.
        """
        return self._sequencer.positives(query, database, radius, rule, unit, heading_max)

    def protocol_positives(self, protocol: str | Path | Protocol, split: str) -> pl.DataFrame:
        """The positives of a protocol's split by its own rule and radius; rows of its query and database tables.

        Read from the dataset where the build stored them, computed otherwise: both give the same rows.
        """
        loaded = self.load_protocol(protocol)
        return accept(
            self.protocol_pairs(loaded, split),
            rule=loaded.rule,
            radius=loaded.radius,
            unit=loaded.unit,
            heading_max=loaded.heading_max,
        )

    def answerable(self, protocol: Protocol, split: str) -> int:
        """How many queries of a split have a positive; stored pairs are scanned, never loaded whole."""
        name = positives_name(protocol, split)
        if name not in self.manifest.tables:
            return self.protocol_positives(protocol, split)["query"].n_unique()
        wanted = accepts(protocol.rule, protocol.radius, protocol.unit, protocol.heading_max)
        pairs = pl.scan_parquet(self._checked(name)).filter(wanted)
        return int(pairs.select(pl.col("query").n_unique()).collect(engine="streaming").item())

    def protocol_pairs(self, protocol: Protocol, split: str) -> pl.DataFrame:
        """All near pairs of a split by least distance, out to every radius that the protocol names for it."""
        name = positives_name(protocol, split)
        if name in self.manifest.tables:
            return read_parquet(self._checked(name))
        query = self.sequences(protocol, split, "query")
        database = self.sequences(protocol, split, "database")
        return self.positives(query, database, stored_radius(protocol, split), "any", protocol.unit)

    def read(self, table: pl.DataFrame, rows: npt.ArrayLike, size: tuple[int, int] | None = None) -> Pixels:
        """Pixels of the windows `rows` of a table: uint8 (n, L, 3, H, W) RGB, resized to `size` = (H, W) if given.

        One ranged read for each shard touched; each distinct frame is read and decoded once.
        Raises: InputError when a shard is absent or short, ContractError when a frame does not decode or sizes differ.
        """
        frame_rows = self.frame_rows(table[np.atleast_1d(np.asarray(rows, dtype=np.int64))])
        pixels = self.read_frames(frame_rows.ravel(), size)
        return pixels.reshape(*frame_rows.shape, *pixels.shape[1:])

    def read_frames(self, frame_rows: npt.ArrayLike, size: tuple[int, int] | None = None) -> Pixels:
        """Pixels of frames by row: uint8 (n, 3, H, W) RGB; see `read`."""
        return self.frame_reader()(np.asarray(frame_rows, dtype=np.int64), size)

    def frame_reader(self) -> FrameReader:
        """What reads frames by row, ready to be sent to loader workers: it holds places and no table."""
        return FrameReader(self.store, self._places)

    def stream(
        self,
        table: pl.DataFrame,
        seed: int = 0,
        epoch: int = 0,
        size: tuple[int, int] | None = None,
        shuffle: bool = True,
    ) -> Stream:
        """The windows of a table in the order of (seed, epoch), map-style for any DataLoader; see `Stream`."""
        frames = self.frame_columns("key", "position", "easting", "northing")
        rows = self.frame_rows(table)
        return Stream(table, rows, frames, self.frame_reader(), seed=seed, epoch=epoch, size=size, shuffle=shuffle)

    def frame_columns(self, *names: str) -> pl.DataFrame:
        """Columns of the frames table, held in memory from the first use on."""
        missing = [name for name in names if name not in self._columns]
        if missing:
            try:
                loaded = self.frames.select(missing).collect()
            except pl.exceptions.PolarsError as error:
                raise ContractError(f"{self.path / 'frames.parquet'}: damaged; run seqdata verify") from error
            self._columns.update({name: loaded[name] for name in missing})
        return pl.DataFrame([self._columns[name] for name in names])

    @cached_property
    def _columns(self) -> dict[str, pl.Series]:
        return {}

    @cached_property
    def _sequencer(self) -> Sequencer:
        return Sequencer(self.frame_columns(*GEOMETRY_COLUMNS), self.manifest.settings.resample_rule)

    @cached_property
    def _places(self) -> FramePlaces:
        return FramePlaces.of(self.frames)

    def _table(self, name: str) -> pl.DataFrame:
        path = self._checked(f"{name}.parquet")
        table = read_parquet(path)
        table_contract(name).validate(table, path)
        return table

    def _checked(self, name: str) -> Path:
        """Path of a table that the manifest lists. Raises: InputError when it is absent or of another size."""
        path = self.path / name
        info = self.manifest.tables.get(name)
        if info is None or not path.is_file():
            raise InputError(f"{path}: the table is missing; run seqdata verify, or build the dataset again")
        if path.stat().st_size != info.bytes:
            raise InputError(f"{path}: {path.stat().st_size} bytes, the manifest says {info.bytes}; run seqdata verify")
        return path
