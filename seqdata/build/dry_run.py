"""Estimate of a build without writing anything: frames, bytes, shards, windows, time, and what would be left out.

Counts follow from the listing. Sizes and times are estimates from a sample of the dump's own frames, read and prepared
here; what only reading finds (a damaged image) is known for the sample alone.
"""

import io
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from seqdata.build.builder import BuildRequest, list_work
from seqdata.build.plan import Work, along_track
from seqdata.build.shards import prepare_frame, read_image
from seqdata.frames.images import BadImageError
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer
from seqdata.storage.tar import BLOCK, TarWriter

SAMPLE_FRAMES = 32
SAMPLE_SECONDS = 2.0
SAMPLE_ROWS = 10_000
PLACE_BYTES = 32
"""Bytes a frame that the listing does not have yet: the image's hash (16, never smaller) and its place."""
MEMBER_BYTES = 4 * BLOCK
"""Two tar headers, the sample's JSON and the padding of the image, a frame."""


@dataclass(frozen=True)
class BuildPlan:
    """The plan in figures.

    Attributes:
        frames: Frames of the listing.
        trajectories: Trajectories of the listing.
        groups: Frames, trajectories and bytes of each (city, role).
        resampled: Frames that the resampling rule leaves.
        left_out: Inputs that would be left out, by reason.
        sample: Frames that were read.
        sample_bad: Those of them that cannot be stored.
        raw_bytes: Bytes of the raw images.
        stored_bytes: Estimated bytes of the shards.
        table_bytes: Estimated bytes of the tables.
        shards: Number of shards.
        seconds: Estimated time with the request's workers.
        windows: Windows by split and role of the protocol, before any frame turns out bad.
    """

    frames: int
    trajectories: int
    groups: list[dict[str, Any]]
    resampled: int
    left_out: dict[str, int]
    sample: int
    sample_bad: int
    raw_bytes: int
    stored_bytes: int
    table_bytes: int
    shards: int
    seconds: float
    windows: dict[str, dict[str, int]]

    def as_dict(self) -> dict[str, Any]:
        """Convert the plan to JSON values."""
        return asdict(self)


def plan_build(request: BuildRequest) -> BuildPlan:
    """List the dump, read some frames, and estimate what `build` would write.

    Errors are those of `list_work`.
    """
    request, work = list_work(request)
    records = work.records
    sample = _sample(work)
    halo = sum(shard.halo for shard in work.plan.shards)
    # Halo frames are stored in two shards.
    repeated = (records.height + halo) / max(records.height, 1)
    raw_bytes = int(records["bytes"].sum())
    tar_bytes = raw_bytes * sample.shrink + MEMBER_BYTES * records.height
    reasons = work.left_out["reason"].value_counts().sort("reason")
    flags = records if work.plan.settings.drop else along_track(records, work.plan.settings).filter("resampled")
    return BuildPlan(
        frames=records.height,
        trajectories=records["trajectory"].n_unique(),
        groups=_groups(records),
        resampled=flags.height,
        left_out=dict(zip(reasons["reason"], reasons["count"], strict=True)),
        sample=sample.frames,
        sample_bad=sample.bad,
        raw_bytes=raw_bytes,
        stored_bytes=int(tar_bytes * repeated),
        # Every frame's row stands twice, in its shard's seal and in the frames table.
        table_bytes=2 * _table_bytes(records),
        shards=len(work.plan.shards),
        seconds=round(sample.seconds * (records.height + halo) / max(1, request.workers), 1),
        windows=window_counts(work),
    )


@dataclass(frozen=True)
class _Sample:
    """Frames that were read, those that cannot be stored, stored bytes a raw byte, seconds a frame."""

    frames: int
    bad: int
    shrink: float
    seconds: float


def _sample(work: Work) -> _Sample:
    """Read and prepare frames spread over the listing, for at most two seconds."""
    # Spread over the dump, because neighbours have the same camera and quality.
    rows = np.unique(np.linspace(0, work.records.height - 1, SAMPLE_FRAMES).astype(np.int64))
    began, raw, stored_bytes, bad, count = time.perf_counter(), 0, 0, 0, 0
    with tempfile.TemporaryFile() as file:
        tar = TarWriter(file)
        for name, size in work.records.select("source", "bytes")[rows].iter_rows():
            count += 1
            try:
                data = prepare_frame(read_image(work.source, name), work.plan.settings).data
                tar.add("frame.jpg", data)
                raw, stored_bytes = raw + size, stored_bytes + len(data)
            except BadImageError:
                bad += 1
            if time.perf_counter() - began > SAMPLE_SECONDS:
                break
    return _Sample(count, bad, stored_bytes / raw if raw else 1.0, (time.perf_counter() - began) / max(count, 1))


def _groups(records: pl.DataFrame) -> list[dict[str, Any]]:
    grouped = records.group_by("city", "role").agg(
        pl.len().alias("frames"), pl.col("trajectory").n_unique().alias("trajectories"), pl.col("bytes").sum()
    )
    return grouped.sort("city", "role").to_dicts()


def _table_bytes(records: pl.DataFrame) -> int:
    """Estimated size of the frames table, from the listing's first rows; the shards' seals hold as much again."""
    # Parquet compresses columns, so the size of a row follows only from writing some.
    buffer = io.BytesIO()
    head = records.head(SAMPLE_ROWS)
    head.write_parquet(buffer)
    return int(records.height * (buffer.tell() / max(head.height, 1) + PLACE_BYTES))


def window_counts(work: Work) -> dict[str, dict[str, int]]:
    """Windows by split and role that the protocol of a plan would cut; none without a protocol."""
    protocol, settings = work.plan.protocol, work.plan.settings
    if protocol is None:
        return {}
    frames = along_track(work.records.drop("track_m", strict=False), settings)
    if settings.drop:
        frames = frames.with_columns(pl.lit(value=True).alias("resampled"))
    sequencer = Sequencer(frames.select(GEOMETRY_COLUMNS), settings.resample_rule, settings.resample_metres)
    return {
        split: {role: sequencer.protocol_windows(protocol, split, role).height for role in ("database", "query")}
        for split in protocol.splits
    }
