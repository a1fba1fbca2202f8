"""What a dataset's tables answer, without a frame being read: windows of any length and spacing, and their truth."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import polars as pl

from seqdata import protocols
from seqdata.contracts.facts import Facts
from seqdata.contracts.manifest import DatasetManifest
from seqdata.contracts.protocol import Edges, Panoramas, Protocol, Rule, Unit
from seqdata.contracts.tables import table_contract
from seqdata.contracts.version import VERSION
from seqdata.dataset.extra_tables import AddedTables, add_tables
from seqdata.dataset.stored_tables import StoredTables
from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from seqdata.sequences.nearest import nearest
from seqdata.sequences.positives import PairFinder, accepts
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, ROLES, Sequencer, TrackPolicy
from seqdata.sequences.tables import stored_radius
from seqdata.storage.parquet import translated
from seqdata.storage.store import Store
from seqdata.storage.table_cache import shared_table


class DatasetTables(Facts):
    """The tables of a sealed dataset, lazily.

    Convention: a *frame row* is a row number of the frames table; window tables follow the contract `sequences`.
    """

    def __init__(self, store: Store, manifest: DatasetManifest) -> None:
        self.store = store
        self.manifest = manifest
        self._tables = StoredTables(store, manifest)
        self.is_shared = False

    def _facts(self) -> dict[str, object]:
        counts, protocol = self.manifest.counts, self.manifest.protocol
        return {
            "at": self.location,
            "source": self.manifest.source.kind,
            "frames": counts.frames,
            "trajectories": counts.trajectories,
            "shards": len(self.manifest.shards),
            "protocol": "none" if protocol is None else protocol.label,
            "id": self.id[:12],
        }

    @property
    def location(self) -> str:
        """Where it lies: the folder or URL as it was given, a password in it left out."""
        return str(self.store)

    @property
    def address(self) -> str:
        """The location as a process in any folder finds it: a URL, or an absolute path."""
        return self.location if "://" in self.location else str(Path(self.location).resolve())

    @property
    def path(self) -> Path:
        """Folder of a local dataset. Raises: InputError for a remote one, which has a `location` only."""
        return self.store.path("")

    @property
    def id(self) -> str:
        """SHA-256 of the manifest: equal ids mean equal datasets."""
        return self.manifest.id

    def share_tables(self) -> None:
        """Keep large tables in files of the machine's cache that its processes map, from their first use on.

        For processes that read the same dataset at the same time, such as the ranks of a training. The files stay for
        the next ones.
        """
        self.is_shared = True

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return self.manifest.counts.frames

    @property
    def frames(self) -> pl.LazyFrame:
        """The frames table (contract `frames`), lazily: one row a frame, in (trajectory, position) order.

        Raises:
            ContractError: When its columns or its number of rows are not those of the manifest.
        """
        return self._tables.frames.scan()

    @cached_property
    def trajectories(self) -> pl.DataFrame:
        """One row a drive or contributor sequence (contract `trajectories`)."""
        return self._tables.read("trajectories")

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Every input left out, with its reason (contract `quarantine`)."""
        return self._tables.read("quarantine")

    def sequences(
        self,
        protocol: str | Path | Protocol | None = None,
        split: str | None = None,
        role: str | None = None,
        length: int = 5,
        stride: int = 1,
        spacing: float | None = None,
        panoramas: Panoramas = "drop",
        max_step: float | None = None,
        edges: Edges = "drop",
    ) -> pl.DataFrame:
        """Cut windows, by a protocol or freely.

        With a protocol its length, stride, spacing and policies hold. Without one the other arguments do: any spacing
        over the same stored frames, by the dataset's rule; at the dataset's own spacing the flag `resampled` is read.

        Args:
            protocol: Name, `.toml` file or protocol.
            split: One split of the protocol; None gives all windows.
            role: "database" or "query"; None gives both.
            length: Frames of a window.
            stride: Frames from window to window.
            spacing: Metres between frames.
            panoramas: "drop", "keep", or "centre" to leave out windows whose centre frame is one.
            max_step: Greatest distance in metres of neighbouring frames.
            edges: What happens at a run's ends, "drop" or "shift".

        Returns:
            Contract `sequences`, one row a window.

        Raises:
            ContractError: If a protocol, split or role is unknown, or a split is named without a protocol.
        """
        if protocol is not None:
            return self.sequencer.protocol_windows(self.load_protocol(protocol), split, role)
        if split is not None:
            raise ContractError(f"split '{split}' needs a protocol: splits are defined by protocols")
        policy = TrackPolicy(panoramas, spacing=spacing, max_step=max_step)
        table = self.sequencer.windows(policy, length, stride, edges)
        return table if role is None else table.filter(pl.col("role") == role)

    def load_protocol(self, protocol: str | Path | Protocol) -> Protocol:
        """Load a protocol: the dataset's own (or a variant of it) by its name, else a shipped one, or a file's.

        `NAME@HASH`, as it stands beside numbers, names one version.

        Raises:
            InputError: If the file is missing.
            ContractError: If a field is wrong or the name is unknown.
        """
        if isinstance(protocol, (str, Path)) and Path(protocol).suffix != ".toml":
            # The manifest's copy comes first: a user's .toml may be gone or changed since the build.
            name, _, digest = str(protocol).partition("@")
            own_protocol = self._own_protocol(name) or protocols.variant_of(name, self._own_protocol)
            if own_protocol is not None and digest in ("", own_protocol.hash):
                return own_protocol
        return protocols.load(protocol)

    def _own_protocol(self, name: str) -> Protocol | None:
        """The protocol it was built under, when it has this name."""
        own = self.manifest.protocol
        return own if own is not None and own.name == name else None

    def frame_rows(self, table: pl.DataFrame) -> IntArray:
        """Look up the frame row of every frame of every window: int64 (n, L). Raises: ContractError."""
        return self.sequencer.frame_rows(table)

    def places(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add key, position, coordinates and heading of the centre frames to windows (contract `places`)."""
        names = ("key", "position", "latitude", "longitude", "zone", "easting", "northing", "heading")
        centres = self.frame_columns(*names)[table["centre"].to_numpy()]
        return table_contract("places").conform(pl.concat([table, centres], how="horizontal"))

    def positives(
        self,
        query: pl.DataFrame,
        database: pl.DataFrame,
        radius: float = 25.0,
        rule: Rule = "any",
        unit: Unit = "metres",
        heading_max: float | None = None,
    ) -> pl.DataFrame:
        """Find the pairs of a query and a database window that a rule accepts, with all their distances.

        Args:
            query: Window table of the queries.
            database: Window table of the database.
            radius: Radius in `unit`.
            rule: "any", "centre", "last" or "all".
            unit: "metres" (within one zone, strictly less than the radius) or "frames" (ranks that differ by at most
                the radius).
            heading_max: Greatest difference of headings in degrees; None sets no limit.

        Returns:
            Contract `positives`; query and database are rows of the two tables.

        Raises:
            ContractError: If the rule or the unit is unknown.
        """
        return self.pair_finder(database, radius, rule, unit, heading_max)(query)

    def pair_finder(
        self,
        database: pl.DataFrame,
        radius: float = 25.0,
        rule: Rule = "any",
        unit: Unit = "metres",
        heading_max: float | None = None,
    ) -> Callable[[pl.DataFrame], pl.DataFrame]:
        """Make a function that finds the pairs of query windows with one database; arguments as for `positives`.

        What finds them is made once: 0.9 s at 1.5 M database windows, for the first of many small sets of queries.
        """
        condition = accepts(rule, radius, unit, heading_max)
        finder = PairFinder(self.sequencer.window_set(database, unit), radius=radius, unit=unit)
        return lambda query: finder.pairs(self.sequencer.window_set(query, unit)).filter(condition)

    def protocol_positives(
        self, protocol: str | Path | Protocol, split: str, radius: float | None = None, rule: Rule | None = None
    ) -> pl.DataFrame:
        """Find the positives of a protocol's split.

        They are read from the dataset where stored pairs reach far enough, computed otherwise: both give the same rows.

        Args:
            protocol: Name, `.toml` file or protocol.
            split: Name of the split.
            radius: Another radius than the protocol's, in its unit.
            rule: Another rule than the protocol's.

        Returns:
            Contract `positives`; query and database are rows of the split's window tables.
        """
        loaded = self.load_protocol(protocol)
        reach = loaded.radius if radius is None else radius
        condition = accepts(rule or loaded.rule, reach, loaded.unit, loaded.heading_max)
        return self._select_pairs(loaded, split, reach, condition)

    def answerable(self, protocol: Protocol, split: str, any_heading: bool = False) -> int:
        """Count the queries of a split that have a positive; stored pairs are scanned, never loaded whole.

        Args:
            protocol: The protocol.
            split: Name of the split.
            any_heading: Whether a positive may face any way.
        """
        limit = None if any_heading else protocol.heading_max
        condition = accepts(protocol.rule, protocol.radius, protocol.unit, limit)
        stored_pairs = self._tables.pairs(protocol, split, protocol.radius)
        if stored_pairs is None:
            return self._select_pairs(protocol, split, protocol.radius, condition)["query"].n_unique()
        return stored_pairs.count_queries(condition)

    def protocol_pairs(self, protocol: Protocol, split: str, radius: float | None = None) -> pl.DataFrame:
        """Find all pairs of a split that are nearer than a radius by least distance, whatever the protocol's rule.

        Args:
            protocol: The protocol.
            split: Name of the split.
            radius: Radius in the protocol's unit; None is the greatest that the protocol names for the split.

        Returns:
            Contract `positives`; query and database are rows of the split's window tables.
        """
        reach = stored_radius(protocol, split) if radius is None else radius
        return self._select_pairs(protocol, split, reach, accepts("any", reach, protocol.unit))

    def nearest(self, protocol: str | Path | Protocol, split: str) -> pl.DataFrame:
        """Measure how far each query of a split is from the nearest database window.

        Convention: metres within one zone, or ranks; null where the query's zone has no database window.

        Args:
            protocol: Name, `.toml` file or protocol.
            split: Name of the split.

        Returns:
            Contract `nearest`, one row a query window.
        """
        loaded = self.load_protocol(protocol)
        table = self._tables.nearest(loaded, split)
        if table is not None:
            return table
        sides = (self.sequences(loaded, split, role) for role in ("query", "database"))
        return nearest(*(self.sequencer.window_set(side, loaded.unit) for side in sides))

    def _select_pairs(self, protocol: Protocol, split: str, radius: float, condition: pl.Expr) -> pl.DataFrame:
        """Select the pairs of a split, out to `radius` by least distance, that fulfil a condition."""
        stored_pairs = self._tables.pairs(protocol, split, radius)
        if stored_pairs is None:
            query, database = (self.sequences(protocol, split, role) for role in ("query", "database"))
            return self.positives(query, database, radius, "any", protocol.unit).filter(condition)
        pairs, counts = (
            stored_pairs.select(condition),
            {role: self._window_count(protocol, split, role) for role in ROLES},
        )
        for role, windows in counts.items():
            if pairs.height and int(pairs[role].max()) >= windows:  # type: ignore[arg-type]
                raise ContractError(
                    f"{stored_pairs.paths[0]}: column '{role}' names windows beyond the {windows} of split {split}"
                )
            listed = len(stored_pairs.numbers[role].numbers) if role in stored_pairs.numbers else windows
            if listed != windows:
                raise ContractError(
                    f"{self.location}: numbering lists {listed} {role} windows of split {split}, the frames make "
                    f"{windows}; run seqdata verify"
                )
        return pairs

    def _window_count(self, protocol: Protocol, split: str, role: str) -> int:
        """Count the windows of a role in a split, once."""
        key = protocol.hash, split, role
        if key not in self._window_counts:
            self._window_counts[key] = self.sequences(protocol, split, role).height
        return self._window_counts[key]

    @cached_property
    def _window_counts(self) -> dict[tuple[str, str, str], int]:
        return {}

    def add_tables(self, protocol: Protocol, max_radius: float | None = None) -> AddedTables:
        """Add the tables of another protocol to this dataset; see `seqdata.dataset.extra_tables.add_tables`.

        Args:
            protocol: The protocol.
            max_radius: How far pairs reach where that is farther than the protocol's radii, in its unit; default 25.
        """
        return add_tables(self.store, self.manifest, self.sequencer, protocol, max_radius)

    def frame_columns(self, *names: str) -> pl.DataFrame:
        """Load columns of the frames table; they stay in memory from the first use on."""
        missing = [name for name in names if name not in self._columns]
        if missing:
            path = self._tables.frames.paths[0]
            with translated(path):
                loaded = self._tables.frames.scan().select(missing).collect()
            table_contract("frames").validate(loaded, path, missing)
            self._columns.update({name: loaded[name] for name in missing})
        return pl.DataFrame([self._columns[name] for name in names])

    @cached_property
    def _columns(self) -> dict[str, pl.Series]:
        return {}

    @cached_property
    def sequencer(self) -> Sequencer:
        """Windows and ground truth over this dataset's frames."""
        settings = self.manifest.settings
        frames = shared_table(
            f"geometry {self.id} {VERSION}",
            self.frame_count if self.is_shared else 0,
            lambda: self.frame_columns(*GEOMETRY_COLUMNS),
        )
        return Sequencer(frames, settings.resample_rule, settings.resample_metres, self._tables.track)
