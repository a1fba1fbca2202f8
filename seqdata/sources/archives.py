"""Members of zips, tars and folders, read in place: nothing is unpacked to disk.

Convention: a member's name is its path with `/` below the archive or folder, without a leading `./`. Links, devices,
absolute names and names with `..` are never members of an archive: they stand in `skipped`. Links in a folder are the
user's own and are followed. All classes are immutable, hence safe under threads, and pickle with their index.
"""

import struct
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import polars as pl

from seqdata.errors import InputError
from seqdata.frames.images import BadImageError
from seqdata.sources.archive_index import METHOD_DEFLATED, METHOD_ENCRYPTED, METHOD_STORED, index_archive, name_fault
from seqdata.sources.files import GREATEST_FILE, inside, read_image_file, reading, unreadable, walk
from seqdata.storage.faults import read_again

GREATEST_MEMBER = GREATEST_FILE
# Of inflated to packed bytes, for members of more than a megabyte.
GREATEST_RATIO = 200
_RATIO_FROM = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_MEMBERS = {"name": pl.String, "bytes": pl.Int64}
_SKIPPED = {"name": pl.String, "message": pl.String}


class FileTree(Protocol):
    """A place with named files: an archive, a folder, or several of them laid over one another."""

    def members(self, under: str = "") -> pl.DataFrame:
        """Files below the folder `under` ("" is all): columns name and bytes, sorted by name."""
        ...

    def skipped(self) -> pl.DataFrame:
        """What is there but is never read (links, names that lead outside): columns name and message."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of one member.

        Raises:
            KeyError: When there is none.
            BadImageError: When it cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class Archive:
    """One zip or plain tar.

    Attributes:
        path: The archive.
        index: Where each member lies (see `seqdata.sources.archive_index.index_archive`).
        left_out: What is never read: columns name and message.
    """

    path: Path
    index: pl.DataFrame
    left_out: pl.DataFrame

    def names(self) -> dict[str, int]:
        """Map every member's name to its size in bytes; `members` takes less memory for hundreds of thousands."""
        return dict(self.index.select("name", "bytes").iter_rows())

    def members(self, under: str = "") -> pl.DataFrame:
        """List members below the folder `under`: columns name and bytes, sorted by name."""
        rows = self.index.select("name", "bytes")
        return rows.filter(pl.col("name").str.starts_with(f"{under}/")) if under else rows

    def skipped(self) -> pl.DataFrame:
        """Links, devices and names that lead outside: columns name and message."""
        return self.left_out

    def read(self, name: str) -> bytes:
        """Read one member, by one ranged read.

        Raises:
            KeyError: If there is none.
            BadImageError: `unreadable_image`, if it is damaged, packed in a way that is not read here, or announces
                more than GREATEST_MEMBER bytes or GREATEST_RATIO times its packed size.
            FileNotFoundError: If the archive itself has gone.
        """
        names = self.index["name"]
        # The index is sorted by name: no dictionary of millions of names travels to each worker.
        row = bisect_left(names, name)
        if row == len(names) or names[row] != name:
            raise KeyError(f"{name} is not in {self.path}")
        entry = self.index.row(row, named=True)
        _refuse_bomb(entry)
        with reading():
            return read_again(partial(self._member, entry))

    def _member(self, entry: dict[str, Any]) -> bytes:
        with self.path.open("rb") as file:
            return _exactly(file, entry["offset"], entry["bytes"]) if entry["crc"] is None else _unzip(file, entry)


def _refuse_bomb(entry: dict[str, Any]) -> None:
    """Raise BadImageError for a member that few bytes blow up to very many, or that is packed in an unknown way."""
    size, packed = entry["bytes"], entry["packed"]
    if size > GREATEST_MEMBER or packed > GREATEST_MEMBER:
        raise BadImageError("unreadable_image", f"{max(size, packed):,} bytes are more than {GREATEST_MEMBER:,}")
    if size > _RATIO_FROM and size > GREATEST_RATIO * packed:
        raise BadImageError("unreadable_image", f"{packed:,} packed bytes announce {size:,}: a decompression bomb")
    if entry["method"] == METHOD_ENCRYPTED:
        raise BadImageError("unreadable_image", "the zip member is encrypted")
    if entry["method"] not in (METHOD_STORED, METHOD_DEFLATED):
        raise BadImageError("unreadable_image", f"zip method {entry['method']} is not read in place; unpack the zip")


def _exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise unreadable(f"the archive ends after {len(data):,} of {length:,} bytes")
    return data


def _unzip(file: BinaryIO, entry: dict[str, Any]) -> bytes:
    """Inflate one zip member, never beyond the size it announces, and check its CRC."""
    header = _exactly(file, entry["offset"], _LOCAL_HEADER.size)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if magic != _LOCAL_MAGIC:
        raise unreadable("no zip member begins where the directory says")
    data = _exactly(file, entry["offset"] + _LOCAL_HEADER.size + name_length + extra_length, entry["packed"])
    if entry["method"] == METHOD_DEFLATED:
        # zlib may write one byte more than announced: what is longer shows, and never fills the memory.
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry["bytes"] + 1)
    if len(data) != entry["bytes"] or zlib.crc32(data) != entry["crc"]:
        raise unreadable("bytes and CRC are not those that the zip announces")
    return data


def open_archive(path: Path) -> Archive:
    """Open the zip or tar at `path`; its headers are read once a process, again only when the file changed.

    Raises:
        InputError: If the archive is missing, damaged, cut short, or neither a .zip nor a plain .tar; it is named.
    """
    try:
        status = read_again(path.stat)
    except OSError as error:
        raise InputError(f"{path}: the archive cannot be read ({error.strerror})") from error
    return _opened(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _opened(path: Path, size: int, changed: int) -> Archive:
    """Read the headers; `size` and `changed` are arguments so that the cache forgets an archive that was replaced."""
    return Archive(path, *index_archive(path))


@dataclass(frozen=True)
class Folder:
    """An unpacked folder as a store."""

    root: Path

    def members(self, under: str = "") -> pl.DataFrame:
        """List files below the folder `under`, each time anew: columns name and bytes, sorted by name.

        A name that is no UTF-8 is passed over: the published dumps, which are read this way, have none.

        Raises:
            KeyError: If `under` leads outside.
            InputError: If a folder cannot be read.
        """
        files = walk(inside(self.root, under), f"{under}/" if under else "")
        rows = [(file.name, file.bytes) for file in files if file.bytes is not None and not name_fault(file.name)]
        return pl.DataFrame(rows, schema=_MEMBERS, orient="row").sort("name")

    def skipped(self) -> pl.DataFrame:
        """Return an empty table: a folder's links are the user's own."""
        return pl.DataFrame(schema=_SKIPPED)

    def read(self, name: str) -> bytes:
        """Read one file.

        Raises:
            KeyError: When there is none.
            BadImageError: When it cannot be read.
        """
        path = inside(self.root, name)
        if not read_again(path.is_file):
            raise KeyError(f"{name} is not in {self.root}")
        return read_image_file(path)


@dataclass(frozen=True)
class Overlay:
    """Stores laid over one another, as if unpacked in this order into one folder: of equal names the last wins."""

    layers: tuple[FileTree, ...]

    def members(self, under: str = "") -> pl.DataFrame:
        """List files of all layers below `under`: columns name and bytes (of the uppermost), sorted by name."""
        parts = [pl.DataFrame(schema=_MEMBERS), *(layer.members(under) for layer in self.layers)]
        return pl.concat(parts).unique("name", keep="last", maintain_order=True).sort("name")

    def skipped(self) -> pl.DataFrame:
        """List what the layers leave out: columns name and message."""
        return pl.concat([pl.DataFrame(schema=_SKIPPED), *(layer.skipped() for layer in self.layers)])

    def read(self, name: str) -> bytes:
        """Read one member of the uppermost layer that has it; a damaged one is not replaced from below.

        Raises:
            KeyError: If no layer has it.
            BadImageError: If it cannot be read.
        """
        for layer in reversed(self.layers):
            try:
                return layer.read(name)
            except KeyError:
                continue
        raise KeyError(f"{name} is in none of {len(self.layers)} archives and folders")
