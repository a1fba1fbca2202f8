"""Atomic writes, hashes and ranged reads: the only module that knows how bytes reach and leave storage.

A file appears under its final name only when it is whole: it is written beside it, flushed to disk, then renamed.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import polars as pl
import pyarrow.parquet as pq
import xxhash
from fsspec.implementations.local import LocalFileSystem

from seqdata.errors import ContractError, InputError, OutputError, SeqdataError
from seqdata.remote import (
    OBJECT_STORES,
    READ_ONLY,
    SLOWEST,
    Patience,
    Refusal,
    ShortReply,
    call,
    filesystem,
    persist,
    scheme,
    status_of,
    without_password,
)

HASH_BLOCK = 1 << 20
RANGE_NOT_SATISFIABLE = 416
_LOCAL = LocalFileSystem()

Result = TypeVar("Result")


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
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        explain_write_failure(path, error)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def flush(path: Path) -> None:
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
    """Write a table as Parquet, whole or not at all; see `parquet_writer`. Raises: OutputError."""
    with atomic_path(path) as temporary, parquet_writer(temporary, table.schema, metadata) as write:
        write(table)


@contextmanager
def parquet_writer(
    path: str | Path, schema: Mapping[str, pl.DataType], metadata: Mapping[str, str] | None = None
) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield what appends tables of one schema to a Parquet file (zstd; floats byte-split so that slow tracks compress).

    Each table begins a row group. `metadata` lands in the file's own key-value metadata. The bytes depend on the tables
    and the metadata alone. Not atomic: give it a path of `atomic_path` or `Store.writing`. Raises: OSError.
    """
    level = pl.CompatLevel.oldest()
    empty = pl.DataFrame(schema=dict(schema)).to_arrow(compat_level=level)
    arrow = empty.schema.with_metadata(dict(metadata or {}))
    encodings = {name: "BYTE_STREAM_SPLIT" for name, kind in schema.items() if kind.is_float()}
    encodings |= {name: "DELTA_BINARY_PACKED" for name, kind in schema.items() if kind.is_integer()}
    coded = [name for name in schema if name not in encodings]
    with pq.ParquetWriter(
        path, arrow, compression="zstd", compression_level=6, use_dictionary=coded, column_encoding=encodings
    ) as writer:
        yield lambda table: writer.write_table(table.to_arrow(compat_level=level).cast(arrow))


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

    Names are relative to the root, with `/`. A write appears whole under its name or not at all: by a rename, or on an
    object store because an upload is one object. Remote faults that may pass are tried again, as `patience` says.
    Picklable, and safe in a forked process: each process makes its own connections. (What `memory://` holds belongs to
    one process; a fork copies it.)
    Convention: offsets and lengths are in bytes; the end is `offset + length`, exclusive.
    """

    def __init__(self, root: str | Path, patience: Patience | None = None) -> None:
        self.root = _unfolded(root)
        self.is_local = "://" not in self.root
        self.patience = patience or Patience()

    def __str__(self) -> str:
        """The root as it was given, a password in it left out."""
        return without_password(self.root)

    def path(self, name: str) -> Path:
        """The path of a file of a local store. Raises: InputError where the store is not local."""
        if not self.is_local:
            raise InputError(f"{self}: is not a local folder")
        return Path(self.root) / name

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none. Raises: InputError when the store does not answer."""
        try:
            info: dict[str, Any] = self._persist(lambda: self._call("info", self._at(name)), name, InputError)
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else int(info["size"])

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder of the store, sorted; none where it is absent.

        Raises: InputError when the store does not answer.
        """
        try:
            found = self._persist(lambda: self._call("ls", self._at(folder), detail=True), folder, InputError)
        except FileNotFoundError:
            return []
        prefix = f"{folder}/" if folder else ""
        return sorted(prefix + entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] != "directory")

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes `offset … offset + length` of a file, in one request unless the reply is short.

        Raises: InputError when the file is absent, ends before, or cannot be had.
        """
        data = b""

        def rest() -> bytes:
            nonlocal data
            start, stop = offset + len(data), offset + length
            data += self._range(name, start, stop)
            if len(data) < length:
                self._check_end(name, offset, length)
                raise ShortReply(f"{length} bytes wanted at {offset}, only {len(data)} came")
            return data

        return self._reading(name, rest) if length else data

    def read_bytes(self, name: str) -> bytes:
        """A whole file. Raises: InputError when it is absent or cannot be had."""
        size = self.size(name)
        if size is None:
            raise InputError(f"{self}/{name}: no such file; run seqdata verify, or check the name")
        return self.read(name, 0, size)

    def read_json(self, name: str) -> Any:
        """A JSON file, parsed. Raises: InputError when absent or not JSON."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise InputError(f"{self}/{name}: not readable as JSON ({error})") from error

    def remove(self, name: str) -> None:
        """Delete a file; nothing where it is absent. Raises: OutputError when the store refuses."""
        with suppress(FileNotFoundError):
            self._persist(lambda: self._call("rm_file", self._at(name)), name, OutputError)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file only where none stands, as far as the store can tell; whether it was written.

        Raises: OutputError where the store refuses.
        """
        if self.size(name) is not None:
            return False
        try:
            self._call("pipe_file", self._at(name), data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:  # clients name a lost race and a store without exclusive creation in many ways
            if status_of(error) in (409, 412):
                return False
            with self.writing(name) as temporary:
                temporary.write_bytes(data)
        return True

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local temporary path whose file becomes `name` at the end, or vanishes on any error.

        Raises: OutputError where the store refuses (no space, no permission, read-only) or what it holds afterwards
        has another size.
        """
        if self.is_local:
            with atomic_path(self.path(name)) as temporary:
                yield temporary
            return
        if scheme(self.root) in READ_ONLY:
            raise OutputError(f"{self}: is read-only; write to a folder or to an object store such as s3:// or gs://")
        with tempfile.TemporaryDirectory(prefix="seqdata-") as folder:
            temporary = Path(folder) / "part"
            try:
                yield temporary
            except OSError as error:
                explain_write_failure(temporary, error)
            self._upload(temporary, name)

    def _upload(self, local: Path, name: str) -> None:
        size = local.stat().st_size

        def put() -> None:
            self._put(local, name, size)
            stored = self._call("info", self._at(name))["size"]
            if stored != size:
                raise ShortReply(f"{size} bytes were sent, {stored} are stored")

        try:
            self._persist(put, name, OutputError)
        except FileNotFoundError as error:
            raise OutputError(f"{self}/{name}: cannot be written: no such bucket or folder; make it first") from error

    def _put(self, local: Path, name: str, size: int) -> None:
        """Send a file: as one object, or where a file shows while it grows, under another name first."""
        target = self._at(name)
        if scheme(self.root) in OBJECT_STORES:
            self._call("put_file", str(local), target, size=size)
            return
        beside = f"{target}.{os.getpid()}.tmp"
        self._call("makedirs", target.rpartition("/")[0], exist_ok=True)
        try:
            self._call("put_file", str(local), beside, size=size)
            self._call("mv", beside, target)
        except BaseException:
            with suppress(OSError):
                self._call("rm_file", beside)
            raise

    def _range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes that one request brings; none where the file ends before `start`."""
        try:
            data: bytes = self._call("cat_file", self._at(name), start=start, end=stop, size=stop - start)
        except Exception as error:
            if status_of(error) != RANGE_NOT_SATISFIABLE:
                raise
            return b""
        if len(data) > stop - start:
            raise Refusal(f"{stop - start} bytes wanted at {start}, {len(data)} came: it ignores byte ranges")
        return data

    def _check_end(self, name: str, offset: int, length: int) -> None:
        """Raise InputError when a file ends before what was asked for; asking again would not help."""
        size = self._call("info", self._at(name))["size"]
        if size < offset + length:
            raise InputError(
                f"{self}/{name}: {length} bytes wanted at {offset}, the file ends at {size}: it is truncated; "
                "run seqdata verify"
            )

    def _reading(self, name: str, operation: Callable[[], Result]) -> Result:
        try:
            return self._persist(operation, name, InputError)
        except FileNotFoundError as error:
            raise InputError(f"{self}/{name}: no such file; run seqdata verify, or check the name") from error

    def _persist(self, operation: Callable[[], Result], name: str, kind: type[SeqdataError]) -> Result:
        """The result of `operation` on a file, tried again where it is remote. Raises: FileNotFoundError, and `kind`.

        A local disk that fails once will fail again.
        """
        where = f"{self}/{name}" if name else str(self)
        if not self.is_local:
            return persist(operation, where, self.patience, kind)
        try:
            return operation()
        except NotADirectoryError as error:
            raise FileNotFoundError(where) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise kind(f"{where}: {error.strerror or error}; check its permissions and the disk") from error

    def _call(self, method: str, *arguments: Any, size: int = 0, **options: Any) -> Any:
        """One request; `size` is how many bytes it moves."""
        seconds = self.patience.timeout + size / SLOWEST
        return call(self._own()[0], method, *arguments, seconds=seconds, **options)

    def _at(self, name: str) -> str:
        base = self._own()[1]
        return f"{base}/{name}" if name else base

    def _own(self) -> tuple[Any, str]:
        """File system and root path of this process."""
        return (_LOCAL, str(Path(self.root).absolute())) if self.is_local else filesystem(self.root)


def _unfolded(root: str | Path) -> str:
    """A root as text: a URL that `Path` has folded (`s3:/bucket`) gets its slashes back, a file URL is a path."""
    text = re.sub(r"^file:/+", "/", str(root))
    if isinstance(root, Path):
        text = re.sub(r"^([a-z][a-z0-9]+):/(?=[^/])", r"\1://", text)
    return re.sub(r"(?<=[^/:])/+$", "", text)
