"""What a dataset holds, in figures: counts, roles, spacing, sizes, and how it differs from what a protocol expects."""

from typing import Any

import polars as pl

from seqdata.dataset import Dataset
from seqdata.protocols import Protocol


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts, sizes (bytes), spacing (metres between neighbouring frames) and splits of a dataset, as JSON values."""
    manifest = dataset.manifest
    return {
        "id": dataset.id,
        "path": str(dataset.path),
        "schema_version": manifest.schema_version,
        "source": manifest.source.kind,
        "attribution": manifest.source.attribution,
        "frames": manifest.counts.frames,
        "trajectories": manifest.counts.trajectories,
        "quarantined": manifest.counts.quarantined,
        "image_bytes": manifest.counts.image_bytes,
        "shards": len(manifest.shards),
        "shard_bytes": sum(shard.bytes for shard in manifest.shards),
        "table_bytes": sum(table.bytes for table in manifest.tables.values()),
        "resampling": f"{manifest.settings.resample_rule} {manifest.settings.resample_metres:g} m",
        "groups": _groups(dataset),
        "protocol": protocol_counts(dataset, manifest.protocol) if manifest.protocol else None,
    }


def _groups(dataset: Dataset) -> list[dict[str, Any]]:
    """One entry a (city, role): frames, trajectories, spacing, gaps, jumps, share kept by resampling."""
    frames = dataset.frames.group_by("city", "role").agg(
        pl.len().alias("frames"),
        pl.col("panorama").sum().alias("panoramas"),
        pl.col("resampled").mean().round(4).alias("resampled_share"),
        pl.col("zone").first(),
    )
    trajectories = (
        dataset.trajectories.lazy()
        .group_by("city", "role")
        .agg(
            pl.len().alias("trajectories"),
            pl.col("gaps").sum(),
            pl.col("jumps").sum(),
            (pl.col("length_m").sum() / 1000).round(3).alias("kilometres"),
            pl.col("median_step_m").median().round(3),
        )
    )
    joined = frames.join(trajectories, on=["city", "role"], nulls_equal=True).sort("city", "role")
    return joined.collect().to_dicts()


def protocol_counts(dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    """Windows and queries without a positive of each split, beside what the protocol expects."""
    splits = {}
    for name in protocol.splits:
        query = dataset.sequences(protocol, name, "query").height
        database = dataset.sequences(protocol, name, "database").height
        found = dataset.answerable(protocol, name) if query and database else 0
        counts = {"database": database, "query": query, "without_positive": query - found}
        expected = protocol.expected_counts.get(name, {})
        differs = {key: value for key, value in expected.items() if counts.get(key) != value}
        splits[name] = {**counts, "expected": expected, "differs_from_expected": sorted(differs)}
    return {"name": protocol.name, "hash": protocol.hash, "length": protocol.length, "splits": splits}
