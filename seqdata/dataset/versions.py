"""Versions of a sealed dataset: new trajectories appended, frames withdrawn. Shards are shared, never written again.

Every version has its own manifest and id, and segments beside the tables of the versions before (see
`seqdata.contracts.dataset_tables`); `seqdata.open(path, version=n)` opens an older one.

Convention: appended frames come after all old ones in the frames table, so that old frame rows stay what they are.
Withdrawing takes rows away: later rows move up, and the gap in the positions breaks windows. The withdrawn bytes (and
halo copies of them) stay in their shard: a plain tar reader needs the list of `withdrawn`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from seqdata.build.builder import BuildRequest, write_and_seal
from seqdata.build.finish import seal_manifest
from seqdata.build.plan import (
    Work,
    along_track,
    begin,
    describe_source,
    end,
    make_work,
    read_listing,
    read_plan,
    refuse_empty,
)
from seqdata.build.request import follow_protocol
from seqdata.build.segments import Ground, GroundChange, write_pairs
from seqdata.build.tables import Draft, Tables, by_trajectory, summarise
from seqdata.contracts.dataset_tables import (
    CHANGES_NAME,
    STORED_FIRST,
    frame_blocks,
    frames_table,
    sort_quarantine,
    stored_table,
    stored_trajectories,
)
from seqdata.contracts.manifest import SHARDS, BuildSettings, Counts, DatasetManifest, read_manifest
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.parallel import Progress
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS
from seqdata.sources.base import Listing, quarantine_rows
from seqdata.storage.lock import claimed
from seqdata.storage.parquet import translated
from seqdata.storage.segments import SegmentedTable
from seqdata.storage.store import Store

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Appended:
    """What an append did.

    Attributes:
        manifest: Manifest of the latest version.
        listed: Frames that were listed for it.
        skipped: Frames of the dump that the dataset had already.
    """

    manifest: DatasetManifest
    listed: int
    skipped: int


def append(request: BuildRequest, progress: Progress | None = None) -> Appended:
    """Add the new trajectories of a dump of the same kind to the sealed dataset at `request.out`, as a new version.

    Frames whose keys are there already (also in quarantine) are skipped; where nothing is new, no version is made.
    Killed and started again, it goes on.

    Args:
        request: The dump and the dataset; the dataset's own settings and protocol hold, not the request's.
        progress: Called with (frames finished, frames in all) after each shard.

    Raises:
        InputError: If there is no dataset, or the dump is wrong.
        ContractError: If the kind differs, a key names another frame, a trajectory would grow, or a city would lie in
            two zones.
        OutputError: If another build is under way there.
    """
    store = Store(request.out, is_output=True)
    latest = read_manifest(store)
    kind = latest.source.kind
    if request.kind != kind:
        raise ContractError(f"{store}: was built from a dump of kind {kind}; a {request.kind} dump cannot be appended")
    request, _ = follow_protocol(replace(request, settings=latest.settings, protocol=latest.protocol))
    source, listing = read_listing(request.kind, request.raw, request.options)
    refuse_empty(listing, request.raw)
    # Listing a dump takes long and needs no lock. What the dataset holds is read again under the lock, because another
    # append may have ended meanwhile.
    with claimed(store, f"append {request.title}"):
        before = read_manifest(store)
        fresh = fresh_listing(store, before, listing, request.raw)
        skipped = listing.records.height - fresh.records.height
        if not fresh.records.height:
            # With nothing left to append, what a killed append wrote will be part of no version.
            _discard_unfinished(store, before, None)
            return Appended(before, 0, skipped)
        if before.protocol is not None:
            source.check_protocol(before.protocol)
        work = make_work(
            source,
            fresh,
            describe_source(request.kind, dict(request.options), source, listing),
            before.settings,
            before.protocol,
            version=before.version + 1,
            parent=before.id,
            first_shard=len(before.shards),
        )
        _discard_unfinished(store, before, work)
        begin(store, work)
        return Appended(write_and_seal(request, store, work, progress), fresh.records.height, skipped)


def withdraw(out: str | Path, keys: Iterable[str], reason: str) -> DatasetManifest:
    """Take frames out of a dataset, as a new version: no window or stream of it yields them.

    Args:
        out: Folder or URL of the dataset.
        keys: Keys of the frames; those that were withdrawn before are passed over.
        reason: Message that stands beside them in quarantine.

    Raises:
        InputError: If there is no dataset, or no frame would be left.
        ContractError: If the dataset has no frame of a key.
    """
    store = Store(out, is_output=True)
    read_manifest(store)  # before a lock is made where no dataset is
    with claimed(store, "seqdata withdraw"):
        before = read_manifest(store)
        quarantine = stored_table(store, before, "quarantine")
        gone = quarantine.filter(pl.col("reason") == WITHDRAWN)["key"]
        requested = pl.Series("key", list(keys), dtype=pl.String).unique().sort()
        requested = requested.filter(~requested.is_in(gone.implode()))
        if not len(requested):
            return before
        frames = frames_table(store, before)
        with translated(f"{store}/frames.parquet"):
            withdrawal = _withdrawal(store, before, frames, requested)
            if len(requested) == before.counts.frames:
                raise InputError(f"{store}: all frames would be withdrawn; delete the dataset instead")
            tables = Tables(store, before.version + 1)
            # A withdrawal has no shards to continue from: what a killed one left is made anew.
            tables.clear()
            draft = Draft(before.version + 1, before.id, before.sources, before.settings, before.protocol)
            _write_changes(tables, before, withdrawal)
            if before.protocol is not None:
                _write_windows(tables, before, draft, frames, withdrawal)
        rows = sort_quarantine(quarantine_rows(withdrawal.removed, WITHDRAWN, reason))
        tables.write("quarantine.parquet", rows, {"seqdata.table": "quarantine"})
        return seal_manifest(tables, draft, before.shards, _counts_without(before, withdrawal), before)


@dataclass(frozen=True)
class _Withdrawal:
    """Frames that go, and those of the same trajectories that stay; both with their stored row, `stored`.

    Attributes:
        removed: The frames that go.
        remaining: Those that stay, with the resampling flags that follow.
        reflagged: Stored rows and flags of those whose flag changes.
        before: All of them as they were.
        gone: Trajectories of which no frame stays.
    """

    removed: pl.DataFrame
    remaining: pl.DataFrame
    reflagged: pl.DataFrame
    before: pl.DataFrame
    gone: int


def _withdrawal(store: Store, before: DatasetManifest, frames: SegmentedTable, keys: pl.Series) -> _Withdrawal:
    """Read the trajectories that lose frames.

    Raises:
        ContractError: For a key that the dataset has not.
    """
    located = frames.scan().select("key", "trajectory").filter(pl.col("key").is_in(keys.implode())).collect()
    missing = keys.filter(~keys.is_in(located["key"].implode()))
    if len(missing):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ContractError(f"{store}: no frame has the key '{missing[0]}'{more}; seqdata withdraw takes frame keys")
    names = located["trajectory"].unique()
    indexed = frames.scan().with_row_index("row").filter(pl.col("trajectory").is_in(names.implode())).collect()
    stored_rows = pl.Series("stored", frames.stored_rows(indexed["row"].to_numpy()))
    whole = indexed.drop("row").with_columns(stored_rows)
    is_removed = whole["key"].is_in(keys.implode())
    remaining = whole.filter(~is_removed)
    flagged = _flagged(remaining, before.settings) if remaining.height else remaining
    differs = flagged["resampled"] != remaining["resampled"]
    gone = len(names) - remaining["trajectory"].n_unique()
    return _Withdrawal(
        whole.filter(is_removed), flagged, flagged.filter(differs).select("stored", "resampled"), whole, gone
    )


def _write_changes(tables: Tables, before: DatasetManifest, withdrawal: _Withdrawal) -> None:
    """Write which frames are gone or flagged anew, and the trajectories that follow."""
    removed = withdrawal.removed.select("stored", pl.lit(value=True).alias("withdrawn"), "resampled")
    reflagged = withdrawal.reflagged.select("stored", pl.lit(value=False).alias("withdrawn"), "resampled")
    changes = pl.concat([removed, reflagged]).rename({"stored": "frame"}).sort("frame")
    tables.write(CHANGES_NAME, table_contract("changes").conform(changes), {"seqdata.table": "changes"})
    if withdrawal.remaining.height:
        # A row of a trajectory is found by the stored row of the first frame that it was added with.
        firsts = stored_trajectories(tables.store, before).select("trajectory", pl.col(STORED_FIRST).alias("first"))
        rows = summarise(withdrawal.remaining).drop("first").join(firsts, on="trajectory", maintain_order="left")
        trajectories = table_contract("trajectories").conform(rows)
        tables.write("trajectories.parquet", trajectories, {"seqdata.table": "trajectories"})


def _write_windows(
    tables: Tables, before: DatasetManifest, draft: Draft, frames: SegmentedTable, withdrawal: _Withdrawal
) -> None:
    """Write the numbering of the windows that are left, and the pairs of those that are new."""
    geometry = frames.scan().select(GEOMETRY_COLUMNS).collect()
    rows = pl.Series(frames.stored_rows(np.arange(frames.height)))
    is_before, is_gone = (rows.is_in(part["stored"].implode()) for part in (withdrawal.before, withdrawal.removed))
    reflagged = np.searchsorted(rows.to_numpy(), withdrawal.reflagged["stored"].to_numpy())
    flags = geometry["resampled"].scatter(reflagged, withdrawal.reflagged["resampled"])
    current = geometry.with_columns(flags)

    def ground(table: pl.DataFrame, mask: pl.Series) -> Ground:
        return Ground.of_frames(table.filter(mask), rows.filter(mask).to_numpy(), draft)

    is_altered = is_before & ~is_gone
    change = GroundChange(
        names=tuple(withdrawal.before["trajectory"].unique()),
        before=ground(geometry, is_before),
        altered=ground(current, is_altered) if is_altered.any() else None,
        after=ground(current, ~is_gone),
    )
    write_pairs(tables, before, draft, change)


def _counts_without(before: DatasetManifest, withdrawal: _Withdrawal) -> Counts:
    """Count what is left."""
    old, removed = before.counts, withdrawal.removed
    reasons = {**old.quarantined, WITHDRAWN: old.quarantined.get(WITHDRAWN, 0) + removed.height}
    return Counts(
        frames=old.frames - removed.height,
        trajectories=old.trajectories - withdrawal.gone,
        image_bytes=old.image_bytes - int(removed["length"].cast(pl.Int64).sum()),
        quarantined=dict(sorted(reasons.items())),
    )


def withdrawn(dataset: "Dataset") -> list[str]:
    """List the keys of withdrawn frames, sorted: a plain reader of the shards has to leave them out."""
    return dataset.quarantine.filter(pl.col("reason") == WITHDRAWN)["key"].drop_nulls().sort().to_list()


def without_frames(store: Store, before: DatasetManifest, keys: pl.Series) -> Iterator[pl.DataFrame]:
    """Yield the frames of a version but for some, as the first two schemas wrote them after a withdrawal.

    Args:
        store: The dataset's store.
        before: Manifest of the version.
        keys: Keys of the frames to leave out.
    """
    for part in by_trajectory(frame_blocks(store, before)):
        remaining = part.filter(~pl.col("key").is_in(keys.implode()))
        if remaining.height:
            # The resampling flags follow from the frames that stay.
            yield _flagged(remaining, before.settings) if remaining.height < part.height else remaining


def _flagged(frames: pl.DataFrame, settings: BuildSettings) -> pl.DataFrame:
    # With --drop only frames that the rule keeps are stored, all flagged; the rule over what is left would thin them
    # again.
    return frames if settings.drop else frames.with_columns(along_track(frames, settings)["resampled"])


def _discard_unfinished(store: Store, before: DatasetManifest, work: Work | None) -> None:
    """Remove what a killed append of other frames left; its shards stand in no version."""
    plan = read_plan(store)
    if plan is None or (work is not None and plan.hash == work.plan.hash):
        return
    # Shards of any version stay; others came from the append that was killed.
    ours = {name for shard in before.shards for name in (shard.name, shard.seal_name)}
    for name in store.names(SHARDS):
        if name.rsplit("/", 1)[-1] not in ours:
            store.remove(name)
    end(store)


def fresh_listing(store: Store, before: DatasetManifest, listing: Listing, raw: Path) -> Listing:
    """Select the part of a listing that the dataset does not hold yet.

    Args:
        store: The dataset's store.
        before: Manifest of its latest version.
        listing: All that the dump holds.
        raw: The dump, for errors.

    Raises:
        ContractError: As `append`.
    """
    records = listing.records
    old_quarantine = stored_table(store, before, "quarantine")
    old_frames, zones = _old_frames(store, before, records["key"])
    left_out = old_quarantine.drop_nulls("key").select("key", "trajectory", "position").unique("key")
    _refuse_other_frames(records, old_frames, raw)
    # Quarantine holds no positions, so inputs that were left out are compared by trajectory and position alone.
    _refuse_other_frames(records, left_out.with_columns(pl.lit(None, pl.Float64).alias("easting")), raw)
    new = records.join(old_frames, on="key", how="anti", maintain_order="left")
    new = new.join(left_out, on="key", how="anti", maintain_order="left")
    growing = new.join(stored_table(store, before, "trajectories"), on="trajectory", how="semi")
    if growing.height:
        raise ContractError(
            f"{raw}: {growing.height} new frames of trajectory '{growing['trajectory'][0]}', which the dataset has "
            "already; a trajectory cannot grow: build the dataset again"
        )
    _refuse_other_zones(new, zones, raw)
    quarantine = table_contract("quarantine").conform(listing.quarantine)
    if new.height < records.height:  # the same dump again: what it left out stands there already
        same = ["source", "key", "reason"]
        quarantine = quarantine.join(old_quarantine, on=same, how="anti", nulls_equal=True, maintain_order="left")
    return Listing(new, quarantine)


def _old_frames(store: Store, before: DatasetManifest, keys: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stored frames that have one of `keys`, and the zone of every stored city."""
    columns = ("key", "trajectory", "position", "easting", "city", "zone")
    key_table = pl.DataFrame({"key": keys})
    old_frames, zones = [], []
    for part in frame_blocks(store, before, columns):
        old_frames.append(part.select(columns[:4]).join(key_table, on="key", how="semi"))
        zones.append(part.select("city", "zone").unique())
    return pl.concat(old_frames), pl.concat(zones).unique()


def _refuse_other_frames(records: pl.DataFrame, old_frames: pl.DataFrame, raw: Path) -> None:
    """Raise ContractError when a key of the listing names another frame in the dataset."""
    joined = records.join(old_frames, on="key", suffix="_old")
    differs = [(pl.col(name) != pl.col(f"{name}_old")).fill_null(value=False) for name in ("trajectory", "position")]
    # Float text in dumps is read back to the last digit or two: a millimetre is no other place.
    differs.append(((pl.col("easting") - pl.col("easting_old")).abs() > 1e-3).fill_null(value=False))
    other = joined.filter(pl.any_horizontal(differs))
    if other.height:
        row = other.row(0, named=True)
        raise ContractError(
            f"{raw}: '{row['source']}' has the key '{row['key']}', which names another frame of the dataset (of "
            f"trajectory '{row['trajectory_old']}'); rename the files or drives"
        )


def _refuse_other_zones(new: pl.DataFrame, zones: pl.DataFrame, raw: Path) -> None:
    """Raise ContractError when a city would lie in two UTM zones: nothing is compared across zones."""
    other = new.select("city", "zone").unique().join(zones, on="city", suffix="_old")
    other = other.filter(pl.col("zone") != pl.col("zone_old"))
    if other.height:
        row = other.row(0, named=True)
        raise ContractError(
            f"{raw}: city '{row['city']}' comes out in zone {row['zone']}, in the dataset it lies in "
            f"{row['zone_old']}; build both dumps together"
        )
