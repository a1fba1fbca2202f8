"""The end of a build: sealed shards become one frames table, its trajectories, a protocol's tables, and the manifest.

Everything here follows from the sealed shards alone, so it may be interrupted and done again; the manifest comes last.
"""

from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.contracts import table_contract
from seqdata.errors import InputError
from seqdata.manifest import (
    MANIFEST_NAME,
    BuildSettings,
    Counts,
    DatasetManifest,
    ShardInfo,
    SourceInfo,
    TableInfo,
    tool_versions,
)
from seqdata.protocol_tables import write_protocol_tables
from seqdata.protocols import Protocol
from seqdata.resampling import keep_mask
from seqdata.shards import SealedShard, ShardPlan
from seqdata.storage import write_json_atomic, write_parquet_atomic, xxh3_file

JUMP_METRES = 100.0


def finish(
    out: Path,
    plans: list[ShardPlan],
    sealed: list[SealedShard],
    left_out: pl.DataFrame,
    source: SourceInfo,
    settings: BuildSettings,
    protocol: Protocol | None,
) -> DatasetManifest:
    """Write every table of the dataset and, last, its manifest.

    Raises: InputError when no frame at all could be stored, OutputError when the disk refuses.
    """
    quarantine = _join_quarantine(sealed, left_out)
    frames = _join_frames(sealed, settings)
    if not frames.height:
        reasons = ", ".join(quarantine["reason"].unique().sort())
        raise InputError(f"{out}: not one frame of the dump could be stored ({reasons})")
    trajectories = summarise(frames)
    write_parquet_atomic(frames, out / "frames.parquet", {"seqdata.table": "frames"})
    write_parquet_atomic(trajectories, out / "trajectories.parquet", {"seqdata.table": "trajectories"})
    write_parquet_atomic(quarantine, out / "quarantine.parquet", {"seqdata.table": "quarantine"})
    if protocol is not None:
        write_protocol_tables(out, frames, protocol, settings.resample_rule)
    manifest = DatasetManifest(
        source=source,
        settings=settings,
        protocol=protocol,
        tools=tool_versions(),
        shards=tuple(
            ShardInfo(
                name=plan.name,
                bytes=shard.bytes,
                hash=shard.hash,
                seal=shard.seal,
                frames=shard.frames.height,
                halo=plan.halo,
            )
            for plan, shard in zip(plans, sealed, strict=True)
        ),
        tables=_table_infos(out),
        counts=_counts(frames, trajectories, quarantine),
    )
    write_json_atomic(out / MANIFEST_NAME, manifest.model_dump(mode="json"))
    return manifest


def _join_quarantine(sealed: list[SealedShard], left_out: pl.DataFrame) -> pl.DataFrame:
    """What the listing left out and what the shards left out, sorted by source."""
    contract = table_contract("quarantine")
    bad = [row for shard in sealed for row in shard.quarantined]
    found = pl.DataFrame(bad, schema=contract.polars_schema(), orient="row")
    return pl.concat([contract.conform(left_out), found]).sort("source", "reason", "key", nulls_last=True)


def _join_frames(sealed: list[SealedShard], settings: BuildSettings) -> pl.DataFrame:
    """The frames table: the shards' rows in order, with what follows from the whole trajectory added."""
    frames = pl.concat([shard.frames for shard in sealed])
    if not frames.height:
        return frames
    starts = np.flatnonzero(frames["trajectory"].rle_id().diff().fill_null(1).to_numpy())
    easting = np.split(frames["easting"].to_numpy(), starts[1:])
    northing = np.split(frames["northing"].to_numpy(), starts[1:])
    tracks = list(zip(easting, northing, strict=True))
    metres = np.concatenate([geometry.track_metres(e, n) for e, n in tracks])
    driven = np.concatenate([geometry.driving_headings(e, n) for e, n in tracks])
    kept = np.concatenate([keep_mask(e, n, settings.resample_metres, settings.resample_rule) for e, n in tracks])
    own_heading = pl.Series("driven", driven.astype(np.float32)).fill_nan(None)
    complete = frames.with_columns(
        pl.coalesce(pl.col("heading"), own_heading).alias("heading"),
        pl.Series("track_m", metres),
        pl.Series("resampled", kept),
    )
    return table_contract("frames").conform(complete)


def summarise(frames: pl.DataFrame) -> pl.DataFrame:
    """The trajectories table of a frames table. Units: metres; a jump is more than 100 m between neighbours."""
    step = pl.col("track_m").diff()
    grouped = frames.with_row_index("row").group_by("trajectory", maintain_order=True)
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


def _table_infos(out: Path) -> dict[str, TableInfo]:
    paths = sorted(out.glob("*.parquet"))
    return {
        path.name: TableInfo(
            bytes=path.stat().st_size,
            hash=xxh3_file(path),
            rows=pl.scan_parquet(path).select(pl.len()).collect().item(),
        )
        for path in paths
    }


def _counts(frames: pl.DataFrame, trajectories: pl.DataFrame, quarantine: pl.DataFrame) -> Counts:
    reasons = quarantine["reason"].value_counts().sort("reason")
    return Counts(
        frames=frames.height,
        trajectories=trajectories.height,
        image_bytes=int(frames["length"].sum()),
        quarantined=dict(zip(reasons["reason"], reasons["count"], strict=True)),
    )
