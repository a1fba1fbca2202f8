"""The tables of a version: where they are written, and the frames table with what follows from it.

Frames pass through by the trajectory, never the whole table at once; only the columns that windows need are held while
a protocol's tables are cut.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from seqdata.build.plan import along_track
from seqdata.contracts.manifest import FRAMES_NAME, VERSIONS, BuildSettings, SourceInfo, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer
from seqdata.sequences.tables import planned_tables
from seqdata.storage.parquet import parquet_writer
from seqdata.storage.store import Store


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
class Summary:
    """Counts over the frames that were written, their trajectories, and what windows need of them.

    Attributes:
        first_row: Stored row of the first frame.
        frames: Number of frames.
        image_bytes: Bytes of their images.
        trajectories: Rows of the trajectories table.
        geometry: Columns `GEOMETRY_COLUMNS` of every frame; None where no windows are to be cut.
    """

    first_row: int = 0
    frames: int = 0
    image_bytes: int = 0
    trajectories: list[pl.DataFrame] = field(default_factory=list)
    geometry: pl.DataFrame | None = None

    def add(self, frames: pl.DataFrame) -> None:
        """Count some more whole trajectories."""
        self.trajectories.append(summarise(frames, self.first_row + self.frames))
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
    summary = write_rows(tables, parts, draft)
    if draft.protocol is not None and summary.geometry is not None:
        for table in planned_tables(sequencer(summary.geometry, draft), draft.protocol, draft.settings.max_radius):
            with tables.writing(table.name) as temporary:
                table.write(temporary)
    return summary


def write_rows(tables: Tables, parts: Iterable[pl.DataFrame], draft: Draft, first_row: int = 0) -> Summary:
    """Write frames and their trajectories.

    Args:
        tables: The tables of the new version.
        parts: Frames in parts of whole trajectories.
        draft: What the version's manifest will say.
        first_row: Stored row of the first of them.
    """
    contract, summary = table_contract("frames"), Summary(first_row)
    with tables.writing(FRAMES_NAME) as temporary:
        with parquet_writer(temporary, contract.polars_schema(), {"seqdata.table": "frames"}) as write:
            for part in parts:
                conformed = contract.conform(part)
                write(conformed)
                summary.add(conformed)
        # Read back from the file just written: of all columns only those that windows need stay in memory.
        if draft.protocol is not None:
            summary.geometry = pl.read_parquet(temporary, columns=list(GEOMETRY_COLUMNS)).select(GEOMETRY_COLUMNS)
    empty = pl.DataFrame(schema=table_contract("trajectories").polars_schema())
    trajectories = pl.concat([empty, *summary.trajectories])
    tables.write("trajectories.parquet", trajectories, {"seqdata.table": "trajectories"})
    return summary


def sequencer(geometry: pl.DataFrame, draft: Draft) -> Sequencer:
    """Make the windows over frames, by the version's spacing rule."""
    return Sequencer(geometry, draft.settings.resample_rule, draft.settings.resample_metres)


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
