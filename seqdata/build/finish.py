"""The end of a build: sealed shards become tables and, last, the manifest.

Everything here follows from the sealed shards and the version before, so it may be interrupted and done again. A build
writes whole tables, an append segments beside those of the version before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import polars as pl

from seqdata.build.plan import Plan, describe_reasons
from seqdata.build.segments import add_frames, join_tables
from seqdata.build.shards import read_sealed_shards
from seqdata.build.tables import Draft, Summary, Tables, by_trajectory, complete, write_frames
from seqdata.contracts.dataset_tables import sort_quarantine
from seqdata.contracts.manifest import (
    CHECKSUM_NAME,
    MANIFEST_NAME,
    SHARDS,
    Counts,
    DatasetManifest,
    ShardInfo,
    checksums,
    read_manifest,
    tool_versions,
    version_name,
)
from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError, OutputError
from seqdata.parallel.steps import step
from seqdata.storage.files import json_bytes
from seqdata.storage.store import Store


class UnsealedShardError(OutputError):
    """A shard is missing, or its seal is damaged (exit code 5)."""


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
            UnsealedShardError: When one is not sealed.
        """
        shards = read_sealed_shards(store, plan.shards, plan.hash)
        for planned, shard in zip(plan.shards, shards, strict=True):
            if shard is None:
                raise UnsealedShardError(f"{store}/{SHARDS}/{planned.name}: not sealed; run the same build again")
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


@step("write tables and windows")
def finish(store: Store, plan: Plan, left_out: pl.DataFrame) -> DatasetManifest:
    """Seal the version that `plan` describes: write its tables and, last, its manifest.

    Args:
        store: The dataset's store, with all shards sealed.
        plan: The version.
        left_out: Inputs that the plan leaves out (contract `quarantine`).

    Raises:
        InputError: If no frame at all could be stored.
        OutputError: If a shard is not sealed, or the disk refuses.
    """
    before = read_manifest(store) if plan.version > 1 else None
    sources = () if before is None else before.sources
    draft = Draft(plan.version, plan.parent, (*sources, plan.source), plan.settings, plan.protocol)
    sealed = SealedFrames(source=len(sources))
    parts = new_frames(sealed, store, plan, left_out)
    tables = Tables(store, plan.version)
    tables.clear()
    summary = write_frames(tables, parts, draft) if before is None else add_frames(tables, before, parts, draft)
    shards = (*(before.shards if before is not None else ()), *sealed.shards)
    return seal_version(tables, draft, shards, summary, join_quarantine(left_out, sealed.bad), before)


def new_frames(sealed: SealedFrames, store: Store, plan: Plan, left_out: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Read the frames of a plan's shards in parts of whole trajectories, with what follows from their positions.

    Args:
        sealed: Takes up the shards and what could not be stored.
        store: The dataset's store.
        plan: The plan.
        left_out: Inputs that the plan leaves out, for the error.

    Raises:
        InputError: If no frame at all could be stored: before anything is written.
    """
    parts = (complete(part, plan.settings) for part in by_trajectory(sealed.frames(store, plan)))
    first = next(parts, None)
    if first is None:
        reasons = describe_reasons(join_quarantine(left_out, sealed.bad))
        raise InputError(f"{store}: no frame of the dump could be stored: {reasons}")
    return chain([first], parts)


def seal_version(
    tables: Tables,
    draft: Draft,
    shards: Iterable[ShardInfo],
    summary: Summary,
    quarantine: pl.DataFrame,
    before: DatasetManifest | None = None,
) -> DatasetManifest:
    """Write the last table and the manifest of a version whose frames are written; the version before stays.

    Args:
        tables: Writer of the version's tables.
        draft: What the manifest takes from before.
        shards: Entries of all shards.
        summary: Counts over the frames that were written.
        quarantine: Inputs left out (contract `quarantine`): all of them, or with `before` those that it does not list.
        before: Manifest of the version whose tables this one's are segments of; None where they are whole.
    """
    if quarantine.height or before is None:
        tables.write("quarantine.parquet", quarantine, {"seqdata.table": "quarantine"})
    reasons = dict(quarantine["reason"].value_counts().sort("reason").iter_rows())
    counts = Counts(
        frames=summary.frames,
        trajectories=sum(part.height for part in summary.trajectories),
        image_bytes=summary.image_bytes,
        quarantined=reasons,
    )
    return seal_manifest(tables, draft, shards, counts if before is None else _add(before.counts, counts), before)


def seal_manifest(
    tables: Tables, draft: Draft, shards: Iterable[ShardInfo], counts: Counts, before: DatasetManifest | None
) -> DatasetManifest:
    """Write the manifest of a version whose tables are all written.

    Args:
        tables: Writer of the version's tables.
        draft: What the manifest takes from before.
        shards: Entries of all shards.
        counts: Counts of the whole version.
        before: As for `seal_version`.
    """
    store = tables.store
    whole, segments = join_tables(before, tables.infos)
    manifest = DatasetManifest(
        version=draft.version,
        parent=draft.parent,
        sources=draft.sources,
        settings=draft.settings,
        protocol=draft.protocol,
        tools=tool_versions(),
        shards=tuple(shards),
        tables=whole,
        segments=segments,
        counts=counts,
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


def _add(before: Counts, more: Counts) -> Counts:
    """Add up the counts of a version and of what came to it."""
    reasons = sorted({*before.quarantined, *more.quarantined})
    return Counts(
        frames=before.frames + more.frames,
        trajectories=before.trajectories + more.trajectories,
        image_bytes=before.image_bytes + more.image_bytes,
        quarantined={name: before.quarantined.get(name, 0) + more.quarantined.get(name, 0) for name in reasons},
    )


def join_quarantine(left_out: pl.DataFrame, bad: list[dict[str, Any]]) -> pl.DataFrame:
    """Join what the listing and the shards left out, sorted by source."""
    contract = table_contract("quarantine")
    bad_rows = pl.DataFrame(bad, schema=contract.polars_schema(), orient="row")
    return sort_quarantine(pl.concat([contract.conform(left_out), bad_rows]))
