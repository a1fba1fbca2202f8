"""Verify: every byte of a sealed dataset against its hashes, and the name of each frame that is damaged."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from seqdata.manifest import ShardInfo, read_manifest
from seqdata.storage import xxh3_file, xxh3_hex


@dataclass(frozen=True)
class Fault:
    """One damaged file, or one damaged frame of a shard with its source in the raw dump."""

    file: str
    fault: str
    key: str = ""
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fault as JSON values."""
        return asdict(self)


def verify(folder: str | Path, progress: Callable[[int], None] | None = None) -> Iterator[Fault]:
    """Hash every table and shard of a dataset and yield what differs; nothing is yielded for a whole dataset.

    `progress` is called with the bytes hashed after each file. Raises: as `read_manifest`.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    sound = set()
    for name, table in manifest.tables.items():
        fault = _check(root / name, table.bytes, table.hash)
        if fault:
            yield Fault(name, fault)
        else:
            sound.add(name)
        if progress is not None:
            progress(table.bytes)
    frames = pl.scan_parquet(root / "frames.parquet") if "frames.parquet" in sound else None
    listed = {name for shard in manifest.shards for name in (shard.name, seal_name(shard))}
    for path in sorted((root / "shards").iterdir()) if (root / "shards").is_dir() else []:
        if path.name not in listed:
            yield Fault(f"shards/{path.name}", "not in the manifest; remove it")
    for shard in manifest.shards:
        yield from _verify_shard(root, shard, frames)
        seal = root / "shards" / seal_name(shard)
        if not seal.is_file() or xxh3_file(seal) != shard.seal:
            yield Fault(f"shards/{seal.name}", "its bytes have changed" if seal.is_file() else "missing")
        if progress is not None:
            progress(shard.bytes)


def seal_name(shard: ShardInfo) -> str:
    """Name of the Parquet that seals a shard."""
    return shard.name.removesuffix(".tar") + ".parquet"


def _check(path: Path, size: int, digest: str) -> str:
    """What is wrong with a file, nothing when it is as it was."""
    if not path.is_file():
        return "missing"
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes, the manifest says {size}"
    return "" if xxh3_file(path) == digest else "its bytes have changed"


def _verify_shard(root: Path, shard: ShardInfo, frames: pl.LazyFrame | None) -> Iterator[Fault]:
    name = f"shards/{shard.name}"
    fault = _check(root / name, shard.bytes, shard.hash)
    if not fault:
        return
    damaged = list(_damaged_frames(root, shard, frames)) if fault != "missing" and frames is not None else []
    yield from damaged or [Fault(name, fault)]


def _damaged_frames(root: Path, shard: ShardInfo, frames: pl.LazyFrame) -> Iterator[Fault]:
    """Frames of a damaged shard whose own bytes have changed."""
    number = int(shard.name.removeprefix("part-").removesuffix(".tar"))
    rows = frames.filter(pl.col("shard") == number).select("key", "source", "offset", "length", "hash").collect()
    with (root / "shards" / shard.name).open("rb") as tar:
        for key, source, offset, length, digest in rows.iter_rows():
            tar.seek(offset)
            data = tar.read(length)
            if xxh3_hex(data) != digest.hex():
                yield Fault(f"shards/{shard.name}", "the frame's bytes have changed", key, source)
