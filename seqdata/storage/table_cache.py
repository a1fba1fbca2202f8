"""Tables of a remote dataset on the local disk: fetched once, named by their hash, then scanned like any local table.

Also here: large tables that several processes of a machine need, computed by the first and mapped by all.

Only tables are stored, never shards. Nothing is removed by itself: the folder may be deleted at any time, and what is
needed again is fetched, or computed, again.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import xxhash

from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.files import atomic_path
from seqdata.storage.hashing import sha256_json, xxh3_file
from seqdata.storage.lock import part_claimed
from seqdata.storage.names import refuse_links
from seqdata.storage.parquet import WHOLE_BYTES
from seqdata.storage.store import Store

FETCH_BYTES = 8 << 20  # a few seconds of a slow line, so that one broken request costs little
SHARED_ROWS = 1_000_000
"""Rows from which on tables are shared: fewer are made in the time in which they would be read, and fit anywhere."""
Number = TypeVar("Number", bound=np.generic)
# Tables whose hash this process has compared: path, time of the last change, hash.
_WHOLE: set[tuple[Path, int, str]] = set()


class TableEntry(Protocol):
    """What a manifest says of a table."""

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""

    @property
    def hash(self) -> str:
        """XXH3-128 of its bytes, 32 hex digits."""


def cache_folder() -> Path:
    """Folder of the cache: `$XDG_CACHE_HOME/seqdata`, else `~/.cache/seqdata`.

    Source: the XDG base directory specification, by which a relative `XDG_CACHE_HOME` does not count.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "seqdata"


def local_table(store: Store, name: str, info: TableEntry) -> Path:
    """Give a path at which a table can be scanned: its own, or that of its copy in the cache.

    Args:
        store: Where the dataset is.
        name: Name of the table in the store.
        info: What the manifest says of it.

    Raises:
        InputError: If the table is absent, of another size, or cannot be fetched.
        ContractError: If its bytes have changed.
        OutputError: If the cache cannot be written.
    """
    if store.is_local:
        _check_size(store, name, info)
        path = store.path(name)
        refuse_links(store.path(""), [name], store.path("manifest.json"))
        if not _is_whole(path, info):
            raise ContractError(f"{path}: its bytes have changed since the build; run seqdata verify")
        return path
    # The hash becomes a file name: a manifest from elsewhere must not write outside the cache.
    if not re.fullmatch("[0-9a-f]{32}", info.hash):
        raise ContractError(f"{store}: the manifest's hash of {name} is not 32 hex digits")
    path = cache_folder() / "tables" / f"{info.hash}.parquet"
    if not path.is_file() or path.stat().st_size != info.bytes or not _is_whole(path, info):
        try:
            _fetch(store, name, info, path)
        except OutputError as error:
            raise OutputError(f"{error} (tables of remote datasets are cached below XDG_CACHE_HOME)") from error
    return path


def shared_table(key: str, rows: int, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """Make a table, or map the one that another process of this machine has made.

    Args:
        key: All that its content depends on, the release of this program too, which may compute other columns.
        rows: About how many rows it has; below `SHARED_ROWS` it is made and nothing is stored.
        make: Makes it.

    Returns:
        The table; its memory is the file's, which all processes share.

    Raises:
        OutputError: If the cache cannot be written.
    """
    if rows < SHARED_ROWS:
        return make()
    path = _shared_path(key, ".arrow")
    with part_claimed(path.with_suffix(".lock"), wait=True):
        if not path.is_file():
            # Not compressed, so that its columns can be used as they lie in the file.
            with atomic_path(path) as temporary:
                make().rechunk().write_ipc(temporary, compression="uncompressed")
    # By Arrow: polars itself has copied the file into memory since its version 2.
    with pa.memory_map(str(path)) as file:
        return pl.DataFrame(pl.from_arrow(pa.ipc.open_file(file).read_all(), rechunk=False))


def shared_array(key: str, rows: int, make: Callable[[], npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Make an array, or map the one that another process of this machine has made; as `shared_table`."""
    if rows < SHARED_ROWS:
        return make()
    path = _shared_path(key, ".npy")
    with part_claimed(path.with_suffix(".lock"), wait=True):
        if not path.is_file():
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, make(), allow_pickle=False)
    mapped: npt.NDArray[Number] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _shared_path(key: str, suffix: str) -> Path:
    return cache_folder() / "shared" / f"{sha256_json(key)[:32]}{suffix}"


def _is_whole(path: Path, info: TableEntry) -> bool:
    """Compare the hash of a table up to 64 MiB, when this process opens it first; larger ones have page checksums."""
    if info.bytes > WHOLE_BYTES:
        return True
    seen = (path.absolute(), path.stat().st_mtime_ns, info.hash)
    if seen not in _WHOLE and xxh3_file(path) == info.hash:
        _WHOLE.add(seen)
    return seen in _WHOLE


def _check_size(store: Store, name: str, info: TableEntry) -> None:
    size = store.size(name)
    if size is None:
        raise InputError(f"{store}/{name}: the table is missing; run seqdata verify, or build the dataset again")
    if size != info.bytes:
        raise InputError(f"{store}/{name}: {size} bytes, the manifest says {info.bytes}; run seqdata verify")


def _fetch(store: Store, name: str, info: TableEntry, path: Path) -> None:
    """Copy a table block by block; it appears under its name only when its hash is the manifest's."""
    _check_size(store, name, info)
    with atomic_path(path) as temporary:
        # Bytes may have been damaged on the way: a wrong hash is one more reason to ask again.
        for _ in range(store.patience.tries):
            if _copy(store, name, info, temporary) == info.hash:
                return
        raise ContractError(f"{store}/{name}: its bytes have changed since the build; run seqdata verify")


def _copy(store: Store, name: str, info: TableEntry, path: Path) -> str:
    """Write the bytes of a remote table to a local file; returns their hash."""
    digest = xxhash.xxh3_128()
    with path.open("wb") as file:
        for offset in range(0, info.bytes, FETCH_BYTES):
            block = store.read(name, offset, min(FETCH_BYTES, info.bytes - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
