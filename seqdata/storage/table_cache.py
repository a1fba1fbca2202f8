"""Tables of a remote dataset on the local disk: fetched once, named by their hash, then scanned like any local table.

Only tables are stored, never shards. Nothing is removed by itself: the folder may be deleted at any time, and what is
needed again is fetched again.
"""

import os
import re
from pathlib import Path
from typing import Protocol

import xxhash

from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.files import atomic_path
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.names import refuse_links
from seqdata.storage.parquet import WHOLE_BYTES
from seqdata.storage.store import Store

FETCH_BYTES = 8 << 20  # a few seconds of a slow line, so that one broken request costs little
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
    digest = xxhash.xxh3_128()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for offset in range(0, info.bytes, FETCH_BYTES):
            block = store.read(name, offset, min(FETCH_BYTES, info.bytes - offset))
            digest.update(block)
            file.write(block)
        if digest.hexdigest() != info.hash:
            raise ContractError(f"{store}/{name}: its bytes have changed since the build; run seqdata verify")
