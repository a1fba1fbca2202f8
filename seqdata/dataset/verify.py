"""Verify: every byte of a sealed dataset against its hashes, and the name of each frame that is damaged."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from seqdata.contracts.manifest import (
    FRAMES_NAME,
    SHARDS,
    DatasetManifest,
    ShardInfo,
    manifest_of,
    read_manifest,
    version_numbers,
)
from seqdata.dataset.extra_tables import table_infos
from seqdata.errors import InputError
from seqdata.storage.hashing import xxh3_file, xxh3_hex
from seqdata.storage.store import Store

BLOCK = 8 << 20  # bytes of one ranged read of a remote file
_UNREADABLE = "cannot be read"
_IN_FRAME = ("key", "source", "offset", "length", "hash")


@dataclass(frozen=True)
class Fault:
    """One damaged file, or one damaged frame of a shard.

    Attributes:
        file: Path of the file in the dataset.
        fault: What is wrong with it.
        key: Key of the frame, empty where no frame can be named.
        source: Path of the frame's image in the raw dump.
    """

    file: str
    fault: str
    key: str = ""
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Convert the fault to JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _File:
    """A file that the manifest lists; `size` is None for seals, of which only the hash is listed."""

    name: str
    size: int | None
    hash: str
    shard: ShardInfo | None = None


def verify(place: str | Path, progress: Callable[[int], None] | None = None, workers: int = 1) -> Iterator[Fault]:
    """Hash every table and shard of a dataset and yield what differs; nothing is yielded for a whole one.

    Older versions and tables that were added later are hashed too. The frames of a shard are hashed one by one only
    where the shard differs.

    Args:
        place: Folder or URL of the dataset.
        progress: Called with the bytes hashed after each file.
        workers: Threads that hash, a file each.

    Raises:
        InputError: If there is no dataset.
        ContractError: If a manifest is broken.
    """
    store = Store(place)
    manifest = read_manifest(store)
    files = _listed(store, manifest)
    names = {file.name for file in files}
    try:
        unlisted = [name for name in store.names(SHARDS) if name not in names]
    except InputError as error:
        unlisted = []
        yield Fault(SHARDS, f"{_UNREADABLE} ({error})")
    for name in unlisted:
        yield Fault(name, "not in the manifest; remove it")
    pool = ThreadPoolExecutor(workers)
    try:
        for file, fault in zip(files, pool.map(partial(_check, store), files), strict=True):
            if fault:
                yield from _named(store, manifest, file, fault)
            if progress is not None:
                progress(file.size or 0)
    finally:
        # When the caller stops reading faults, nothing more is hashed.
        pool.shutdown(cancel_futures=True)


def _listed(store: Store, manifest: DatasetManifest) -> list[_File]:
    """List every file of every version, and what was added to them, tables first, each once."""
    older = [manifest_of(store, manifest, version) for version in version_numbers(store, manifest)[:-1]]
    manifests = (manifest, *older)
    infos = [info for part in manifests for info in (*part.table_files(), *table_infos(store, part.id).values())]
    tables = [_File(info.path, info.bytes, info.hash) for info in infos]
    shards = {shard.name: shard for part in manifests for shard in part.shards}
    pairs = [
        (
            _File(f"{SHARDS}/{shard.name}", shard.bytes, shard.hash, shard),
            _File(f"{SHARDS}/{shard.seal_name}", None, shard.seal),
        )
        for shard in shards.values()
    ]
    return [*dict.fromkeys(tables), *(file for pair in pairs for file in pair)]


def _check(store: Store, file: _File) -> str:
    """Describe what is wrong with a file; empty when it is as it was."""
    try:
        size = store.size(file.name)
        if size is None:
            return "missing"
        # The size first: a file that was cut off is reported without reading it.
        if file.size not in (None, size):
            return f"{size} bytes, the manifest says {file.size}"
        return "" if _digest(store, file.name, size) == file.hash else "its bytes have changed"
    except OSError as error:
        return f"{_UNREADABLE} ({error.strerror or error})"
    except InputError as error:
        return f"{_UNREADABLE} ({error})"


def _digest(store: Store, name: str, size: int) -> str:
    """Hash a file (XXH3-128); remote ones are read in blocks of 8 MiB."""
    if store.is_local:
        return xxh3_file(store.path(name))
    digest = xxhash.xxh3_128()
    for start in range(0, size, BLOCK):
        digest.update(store.read(name, start, min(BLOCK, size - start)))
    return digest.hexdigest()


def _named(store: Store, manifest: DatasetManifest, file: _File, fault: str) -> Iterator[Fault]:
    """Yield the damaged frames of a shard, or the file itself where no frame of it can be named."""
    is_named = False
    # Frames of a shard that cannot be read are not read one by one: each would be tried again and again.
    if file.shard is not None and fault != "missing" and not fault.startswith(_UNREADABLE):
        frames = _frames_of(store, manifest, file.shard)
        for damaged in _damaged_frames(store, file.name, frames):
            is_named = True
            yield damaged
    if not is_named:
        beside = " outside its frames' images" if file.shard is not None and fault.endswith("changed") else ""
        yield Fault(file.name, fault + beside)


def _frames_of(store: Store, manifest: DatasetManifest, shard: ShardInfo) -> pl.DataFrame:
    """Read key, source and location of a shard's frames: from a whole seal, else from the frames table."""
    seal = f"{SHARDS}/{shard.seal_name}"
    # A seal lists the frames of one shard; the table of the whole dataset is read only where the seal is damaged too.
    if not _check(store, _File(seal, None, shard.seal)):
        return pl.read_parquet(io.BytesIO(store.read_bytes(seal)), columns=list(_IN_FRAME))
    # The frames table names shards by number.
    number = int(shard.name.removeprefix("part-").removesuffix(".tar"))
    parts = [pl.DataFrame(schema=list(_IN_FRAME))]
    for table in manifest.parts(FRAMES_NAME):
        # Frames of a shard stand in one file, and a damaged one cannot name any.
        if not _check(store, _File(table.path, table.bytes, table.hash)):
            whole = pl.scan_parquet(io.BytesIO(store.read_bytes(table.path)))
            parts.append(whole.filter(pl.col("shard") == number).select(_IN_FRAME).collect())
    return max(parts, key=len)


def _damaged_frames(store: Store, name: str, frames: pl.DataFrame) -> Iterator[Fault]:
    """Yield frames of a damaged shard whose own bytes have changed or are gone."""
    size = store.size(name) or 0
    for key, source, offset, length, digest in frames.select(_IN_FRAME).iter_rows():
        if offset + length > size:
            yield Fault(name, "the frame is cut off", key, source)
        elif xxh3_hex(store.read(name, offset, length)) != digest.hex():
            yield Fault(name, "the frame's bytes have changed", key, source)
