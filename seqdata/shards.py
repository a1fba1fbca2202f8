"""Shards: plain USTAR tars that any WebDataset reader can read, each sealed by a Parquet of its frames.

A frame is two members side by side, `<key>.jpg` and `<key>.json`. A shard ends where a trajectory ends; a trajectory
longer than a shard is cut, and the next shard starts with a halo of repeated frames, so that a plain sequential reader
still meets every window of up to halo + 1 frames exactly once.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from seqdata.errors import ContractError, InputError
from seqdata.manifest import BuildSettings
from seqdata.pixels import BadImageError, StoredImage, prepare
from seqdata.sources.base import Source
from seqdata.storage import atomic_path, read_metadata, read_parquet, write_parquet_atomic, xxh3_file, xxh3_hex

BLOCK = 512
_SHARD_METADATA = "seqdata.shard"


@dataclass(frozen=True)
class ShardPlan:
    """Listing rows `start … stop` make shard `number`; the `halo` rows before `start` are repeated first."""

    number: int
    start: int
    stop: int
    halo: int

    @property
    def name(self) -> str:
        """Name of the tar below `shards/`."""
        return f"part-{self.number:06d}.tar"

    @property
    def table(self) -> str:
        """Name of the Parquet that seals the shard."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class SealedShard:
    """What a finished shard says: size and hash of its tar, hash of its seal, its frames, what it left out."""

    bytes: int
    hash: str
    seal: str
    frames: pl.DataFrame
    quarantined: list[dict[str, Any]]


def plan_shards(records: pl.DataFrame, settings: BuildSettings) -> list[ShardPlan]:
    """Cut the listing into shards of about `settings.shard_bytes` raw bytes, where trajectories end if possible."""
    plans: list[ShardPlan] = []
    open_start, open_bytes = 0, 0
    for start, stop, cuts, total in _trajectory_cuts(records, settings.shard_bytes):
        if open_start < start and open_bytes + total > settings.shard_bytes:
            plans.append(ShardPlan(len(plans), open_start, start, 0))
            open_start, open_bytes = start, 0
        if len(cuts) > 1:
            for first, last in zip(cuts, [*cuts[1:], stop], strict=True):
                plans.append(ShardPlan(len(plans), first, last, min(settings.halo, first - start)))
            open_start = stop
        else:
            open_bytes += total
    if open_start < records.height:
        plans.append(ShardPlan(len(plans), open_start, records.height, 0))
    return plans


def _trajectory_cuts(records: pl.DataFrame, shard_bytes: int) -> Iterator[tuple[int, int, list[int], int]]:
    """Start row, stop row, first rows of its parts and bytes of each trajectory."""
    runs = records["trajectory"].rle().struct.unnest()
    sizes = records["bytes"].to_numpy()
    stops = np.cumsum(runs["len"].to_numpy().astype(np.int64)).tolist()
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        of_trajectory = sizes[start:stop]
        part = (np.cumsum(of_trajectory) - of_trajectory) // shard_bytes
        cuts = (start + np.flatnonzero(np.diff(part, prepend=-1))).tolist()
        yield start, stop, cuts, int(of_trajectory.sum())


def write_shard(
    folder: Path,
    plan: ShardPlan,
    records: pl.DataFrame,
    source: Source,
    settings: BuildSettings,
    plan_hash: str,
) -> None:
    """Write and seal one shard in `folder`; a shard that is sealed already under the same plan is left as it is.

    `records` are the plan's rows, halo rows first. The tar is renamed into place before its Parquet, whose presence
    seals the shard. Raises: OutputError; InputError when the dump changed under the build.
    """
    if read_sealed(folder, plan, plan_hash) is not None:
        return
    rows: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    with atomic_path(folder / plan.name) as temporary, temporary.open("wb") as tar:
        for index, record in enumerate(records.iter_rows(named=True)):
            _write_frame(tar, record, source, settings, halo=index < plan.halo, rows=rows, bad=bad)
        tar.write(bytes(2 * BLOCK))
    stored = pl.DataFrame(rows, schema=_stored_schema(records), orient="row").with_columns(
        pl.lit(plan.number, pl.Int32).alias("shard")
    )
    seal = {
        "bytes": (folder / plan.name).stat().st_size,
        "hash": xxh3_file(folder / plan.name),
        "plan": plan_hash,
        "quarantined": bad,
    }
    write_parquet_atomic(stored, folder / plan.table, {_SHARD_METADATA: json.dumps(seal)})


def read_sealed(folder: Path, plan: ShardPlan, plan_hash: str) -> SealedShard | None:
    """The sealed shard of `plan`, or None when it is absent, of another plan, or its tar is not the size it was."""
    table, tar = folder / plan.table, folder / plan.name
    seal = read_seal(table)
    if seal is None or not tar.is_file() or seal["plan"] != plan_hash or seal["bytes"] != tar.stat().st_size:
        return None
    try:
        frames = read_parquet(table)
    except ContractError:  # damaged since: the shard is written again
        return None
    return SealedShard(seal["bytes"], seal["hash"], xxh3_file(table), frames, seal["quarantined"])


def read_seal(table: Path) -> dict[str, Any] | None:
    """What a shard's Parquet says of its tar (bytes, hash, plan, quarantined); None when absent or damaged."""
    if not table.is_file():
        return None
    try:
        seal: dict[str, Any] = json.loads(read_metadata(table)[_SHARD_METADATA])
    except (OSError, ValueError, KeyError):
        return None
    return seal


def _stored_schema(records: pl.DataFrame) -> dict[str, pl.DataType]:
    kept = {name: kind for name, kind in records.schema.items() if name != "bytes"}
    added = {
        "offset": pl.Int64(),
        "length": pl.Int32(),
        "width": pl.Int32(),
        "height": pl.Int32(),
        "hash": pl.Binary(),
    }
    return {**kept, **added}


def _write_frame(
    tar: BinaryIO,
    record: dict[str, Any],
    source: Source,
    settings: BuildSettings,
    *,
    halo: bool,
    rows: list[dict[str, Any]],
    bad: list[dict[str, Any]],
) -> None:
    """Add one frame's two members to the tar and its row to `rows`, or its reason to `bad`; halo frames get no row."""
    try:
        image = prepare(_read(source, record["source"]), keep_png=settings.keep_png, check=settings.check)
    except BadImageError as error:
        if not halo:
            known = {name: record[name] for name in ("source", "key", "trajectory", "position")}
            bad.append({**known, "reason": error.reason, "message": str(error)})
        return
    offset = _add_member(tar, f"{record['key']}.{image.suffix}", image.data)
    _add_member(tar, f"{record['key']}.json", _sample_json(record, halo=halo))
    if not halo:
        rows.append({**record, **_stored_fields(image, offset)})


def _read(source: Source, name: str) -> bytes:
    try:
        return source.read(name)
    except (FileNotFoundError, KeyError) as error:
        raise InputError(f"{name}: vanished from the dump while it was being built; start the build again") from error
    except OSError as error:
        raise InputError(f"{name}: could not be read ({error}); start the build again") from error


def _stored_fields(image: StoredImage, offset: int) -> dict[str, Any]:
    return {
        "offset": offset,
        "length": len(image.data),
        "width": image.width,
        "height": image.height,
        "hash": bytes.fromhex(xxh3_hex(image.data)),
    }


def _sample_json(record: dict[str, Any], *, halo: bool) -> bytes:
    """The sample's JSON, at most one tar block: what a plain WebDataset reader needs; Parquet is authoritative."""
    sample = {
        "key": record["key"],
        "trajectory": record["trajectory"],
        "position": record["position"],
        "lat": round(record["latitude"], 7),
        "lon": round(record["longitude"], 7),
        "time": record["time"],
    }
    if halo:
        sample["halo"] = True
    return json.dumps(sample, separators=(",", ":"), ensure_ascii=False).encode()


def _add_member(tar: BinaryIO, name: str, data: bytes) -> int:
    """Append one USTAR member (mtime 0, no owner) and return the offset of its data."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), 0, 0o644
    tar.write(info.tobuf(format=tarfile.USTAR_FORMAT))
    offset = tar.tell()
    tar.write(data)
    tar.write(bytes(-len(data) % BLOCK))
    return offset
