"""The end of a build: sealed shards become one frames table, its trajectories, a protocol's tables, and the manifest.

Everything here follows from the sealed shards and the version before, so it may be interrupted and done again; the
manifest comes last. Frames pass through by the trajectory, never the whole table at once; only the columns that
windows need are held while a protocol's tables are cut.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from seqdata.build.plan import Plan, along_track, describe_reasons
from seqdata.build.shards import read_sealed
from seqdata.contracts.manifest import (
    CHECKSUM_NAME,
    MANIFEST_NAME,
    SHARDS,
    VERSIONS,
    BuildSettings,
    Counts,
    DatasetManifest,
    ShardInfo,
    SourceInfo,
    TableInfo,
    checksums,
    read_manifest,
    tool_versions,
    version_name,
)
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.table_files import check_footer, read_table
from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError, OutputError
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer
from seqdata.sequences.tables import planned_tables
from seqdata.storage.files import json_bytes
from seqdata.storage.parquet import open_parquet, parquet_writer
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table


class Tables:
    """Writer of a version's tables: those of version 1 stand beside the manifest, later ones in `versions/<n>`.

    Attributes:
        store: The dataset's store.
        folder: Folder of the version's tables in it.
        infos: Descriptions of the tables that are written, by name.
    """

    def __init__(self, store: Store, version: int = 1) -> None:
        self.store = store
        self.folder = "" if version == 1 else f"{VERSIONS}/{version:06d}"
        self.infos: dict[str, TableInfo] = {}

    def path(self, name: str) -> str:
        """Return the path of the table `name` of this version in the dataset."""
        return f"{self.folder}/{name}" if self.folder else name

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write the Parquet table `name` to.

        Raises:
            OutputError: When it cannot be written.
        """
        with self.store.writing(self.path(name)) as temporary:
            yield temporary
            info = TableInfo.measure(self.path(name), temporary)
        self.infos[name] = info  # only when the file is in place

    def write(self, name: str, table: pl.DataFrame, metadata: Mapping[str, str]) -> None:
        """Write a whole table.

        Args:
            name: File name in the version's folder.
            table: The table.
            metadata: Key-value metadata of the file.

        Raises:
            OutputError: If the store refuses.
        """
        with self.writing(name) as temporary, parquet_writer(temporary, table.schema, metadata) as put:
            put(table)

    def clear(self) -> None:
        """Remove what an unfinished run left of this version: its tables, and half-written files beside them.

        Only for the process that has claimed the store, because half-written files may be another writer's.
        """
        for folder in {"", VERSIONS, self.folder}:
            for name in self.store.names(folder):
                base = name.rsplit("/", 1)[-1]
                table = folder == self.folder and base.endswith(".parquet") and not base.startswith(".")
                if table or base.endswith(".tmp"):
                    self.store.remove(name)


# Metres between neighbouring frames above which a drive is said to jump: 360 km/h at one frame a second. A guess.
JUMP_METRES = 100.0
GROUP_ROWS = 1 << 16
"""Rows of a row group of the frames table, rounded up to whole trajectories; also how many are in memory at once."""


@dataclass(frozen=True)
class Draft:
    """What a version's manifest takes from the version before and from the plan.

    Attributes:
        version: Number of the version.
        parent: Id of the version before, if any.
        sources: Identities of all dumps, in order.
        settings: What decides the bytes.
        protocol: Protocol whose tables are stored, if any.
    """

    version: int
    parent: str | None
    sources: tuple[SourceInfo, ...]
    settings: BuildSettings
    protocol: Protocol | None


@dataclass
class SealedFrames:
    """The sealed shards of one plan; shard and quarantine lists are complete once `frames` is exhausted.

    Attributes:
        source: Which of the manifest's sources they came from.
        shards: Their entries in the manifest.
        bad: Quarantine rows of frames that could not be stored.
    """

    source: int
    shards: list[ShardInfo] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def frames(self, store: Store, plan: Plan) -> Iterator[pl.DataFrame]:
        """Yield the frames of every shard of the plan, in order.

        Raises:
            OutputError: When one is not sealed.
        """
        for planned in plan.shards:
            shard = read_sealed(store, planned, plan.hash)
            if shard is None:
                raise OutputError(f"{store}/{SHARDS}/{planned.name}: not sealed; run the same build again")
            seal = shard.seal
            self.bad += seal.quarantined
            self.shards.append(
                ShardInfo(
                    name=planned.name,
                    bytes=seal.bytes,
                    hash=seal.hash,
                    seal=shard.table_hash,
                    frames=shard.frames.height,
                    halo=planned.halo,
                    source=self.source,
                )
            )
            yield shard.frames


def finish(store: Store, plan: Plan, left_out: pl.DataFrame, into: Store | None = None) -> DatasetManifest:
    """Seal the version that `plan` describes: write its tables and, last, its manifest.

    Args:
        store: The dataset's store, with all shards sealed.
        plan: The version.
        left_out: Inputs that the plan leaves out (contract `quarantine`).
        into: Another store to write tables and manifest to.

    Raises:
        InputError: If no frame at all could be stored.
        OutputError: If a shard is not sealed, or the disk refuses.
    """
    before = read_manifest(store) if plan.version > 1 else None
    draft = Draft(plan.version, plan.parent, (plan.source,), plan.settings, plan.protocol)
    old_frames: Iterator[pl.DataFrame] = iter(())
    quarantine = table_contract("quarantine").conform(left_out)
    if before is not None:
        draft = Draft(plan.version, plan.parent, (*before.sources, plan.source), plan.settings, plan.protocol)
        old_frames = stored_frames(store, before)
        quarantine = pl.concat([stored_table(store, before, "quarantine"), quarantine])
    sealed = SealedFrames(source=len(draft.sources) - 1)
    new_frames = (complete(part, plan.settings) for part in by_trajectory(sealed.frames(store, plan)))
    # Taken before anything is written, so that a dump without one usable frame leaves the store as it was.
    first = next(new_frames, None)
    if first is None:
        reasons = describe_reasons(_join_quarantine(quarantine, sealed.bad))
        raise InputError(f"{store}: no frame of the dump could be stored: {reasons}")
    tables = Tables(into or store, plan.version)
    tables.clear()
    # Old frames come first: frame rows of the version before stay what they are.
    summary = write_frames(tables, chain(by_trajectory(old_frames), [first], new_frames), draft)
    shards = (*(before.shards if before is not None else ()), *sealed.shards)
    return seal_version(tables, draft, shards, summary, _join_quarantine(quarantine, sealed.bad))


def seal_version(
    tables: Tables,
    draft: Draft,
    shards: Iterable[ShardInfo],
    summary: "Summary",
    quarantine: pl.DataFrame,
) -> DatasetManifest:
    """Write the last table and the manifest of a version whose frames are written; the version before stays.

    Args:
        tables: Writer of the version's tables.
        draft: What the manifest takes from before.
        shards: Entries of all shards.
        summary: Counts over the frames.
        quarantine: Every input left out (contract `quarantine`).
    """
    store = tables.store
    tables.write("quarantine.parquet", quarantine, {"seqdata.table": "quarantine"})
    reasons = quarantine["reason"].value_counts().sort("reason")
    manifest = DatasetManifest(
        version=draft.version,
        parent=draft.parent,
        sources=draft.sources,
        settings=draft.settings,
        protocol=draft.protocol,
        tools=tool_versions(),
        shards=tuple(shards),
        tables=dict(sorted(tables.infos.items())),
        counts=Counts(
            frames=summary.frames,
            trajectories=tables.infos["trajectories.parquet"].rows,
            image_bytes=summary.image_bytes,
            quarantined=dict(zip(reasons["reason"], reasons["count"], strict=True)),
        ),
    )
    if draft.version > 1:
        # The old manifest is copied before the new one takes its name; a kill in between leaves both readable.
        with store.writing(version_name(draft.version - 1)) as temporary:
            temporary.write_bytes(store.read_bytes(MANIFEST_NAME))
    data = json_bytes(manifest.model_dump(mode="json"))
    with store.writing(CHECKSUM_NAME) as temporary:
        temporary.write_bytes(checksums(store, draft.version, data))
    with store.writing(MANIFEST_NAME) as temporary:
        temporary.write_bytes(data)
    return manifest


@dataclass
class Summary:
    """Counts over the frames that were written, and their trajectories."""

    frames: int = 0
    image_bytes: int = 0
    trajectories: list[pl.DataFrame] = field(default_factory=list)

    def add(self, frames: pl.DataFrame) -> None:
        """Count some more whole trajectories."""
        self.trajectories.append(summarise(frames, self.frames))
        self.frames += frames.height
        self.image_bytes += int(frames["length"].cast(pl.Int64).sum())


def write_frames(tables: Tables, parts: Iterable[pl.DataFrame], draft: Draft) -> Summary:
    """Write the frames table, then what follows from it: trajectories and the protocol's tables.

    Args:
        tables: The tables of the new version.
        parts: Frames in parts of whole trajectories.
        draft: What the version's manifest will say.

    Returns:
        Counts for the manifest.
    """
    contract, summary = table_contract("frames"), Summary()
    with tables.writing("frames.parquet") as temporary:
        with parquet_writer(temporary, contract.polars_schema(), {"seqdata.table": "frames"}) as write:
            for part in parts:
                conformed = contract.conform(part)
                write(conformed)
                summary.add(conformed)
        # Read back from the file just written: of all columns only those that windows need stay in memory.
        geometry = None if draft.protocol is None else pl.read_parquet(temporary, columns=list(GEOMETRY_COLUMNS))
    empty = pl.DataFrame(schema=table_contract("trajectories").polars_schema())
    trajectories = pl.concat([empty, *summary.trajectories])
    tables.write("trajectories.parquet", trajectories, {"seqdata.table": "trajectories"})
    if draft.protocol is not None and geometry is not None:
        settings = draft.settings
        sequencer = Sequencer(geometry.select(GEOMETRY_COLUMNS), settings.resample_rule, settings.resample_metres)
        for table in planned_tables(sequencer, draft.protocol, settings.max_radius):
            with tables.writing(table.name) as temporary:
                table.write(temporary)
    return summary


def by_trajectory(parts: Iterable[pl.DataFrame], rows: int = GROUP_ROWS) -> Iterator[pl.DataFrame]:
    """Regroup rows into parts of whole trajectories; none is empty.

    Args:
        parts: Tables with a column trajectory, rows of one trajectory side by side.
        rows: About how many rows a part has; one trajectory may have more.
    """
    waiting = pl.DataFrame()
    for part in parts:
        waiting = pl.concat([waiting, part]) if waiting.height else part
        if waiting.height < rows:
            continue
        # The last trajectory may go on in the next part, so it waits.
        last = waiting.height - int(waiting["trajectory"].rle().struct.field("len")[-1])
        if last:
            yield waiting[:last]
            waiting = waiting[last:]
    if waiting.height:
        yield waiting


def complete(frames: pl.DataFrame, settings: BuildSettings) -> pl.DataFrame:
    """Add heading, track_m and resampled to whole trajectories; where frames were dropped, the plan did it.

    Args:
        frames: Frames, rows of one trajectory side by side and in driving order.
        settings: Spacing and rule of the resampling flag.
    """
    if settings.drop:
        return frames.with_columns(pl.lit(value=True).alias("resampled"))
    return along_track(frames, settings)


def summarise(frames: pl.DataFrame, first_row: int = 0) -> pl.DataFrame:
    """Summarise whole trajectories.

    Args:
        frames: Their frames (contract `frames`).
        first_row: Row of the first one in the frames table.

    Returns:
        Contract `trajectories`, in metres; a jump is more than 100 m between neighbours.
    """
    step = pl.col("track_m").diff()
    grouped = frames.with_row_index("row", offset=first_row).group_by("trajectory", maintain_order=True)
    summary = grouped.agg(
        pl.col("city").first(),
        pl.col("role").first(),
        pl.col("row").first().alias("first"),
        pl.len().alias("frames"),
        (pl.col("position").diff() != 1).sum().alias("gaps"),
        (step > JUMP_METRES).sum().alias("jumps"),
        (pl.col("track_m").last() - pl.col("track_m").first()).alias("length_m"),
        step.median().alias("median_step_m"),
    )
    return table_contract("trajectories").conform(summary)


def stored_frames(
    store: Store, manifest: DatasetManifest, columns: Iterable[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the frames table of a version by row groups.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.
        columns: The columns to read; None reads all.

    Raises:
        ContractError: If the table is damaged.
    """
    info = manifest.tables["frames.parquet"]
    path = local_table(store, info.path, info)
    names = None if columns is None else list(columns)
    check_footer("frames", path, info.rows)
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            frames = pl.DataFrame(pl.from_arrow(file.read_row_group(group, columns=names)))
            table_contract("frames").validate(frames, path, names)
            yield frames


def stored_table(store: Store, manifest: DatasetManifest, name: str) -> pl.DataFrame:
    """Read a whole table of a version.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.
        name: Name of the table's contract, such as "trajectories".

    Raises:
        ContractError: If the table is damaged or breaks its contract.
    """
    info = manifest.tables[f"{name}.parquet"]
    return read_table(name, local_table(store, info.path, info), info.rows)


def _join_quarantine(left_out: pl.DataFrame, bad: list[dict[str, Any]]) -> pl.DataFrame:
    """Join what the listing and the shards left out, sorted by source."""
    contract = table_contract("quarantine")
    bad_rows = pl.DataFrame(bad, schema=contract.polars_schema(), orient="row")
    return sort_quarantine(pl.concat([contract.conform(left_out), bad_rows]))


def sort_quarantine(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort quarantine rows as they are stored."""
    return rows.sort("source", "reason", "key", nulls_last=True, maintain_order=True)
