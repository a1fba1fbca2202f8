"""Stores: whole writes, listings and ranged reads below one root, on the local disk or behind any fsspec URL.

A file appears under its final name only when it is whole: it is written beside it, flushed to disk, then renamed.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from seqdata.errors import InputError, OutputError, SeqdataError
from seqdata.storage.faults import AGAIN, Refusal, ShortReply, passing_error, read_again
from seqdata.storage.files import atomic_path, explain_write_failure
from seqdata.storage.remote import (
    OBJECT_STORES,
    READ_ONLY,
    SLOWEST,
    Patience,
    call,
    filesystem,
    persist,
    scheme,
    status_of,
    without_password,
)

RANGE_NOT_SATISFIABLE = 416
_LOCAL = LocalFileSystem()

Result = TypeVar("Result")


class Store:
    """Files below one root, local or any fsspec URL.

    Names are relative to the root, with `/`. A write appears whole under its name or not at all: by a rename, or on an
    object store because an upload is one object. Remote faults that may pass are tried again, as `patience` says, and
    so are reads of a disk (`read_again`). With `is_output` a place that cannot be read is an OutputError, exit code 5,
    elsewhere an InputError, 3.
    A store can be pickled and is safe in a forked process: each process makes its own connections. (The content of
    `memory://` belongs to one process; a fork copies it.)

    Convention: offsets and lengths are in bytes; the end is `offset + length`, exclusive.
    """

    def __init__(self, root: str | Path, patience: Patience | None = None, *, is_output: bool = False) -> None:
        self.root = _unfolded(root)
        self.is_local = "://" not in self.root
        self.patience = patience or Patience()
        # What a command writes to is its output also where it reads in it: the exit code says so.
        self.unreadable: type[SeqdataError] = OutputError if is_output else InputError

    def __str__(self) -> str:
        """The root, without a password that it may contain."""
        return without_password(self.root)

    def path(self, name: str) -> Path:
        """The path of a file of a local store.

        Raises:
            InputError: Where the store is not local.
        """
        if not self.is_local:
            raise InputError(f"{self}: is not a local folder")
        return Path(self.root) / name

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none.

        Raises:
            InputError: When the store does not answer.
        """
        try:
            info: dict[str, Any] = self._persist(lambda: self._call("info", self._at(name)), name, self.unreadable)
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else int(info["size"])

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder of the store, sorted; none where it is absent.

        Raises:
            InputError: When the store does not answer.
        """
        return self._entries(folder, is_folder=False)

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly in a folder of the store, sorted; none where it is absent.

        Raises:
            InputError: When the store does not answer.
        """
        return self._entries(folder, is_folder=True)

    def _entries(self, folder: str, *, is_folder: bool) -> list[str]:
        """Names directly in a folder, of its folders or of all else."""
        try:
            entries = self._persist(lambda: self._call("ls", self._at(folder), detail=True), folder, self.unreadable)
        except FileNotFoundError:
            return []
        prefix = f"{folder}/" if folder else ""
        matching = (entry for entry in entries if (entry["type"] == "directory") == is_folder)
        return sorted(prefix + entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in matching)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read a range of a file, in one request unless the reply is short.

        Args:
            name: The file.
            offset: First byte.
            length: Number of bytes.

        Raises:
            InputError: If the file is absent, ends before the range does, or cannot be read.
        """
        data = b""

        def read_rest() -> bytes:
            # A try after a short reply requests only what is still missing.
            nonlocal data
            start, stop = offset + len(data), offset + length
            data += self._range(name, start, stop)
            if len(data) < length:
                self._check_end(name, offset, length)
                raise ShortReply(f"{length} bytes wanted at {offset}, only {len(data)} came")
            return data

        return self._reading(name, read_rest) if length else data

    def read_bytes(self, name: str) -> bytes:
        """Read a whole file.

        Raises:
            InputError: When it is absent or cannot be read.
        """
        size = self.size(name)
        if size is None:
            raise InputError(f"{self}/{name}: no such file; run seqdata verify, or check the name")
        return self.read(name, 0, size)

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            InputError: When it is absent or not JSON.
        """
        return parse_json(self.read_bytes(name), f"{self}/{name}")

    def remove(self, name: str) -> None:
        """Delete a file; nothing where it is absent.

        Raises:
            OutputError: When the store refuses.
        """
        with suppress(FileNotFoundError):
            self._persist(lambda: self._call("rm_file", self._at(name)), name, OutputError)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file only where there is none, as far as the store can tell; return whether it was written.

        Raises:
            OutputError: If the store refuses.
        """
        if self.size(name) is not None:
            return False
        try:
            self._call("pipe_file", self._at(name), data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            # Clients report a lost race, and a store that cannot create exclusively, by many kinds of errors. 409 and
            # 412 are a lost race; anything else is taken for a store that can only write plainly.
            if status_of(error) in (409, 412):
                return False
            with self.writing(name) as temporary:
                temporary.write_bytes(data)
        return True

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local temporary path whose file becomes `name` at the end, or vanishes on any error.

        Raises:
            OutputError: If the store refuses (no space, no permission, read-only), or has a file of another size
                afterwards.
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
        """Send a file and check its size. Raises: OutputError."""
        size = local.stat().st_size

        def put() -> None:
            self._put(local, name, size)
            stored_size = self._call("info", self._at(name))["size"]
            if stored_size != size:
                raise ShortReply(f"{size} bytes were sent, {stored_size} are stored")

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
        """The bytes of one request; none where the file ends before `start`."""
        if self.is_local:
            # Python's own file: fsspec's takes five times as long to open, as much as a fifth of decoding a frame.
            with open(self._at(name), "rb") as file:  # noqa: PTH123
                file.seek(start)
                return file.read(stop - start)
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
        """Raise InputError when a file ends before the requested range; another try would not help."""
        size = self._call("info", self._at(name))["size"]
        if size < offset + length:
            raise InputError(
                f"{self}/{name}: {length} bytes wanted at {offset}, the file ends at {size}: it is truncated; "
                "run seqdata verify"
            )

    def _reading(self, name: str, operation: Callable[[], Result]) -> Result:
        """The result of a read. Raises: InputError, also where the file is absent."""
        try:
            return self._persist(operation, name, self.unreadable)
        except FileNotFoundError as error:
            raise InputError(f"{self}/{name}: no such file; run seqdata verify, or check the name") from error

    def _persist(self, operation: Callable[[], Result], name: str, kind: type[SeqdataError]) -> Result:
        """Run `operation` on a file, again where a remote fault may pass. Raises: FileNotFoundError, and `kind`."""
        where = f"{self}/{name}" if name else str(self)
        if not self.is_local:
            return persist(operation, where, self.patience, kind)
        try:
            return read_again(operation)
        except NotADirectoryError as error:
            raise FileNotFoundError(where) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            advice = AGAIN if passing_error(error) else "check its permissions and the disk"
            raise kind(f"{where}: {error.strerror or error}; {advice}") from error

    def _call(self, method: str, *arguments: Any, size: int = 0, **options: Any) -> Any:
        """One request; `size` is how many bytes it moves."""
        seconds = self.patience.timeout + size / SLOWEST
        return call(self._own()[0], method, *arguments, seconds=seconds, **options)

    def _at(self, name: str) -> str:
        """A name as the file system knows it."""
        base = self._own()[1]
        return f"{base}/{name}" if name else base

    def _own(self) -> tuple[Any, str]:
        """File system and root path of this process."""
        return (_LOCAL, self._absolute_root()) if self.is_local else filesystem(self.root)

    def _absolute_root(self) -> str:
        """The folder of a local store; in text, because a `Path` costs more than a read of the page cache."""
        return self.root if self.root.startswith("/") else f"{os.getcwd()}/{self.root}"  # noqa: PTH109


def parse_json(data: bytes, file: str) -> Any:
    """Parse the JSON that a file holds.

    Raises:
        InputError: When it is none; `file` is named.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not readable as JSON ({error})") from error


def _unfolded(root: str | Path) -> str:
    """A root as text: a URL that `Path` has folded (`s3:/bucket`) gets its slashes back, a file URL is a path."""
    text = re.sub(r"^file:/+", "/", str(root))
    # Typer gives arguments as Path, which takes the second slash of a URL for a repetition.
    if isinstance(root, Path):
        text = re.sub(r"^([a-z][a-z0-9]+):/(?=[^/])", r"\1://", text)
    return re.sub(r"(?<=[^/:])/+$", "", text)
