"""Atomic writes, hashes and ranged reads: the only module that knows how bytes reach and leave storage.

A file appears under its final name only when it is whole: it is written beside it, flushed to disk, then renamed.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import polars as pl
import pyarrow.parquet as pq
import xxhash
from fsspec.implementations.local import LocalFileSystem

from seqdata.errors import ContractError, InputError, OutputError

HASH_BLOCK = 1 << 20


def explain_write_failure(path: Path, error: OSError) -> NoReturn:
    """Raise the `OutputError` that tells a user why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OutputError(f"{path}: no space left on the device; free some and run the same command again") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise OutputError(f"{path}: not writable; choose another output folder") from error
    raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another output folder") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` at the end, or remove it on any error.

    Raises: OutputError where the file system refuses (no space, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        explain_write_failure(path, error)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        explain_write_failure(path, error)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all. Raises: OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(value: Any) -> bytes:
    """The one JSON form of our files: sorted keys, two spaces, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write `value` as JSON (sorted keys) to `path` whole or not at all. Raises: OutputError."""
    write_bytes_atomic(path, json_bytes(value))


def write_parquet_atomic(table: pl.DataFrame, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table as Parquet (zstd; floats byte-split so that slow tracks compress), whole or not at all.

    `metadata` lands in the file's own key-value metadata. The bytes depend on the table and metadata alone.
    Raises: OutputError.
    """
    arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest())
    arrow = arrow.replace_schema_metadata(dict(metadata or {}))
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    integers = [name for name, kind in table.schema.items() if kind.is_integer()]
    encodings = {
        **dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        **dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
    }
    coded = [name for name in table.columns if name not in encodings]
    with atomic_path(path) as temporary:
        pq.write_table(
            arrow,
            temporary,
            compression="zstd",
            compression_level=6,
            use_dictionary=coded,
            column_encoding=encodings,
        )


def read_parquet(path: str | Path) -> pl.DataFrame:
    """A whole Parquet table. Raises: ContractError when the file is damaged or no Parquet."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not readable as Parquet; run seqdata verify") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The key-value metadata that `write_parquet_atomic` put into a Parquet file (Arrow's own entry left out)."""
    stored = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in stored.items() if key != b"ARROW:schema"}


def xxh3_hex(data: bytes) -> str:
    """XXH3-128 of `data` as 32 hex digits: the hash of frames and shards."""
    return xxhash.xxh3_128_hexdigest(data)


def xxh3_file(path: str | Path) -> str:
    """XXH3-128 of a file as 32 hex digits, read in blocks of 1 MiB."""
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the compact JSON of `value` with sorted keys: the hash of manifests and ids."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: str | Path) -> Any:
    """Parse a JSON file. Raises: InputError when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


class Store:
    """Files below one root, local or any fsspec URL: whole writes, listings, and ranged reads.

    Names are relative to the root, with `/`. A write appears whole under its name or not at all: locally by a rename,
    on an object store because an upload is one object. Picklable.
    Convention: offsets and lengths are in bytes; the end is `offset + length`, exclusive.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.is_local = "://" not in self.root
        if self.is_local:  # a local path may hold what reads as a URL chain
            self._filesystem, self._base = LocalFileSystem(), str(Path(self.root).absolute())
        else:
            self._filesystem, self._base = fsspec.core.url_to_fs(self.root)

    def __str__(self) -> str:
        """The root as it was given."""
        return self.root

    def path(self, name: str) -> Path:
        """The path of a file of a local store. Raises: OutputError where the store is not local."""
        if not self.is_local:
            raise OutputError(f"{self.root}: is not a local folder")
        return Path(self.root) / name

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none. Raises: InputError when the store does not answer."""
        try:
            info: dict[str, Any] = self._filesystem.info(self._at(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{self.root}/{name}: cannot be read ({error})") from error
        return None if info["type"] == "directory" else int(info["size"])

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder of the store, sorted; none where it is absent."""
        try:
            found = self._filesystem.ls(self._at(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        prefix = f"{folder}/" if folder else ""
        return sorted(prefix + entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] != "directory")

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes `offset … offset + length` of a file in one request. Raises: InputError when short or absent."""
        try:
            data: bytes = self._filesystem.cat_file(self._at(name), start=offset, end=offset + length)
        except OSError as error:
            raise InputError(f"{self.root}/{name}: cannot be read ({error})") from error
        if len(data) != length:
            raise InputError(
                f"{self.root}/{name}: {length} bytes wanted at {offset}, {len(data)} there; run seqdata verify"
            )
        return data

    def read_bytes(self, name: str) -> bytes:
        """A whole file. Raises: InputError when absent."""
        try:
            data: bytes = self._filesystem.cat_file(self._at(name))
        except OSError as error:
            raise InputError(f"{self.root}/{name}: cannot be read ({error})") from error
        return data

    def remove(self, name: str) -> None:
        """Delete a file; nothing where it is absent."""
        with suppress(FileNotFoundError):
            self._filesystem.rm_file(self._at(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local temporary path whose file becomes `name` at the end, or vanishes on any error.

        Raises: OutputError where the store refuses (no space, no permission).
        """
        if self.is_local:
            with atomic_path(self.path(name)) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory(prefix="seqdata-") as folder:
            temporary = Path(folder) / "part"
            yield temporary
            try:
                self._filesystem.put_file(str(temporary), self._at(name))
            except OSError as error:
                raise OutputError(f"{self.root}/{name}: cannot be written ({error})") from error

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base
