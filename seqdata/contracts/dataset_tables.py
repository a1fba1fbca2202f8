"""The tables of a dataset's version as one table each, whether a build wrote them or later versions added segments.

A version that was appended to or withdrawn from lists *segments* beside the tables of the versions before:

- `frames`, `quarantine`: the new rows;
- `changes`: frames that were withdrawn, and resampling flags that follow from it;
- `trajectories`: new trajectories, and those whose frames changed, under the stored row of their first frame;
- `positives-…`: pairs of which one window at least is new, and `numbering`: which windows these are
  (see `seqdata.sequences.window_numbers`).

Tracks, windows and nearest distances follow from the frames; segmented versions store none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from seqdata.contracts.manifest import FRAMES_NAME, DatasetManifest
from seqdata.contracts.table_files import check_footer, read_table
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.storage.segments import SegmentedTable
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table

CHANGES_NAME = "changes.parquet"
NUMBERING_NAME = "numbering.parquet"
STORED_FIRST = "stored_first"


def frames_table(store: Store, manifest: DatasetManifest) -> SegmentedTable:
    """Open the frames table of a version; its footers are checked, its rows are read when they are needed.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.

    Raises:
        InputError: If a file is missing or cannot be fetched.
        ContractError: If its bytes, columns or rows are not those of the manifest.
    """
    paths = _paths(store, manifest, "frames")
    changes = _read_parts(store, manifest, "changes").unique("frame", keep="last").sort("frame")
    withdrawn = changes.filter("withdrawn")["frame"].to_numpy()
    flags = changes.filter(~pl.col("withdrawn"))
    columns = tuple(table_contract("frames").polars_schema())
    table = SegmentedTable(paths, columns, withdrawn, flags["frame"].to_numpy(), flags.select("resampled"))
    height = sum(part.rows for part in manifest.parts(FRAMES_NAME))
    if changes.height and int(changes["frame"][-1]) >= height:
        raise ContractError(f"{store}/{CHANGES_NAME}: names frames beyond the {height} that are stored")
    if height - len(withdrawn) != manifest.counts.frames:
        raise ContractError(
            f"{store}: {height} frames are stored and {len(withdrawn)} withdrawn, the manifest counts "
            f"{manifest.counts.frames}; run seqdata verify"
        )
    return table


def frame_blocks(
    store: Store, manifest: DatasetManifest, columns: Sequence[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the frames table of a version by row groups.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.
        columns: The columns to read; None reads all.

    Raises:
        InputError, ContractError: As `frames_table`.
    """
    for block in frames_table(store, manifest).blocks(columns):
        table_contract("frames").validate(block, f"{store}/{FRAMES_NAME}", columns)
        yield block


def stored_table(store: Store, manifest: DatasetManifest, name: str) -> pl.DataFrame:
    """Read a whole table of a version.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.
        name: Name of the table's contract: "trajectories", "quarantine" or "numbering".

    Raises:
        InputError: If it is not listed, missing, or cannot be fetched.
        ContractError: If it is damaged or breaks its contract.
    """
    if not manifest.parts(f"{name}.parquet"):
        raise _unlisted(store, name)
    if name == "trajectories" and manifest.segments:
        return stored_trajectories(store, manifest).drop(STORED_FIRST)
    table = _read_parts(store, manifest, name)
    return sort_quarantine(table) if name == "quarantine" and manifest.segments else table


def stored_trajectories(store: Store, manifest: DatasetManifest) -> pl.DataFrame:
    """Read the trajectories table of a version, with the stored row of each first frame.

    Returns:
        Contract `trajectories` and the column `stored_first`: the row that the trajectory's first frame had in the
        frames tables of all segments when it was added, withdrawn frames included.

    Raises:
        InputError, ContractError: As `stored_table`.
    """
    parts = _read_parts(store, manifest, "trajectories")
    removed = frames_table(store, manifest).removed
    # Trajectories stand in the order of their first frames and never move; a later row replaces an earlier one.
    rows = parts.group_by(pl.col("first").alias(STORED_FIRST), maintain_order=True).agg(
        pl.all().last(), pl.col("frames").first().alias("added")
    )
    first, added = rows[STORED_FIRST].to_numpy().astype(np.int64), rows["added"].to_numpy().astype(np.int64)
    before, until = np.searchsorted(removed, first), np.searchsorted(removed, first + added)
    frames = added - (until - before)
    current = rows.with_columns(pl.Series("first", first - before), pl.Series("frames", frames)).filter(frames > 0)
    contract = table_contract("trajectories")
    return contract.conform(current).with_columns(current[STORED_FIRST])


def sort_quarantine(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort quarantine rows as they are stored."""
    return rows.sort("source", "reason", "key", nulls_last=True, maintain_order=True)


def _read_parts(store: Store, manifest: DatasetManifest, name: str) -> pl.DataFrame:
    """Read all files of a table, one after another; no rows where there is none."""
    columns = table_contract(name).polars_schema()
    parts = [
        read_table(name, local_table(store, info.path, info), info.rows) for info in manifest.parts(f"{name}.parquet")
    ]
    # Later programs may add columns, and then not to all files.
    return pl.concat([part.select(*columns) for part in parts]) if parts else pl.DataFrame(schema=columns)


def _paths(store: Store, manifest: DatasetManifest, name: str) -> tuple[Path, ...]:
    """Give the local paths of a table's files, their footers checked."""
    infos = manifest.parts(f"{name}.parquet")
    if not infos:
        raise _unlisted(store, name)
    paths = tuple(local_table(store, info.path, info) for info in infos)
    for path, info in zip(paths, infos, strict=True):
        check_footer(name, path, info.rows)
    return paths


def _unlisted(store: Store, name: str) -> InputError:
    return InputError(f"{store}/{name}.parquet: no such table in the manifest; build the dataset again")
