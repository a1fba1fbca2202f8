"""What lies where in a zip or a tar: one table of members, made from the headers alone."""

import re
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import polars as pl

from seqdata.errors import InputError
from seqdata.storage.faults import AGAIN, read_again

# Methods of packing, by zip's own numbers; encrypted members have none that is read.
METHOD_STORED, METHOD_DEFLATED, METHOD_ENCRYPTED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, -1
_BLOCK = 512
_SCHEMA = {
    "name": pl.String,
    "bytes": pl.Int64,
    "offset": pl.Int64,
    "packed": pl.Int64,
    "method": pl.Int16,
    "crc": pl.UInt32,
}
_SKIPPED = {"name": pl.String, "message": pl.String}
# Names that cannot be at fault: an index of millions tries this cheap pattern first.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
# What the standard readers raise for damaged headers.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError,
    IndexError, KeyError, OSError,
)  # fmt: skip


@dataclass
class Index:
    """Members while headers are read.

    Attributes:
        rows: Rows of the table of members.
        skipped: What is never read, as (name, reason).
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, fault: str, *where: int | None) -> None:
        """Add one member, or leave it out for `fault` or for its name."""
        clean = "/".join(part for part in name.split("/") if part not in ("", "."))
        fault = fault or name_fault(name)
        if fault:
            self.skipped.append((name.encode(errors="replace").decode(), fault))
        else:
            self.rows.append((clean, *where))

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the members sorted by name, of equal names the last (as unpacking leaves it), and those left out."""
        rows = pl.DataFrame(self.rows, schema=_SCHEMA, orient="row")
        members = rows.unique("name", keep="last", maintain_order=True).sort("name")
        return members, pl.DataFrame(self.skipped, schema=_SKIPPED, orient="row")


def name_fault(name: str) -> str:
    """Say why a member of this name must not be read, "" where it may: it would lie outside its archive's folder.

    Example:
        >>> [name_fault(name) for name in ("a/1.jpg", "../1.jpg", "C:1.jpg")]
        ['', 'its name climbs out of the archive', 'its name is absolute']
    """
    if _PLAIN.fullmatch(name):
        return ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    # Names are judged as both systems read them: an archive made on one may be unpacked on the other.
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "its name is absolute"
    if ".." in windows.parts:
        return "its name climbs out of the archive"
    if "\0" in name or not windows.parts:
        return "its name is empty or holds a zero"
    return ""


def index_archive(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """List what an archive holds, from its headers alone.

    Args:
        path: A .zip or a plain .tar.

    Returns:
        Members, sorted by name (name; bytes; offset, where a tar's member or a zip member's local header begins;
        packed, its length in the archive; method; crc, null in a tar), and what is never read (name, message).

    Raises:
        InputError: If the archive is missing, damaged, cut short, or neither a zip nor a plain tar; it is named.
    """
    readers = {".zip": _index_zip, ".tar": _index_tar}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: neither a .zip nor a plain .tar; unpack it, or name its folder")

    def read_headers() -> Index:
        index = Index()
        reader(path, index)
        return index

    try:
        index = read_again(read_headers)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such archive") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: the archive cannot be read ({error.strerror}); {AGAIN}") from error
        what = path.suffix[1:].lower()
        raise InputError(f"{path}: not a whole {what} archive ({error or 'damaged'}); download it again") from error
    return index.tables()


def _index_zip(path: Path, index: Index) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            method = METHOD_ENCRYPTED if info.flag_bits & 1 else info.compress_type
            where = (info.file_size, info.header_offset, info.compress_size, method, info.CRC)
            index.add(info.filename, _zip_fault(info), *where)


def _zip_fault(info: zipfile.ZipInfo) -> str:
    # The upper half of the attributes is the Unix mode, where the zip was made on Unix; 0 elsewhere.
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "it is a link"
    return "" if kind in (0, stat.S_IFREG) else "it is no regular file"


def _index_tar(path: Path, index: Index) -> None:
    """Headers only: the data between them is seeked over."""
    with path.open("rb") as file:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                # tarfile remembers every member: gigabytes for millions of images.
                vars(tar)["members"].clear()
                if not info.isdir():
                    index.add(info.name, _tar_fault(info), info.size, info.offset_data, info.size, METHOD_STORED, None)
            end = tar.offset
        # The reader takes a broken header for the end; only a zero block is one.
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"cut short or damaged at byte {end:,}")


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "it is a link"
    return "" if info.isreg() and not info.issparse() else "it is no regular file"
