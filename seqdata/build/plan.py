"""What a build will do, settled before the first byte: the listing's records and the shards they are cut into.

The plan stands in the output place until the dataset is sealed, so that a killed build, an array job or `merge` knows
what belongs there. It follows from the dump and the settings alone: array jobs may all write it. The first of them, or
`seqdata build --plan`, also writes the records, a row group a shard, so that the dump is listed once and a job reads
the records of its own shards alone.
"""

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from seqdata import geometry
from seqdata.build.request import BuildRequest
from seqdata.build.shards import ShardPlan, plan_shards
from seqdata.contracts.manifest import PLAN_NAME, SHARDS, BuildSettings, SourceInfo, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.parallel.steps import step
from seqdata.sequences.resampling import keep_mask
from seqdata.sequences.windows import trajectory_starts
from seqdata.sources.base import Listing, Source, quarantine_rows
from seqdata.sources.csv_tables import shorten
from seqdata.sources.registry import open_source, path_options
from seqdata.storage.faults import AGAIN
from seqdata.storage.files import json_bytes
from seqdata.storage.hashing import sha256_json, xxh3_hex
from seqdata.storage.parquet import open_parquet, parquet_writer
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table

log = logging.getLogger(__name__)

LEFT_OUT_NAME = ".plan-quarantine.parquet"
RECORDS_NAME = ".plan-records.parquet"
# Rows of a listing that are hashed as one text, so that a listing of millions never stands in memory twice. The number
# is part of a dataset's fingerprint: another one gives every dataset another id.
ROWS_A_HASH = 100_000


class Plan(Frozen):
    """A version of a dataset that is to be built.

    Attributes:
        hash: What its shards are sealed under: SHA-256 of the dump's identity and the settings.
        version: Number of the version, from 1.
        parent: Id of the version that is appended to, None for a build.
        source: Identity of the dump.
        settings: What decides the bytes.
        protocol: Protocol whose tables are stored, if any.
        shards: The shards in order.
        raw: Absolute path of the dump where the records were listed; empty where none are stored.
        records: The stored records, if any.
    """

    hash: str
    version: int = 1
    parent: str | None = None
    source: SourceInfo
    settings: BuildSettings
    protocol: Protocol | None
    shards: tuple[ShardPlan, ...]
    raw: str = ""
    records: TableInfo | None = None

    def without_records(self) -> "Plan":
        """The plan itself: where its records were listed and stored does not count."""
        return self.model_copy(update={"raw": "", "records": None})


@dataclass(frozen=True)
class Work:
    """A plan with what it takes to carry it out: the open source, the records to store, and the inputs left out."""

    plan: Plan
    source: Source
    records: pl.DataFrame
    left_out: pl.DataFrame

    def rows(self, shard: ShardPlan) -> pl.DataFrame:
        """Cut out the records of a shard of the plan, halo rows first."""
        return self.records.slice(shard.start - shard.halo, shard.stop - shard.start + shard.halo)


@dataclass(frozen=True)
class StoredWork:
    """A plan whose records are stored beside it, so that the dump need not be listed."""

    plan: Plan
    source: Source
    store: Store

    def rows(self, shard: ShardPlan) -> pl.DataFrame:
        """Read the records of a shard of the plan, halo rows first.

        Raises:
            InputError: If they are absent or cannot be read.
            ContractError: If they are damaged.
        """
        if self.plan.records is None:
            raise InputError(f"{self.store}/{RECORDS_NAME}: no such table; run the build again")
        path = local_table(self.store, RECORDS_NAME, self.plan.records)
        with open_parquet(path) as file:
            group = file.read_row_group(shard.number - self.plan.shards[0].number)
        return pl.DataFrame(pl.from_arrow(group))


def describe_source(kind: str, options: dict[str, str], source: Source, listing: Listing) -> SourceInfo:
    """Identify a dump by a hash over every record and every input left out, wherever the dump lies.

    Args:
        kind: Kind of the dump.
        options: The source's options; of a path only its name is recorded.
        source: The opened source, for its credit line.
        listing: All frames of the dump, and what was left out.
    """
    records = table_contract("records").conform(listing.records)
    parts = [*records.iter_slices(ROWS_A_HASH), *listing.quarantine.iter_slices(ROWS_A_HASH)]
    return SourceInfo(
        kind=kind,
        options=recorded_options(kind, options),
        fingerprint=sha256_json([xxh3_hex(part.write_csv().encode()) for part in parts]),
        attribution=source.attribution,
        licence=getattr(source, "licence", ""),
    )


def recorded_options(kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """Give the options of a source as they are recorded: of a path only its name, not where it lay on one machine."""
    paths = path_options(kind)
    return {name: Path(value).name if name in paths else value for name, value in options.items()}


def make_work(
    source: Source,
    listing: Listing,
    info: SourceInfo,
    settings: BuildSettings,
    protocol: Protocol | None,
    *,
    version: int = 1,
    parent: str | None = None,
    first_shard: int = 0,
) -> Work:
    """Cut a listing into shards, frames that are not to be stored left out.

    Args:
        source: The opened dump.
        listing: Its frames.
        info: Its identity.
        settings: Settings of the build.
        protocol: Protocol whose tables are stored, if any.
        version: Number of the version, from 1.
        parent: Id of the version before, if any.
        first_shard: Number of the first shard.
    """
    records, left_out = listing.records, listing.quarantine
    if settings.drop:
        records, left_out = _drop(records, left_out, settings)
    # Shards follow from these, so they need no place in the hash; array jobs compute the same plan each.
    identity = {
        "source": info.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "parent": parent,
        "first_shard": first_shard,
    }
    plan = Plan(
        hash=sha256_json(identity),
        version=version,
        parent=parent,
        source=info,
        settings=settings,
        protocol=protocol,
        shards=tuple(plan_shards(records, settings, first_shard)),
    )
    return Work(plan, source, records, left_out)


def along_track(frames: pl.DataFrame, settings: BuildSettings) -> pl.DataFrame:
    """Add what follows from the positions of whole trajectories.

    Args:
        frames: Frames, each trajectory's rows together and in driving order.
        settings: Spacing and rule of the resampling flag.

    Returns:
        The frames with heading (degrees; the source's own where it gives one), track_m (metres driven) and resampled.
    """
    starts = trajectory_starts(frames["trajectory"])
    easting = np.split(frames["easting"].to_numpy(), starts[1:])
    northing = np.split(frames["northing"].to_numpy(), starts[1:])
    tracks = list(zip(easting, northing, strict=True))
    metres = np.concatenate([geometry.track_metres(e, n) for e, n in tracks])
    driven = np.concatenate([geometry.driving_headings(e, n) for e, n in tracks])
    keep = np.concatenate([keep_mask(e, n, settings.resample_metres, settings.resample_rule) for e, n in tracks])
    own_heading = pl.Series("driven", driven.astype(np.float32)).fill_nan(None)
    return frames.with_columns(
        pl.coalesce(pl.col("heading"), own_heading).alias("heading"),
        pl.Series("track_m", metres),
        pl.Series("resampled", keep),
    )


def _drop(records: pl.DataFrame, left_out: pl.DataFrame, settings: BuildSettings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split off the frames that the rule leaves out; those that stay have headings and metres of the whole drive."""
    if not records.height:
        return records, left_out
    complete = along_track(records, settings)
    keep = pl.col("resampled")
    rule = f"less than {settings.resample_metres:g} m on ({settings.resample_rule}); built with --drop"
    dropped = quarantine_rows(complete.filter(~keep), "not_resampled", rule)
    return complete.filter(keep).drop("resampled"), pl.concat([table_contract("quarantine").conform(left_out), dropped])


def begin(store: Store, work: Work | StoredWork, *, with_records: bool = False) -> None:
    """Write the plan, and its records if wanted, unless it stands there already.

    Raises:
        OutputError: When another unfinished one does.
    """
    plan = read_plan(store)
    if plan is not None and plan.hash != work.plan.hash:
        raise OutputError(
            f"{store}: holds an unfinished build of another dump or with other settings; remove it, or choose "
            "another --out"
        )
    if plan is None and work.plan.version == 1 and store.names(SHARDS):
        raise OutputError(f"{store}: holds shards that no plan names; remove them, or choose another --out")
    # Written already, by this build before it was killed or by another array job.
    is_there = plan is not None and plan.without_records() == work.plan.without_records()
    if isinstance(work, StoredWork) or (plan is not None and is_there and (plan.records or not with_records)):
        return
    left_out = table_contract("quarantine").conform(work.left_out)
    with store.writing(LEFT_OUT_NAME) as temporary, parquet_writer(temporary, left_out.schema) as put:
        put(left_out)
    written = work.plan
    if with_records:
        written = written.model_copy(update={"records": _write_records(store, work)})
    with store.writing(PLAN_NAME) as temporary:
        temporary.write_bytes(json_bytes(written.model_dump(mode="json")))


def _write_records(store: Store, work: Work) -> TableInfo:
    """Write the records, a row group a shard with its halo."""
    with store.writing(RECORDS_NAME) as temporary:
        # A table for a few hours, read by the row group: fast rather than small.
        with parquet_writer(temporary, work.records.schema, level=1, one_group=True) as put:
            for shard in work.plan.shards:
                put(work.rows(shard))
        return TableInfo.measure(RECORDS_NAME, temporary)


def read_plan(store: Store) -> Plan | None:
    """Read the plan of the unfinished version, None where there is none.

    Raises:
        ContractError: When it is broken.
    """
    if store.size(PLAN_NAME) is None:
        return None
    try:
        return Plan.model_validate(store.read_json(PLAN_NAME))
    except ValidationError as error:
        raise ContractError(f"{store}/{PLAN_NAME}: {describe_first(error)}") from error


def stored_work(store: Store, request: BuildRequest) -> StoredWork | None:
    """Read the plan that an earlier job of a build wrote with its records.

    The dump is not listed again: what it holds is taken to be what it held. None is read where the request is of
    another dump or build, whose listing then says what differs.

    Args:
        store: The dataset's store.
        request: The build, with what its protocol pins.

    Raises:
        ContractError: If the plan is broken, or an option is wrong.
        InputError: If the dump is gone.
    """
    plan = read_plan(store)
    if plan is None or plan.records is None or store.size(RECORDS_NAME) != plan.records.bytes:
        return None
    options = recorded_options(request.kind, request.options)
    is_same_dump = (plan.source.kind, plan.source.options, plan.raw) == (request.kind, options, dump_path(request.raw))
    labels = [protocol and protocol.label for protocol in (plan.protocol, request.protocol)]
    if plan.version > 1 or not is_same_dump or plan.settings != request.settings or labels[0] != labels[1]:
        return None
    return StoredWork(plan, open_source(request.kind, request.raw, request.options), store)


def dump_path(raw: Path) -> str:
    """The path of a dump as it is compared between jobs."""
    return str(raw.resolve())


def read_left_out(store: Store) -> pl.DataFrame:
    """Read the inputs that the plan leaves out (contract `quarantine`)."""
    return pl.read_parquet(io.BytesIO(store.read_bytes(LEFT_OUT_NAME)))


def end(store: Store) -> None:
    """Remove the plan, because its version is sealed."""
    store.remove(PLAN_NAME)
    store.remove(LEFT_OUT_NAME)
    store.remove(RECORDS_NAME)


@step("list the dump")
def read_listing(kind: str, raw: Path, options: Mapping[str, str]) -> tuple[Source, Listing]:
    """Open a dump and list it.

    Args:
        kind: Kind of dump.
        raw: Its folder.
        options: The source's options.

    Raises:
        InputError: If the dump is wrong, missing, or cannot be read.
        ContractError: If a table of it is bad.
    """
    try:
        source = open_source(kind, raw, options)
        return source, source.listing()
    except OSError as error:
        # Readers name the file where one table or archive fails; this is what is left: folders and names.
        place = error.filename or raw
        raise InputError(f"{place}: the dump cannot be read ({error.strerror or error}); {AGAIN}") from error


def refuse_empty(listing: Listing, raw: Path) -> None:
    """Log what the listing notes about the dump.

    Raises:
        InputError: When no frame can be used, with the reasons.
    """
    for note in listing.notes:
        log.warning("%s: %s", raw, note)
    if listing.records.height:
        return
    raise InputError(f"{raw}: no frame can be used: {describe_reasons(listing.quarantine) or 'the dump is empty'}")


def describe_reasons(quarantine: pl.DataFrame) -> str:
    """Count the quarantined inputs by reason, each reason with its first input and message."""
    reasons = quarantine.group_by("reason", maintain_order=True).agg(
        pl.len(), pl.col("source").first(), pl.col("message").first()
    )
    texts = [
        f"{count:,} {reason} ({shorten(source)}: {message})" for reason, count, source, message in reasons.iter_rows()
    ]
    return "; ".join(texts)
