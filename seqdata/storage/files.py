"""Atomic writing of files and JSON on the local disk, and folders by their marker file."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from seqdata.errors import InputError, OutputError
from seqdata.storage.leftovers import make_temporary


def explain_write_failure(path: Path, error: OSError) -> NoReturn:
    """Raise the `OutputError` that says why `path` could not be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OutputError(f"{path}: no space left on the device; free some and run the same command again") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise OutputError(f"{path}: not writable; choose another output folder") from error
    raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another output folder") from error


@contextmanager
def atomic_path(path: str | Path, *, in_batch: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` at the end, or remove it on any error.

    Args:
        path: The final name.
        in_batch: Whether it is one of very many files of a folder that is flushed as a whole (`flush_tree`) before it
            gets its name: then this one is not flushed, and nothing of killed writers is looked for beside it.

    Raises:
        OutputError: If the file system refuses (no space, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = make_temporary(path, sweeps=not in_batch)
    except OSError as error:
        explain_write_failure(path, error)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read; the result shall have the rights of any other new file.
        temporary.chmod(0o666 & ~_umask())
        if in_batch:
            temporary.replace(path)
        else:
            flush(temporary)
            rename_flushed(temporary, path)
    except OSError as error:
        explain_write_failure(path, error)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def scratch_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, so on its disk, which is removed at the end.

    A killed process's is removed by the next one of the same target, and by `seqdata.storage.leftovers.sweep`.

    Args:
        target: What the folder is for; it need not exist.

    Raises:
        OutputError: If the folder cannot be made.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = make_temporary(target, is_folder=True)
    except OSError as error:
        explain_write_failure(target, error)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; rename it to `path` at the end, or remove it on any error.

    Raises:
        OutputError: If the file system refuses, or `path` is there and not empty.
    """
    # Of a relative path such as "." the name is not known.
    path = Path(path).resolve()
    with scratch_folder(path) as temporary:
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            flush_tree(temporary)
            rename_flushed(temporary, path)
        except OSError as error:
            explain_write_failure(path, error)


class GrowingFile:
    r"""A file that others read while it grows: what is added is there whole, or is taken back.

    Not atomic as a whole, so only for what is read from its beginning and useful at any length.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, GrowingFile(Path(folder) / "log") as file:
        ...     file.add(b"a line\n")
        ...     (Path(folder) / "log").read_bytes()
        b'a line\n'
    """

    def __init__(self, path: str | Path) -> None:
        """Make the file, empty. Raises: OutputError, also where there is one of this name."""
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what a full disk refused would else be tried again when the file is closed.
            self._file = self.path.open("xb", buffering=0)
        except OSError as error:
            explain_write_failure(self.path, error)

    def __enter__(self) -> "GrowingFile":
        """Give the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def add(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OutputError: If the disk refuses; the file is then as long as before.
        """
        whole_bytes, rest = self._file.tell(), memoryview(data)
        try:
            while rest:
                # A disk that fills up takes a part first and refuses at the next call.
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(whole_bytes)
            self._file.seek(whole_bytes)
            explain_write_failure(self.path, error)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()


def _umask() -> int:
    """The process's file mode mask, which POSIX lets one read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def flush(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk.

    Raises:
        OSError: When the file system refuses.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # SMB, FUSE and some network disks flush files but no folders; a name may then be lost in a power cut, no more.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Force everything below a folder to disk. Raises: OSError."""
    for path in folder.rglob("*"):
        flush(path)


def rename_flushed(source: Path, target: Path) -> None:
    """Give flushed bytes their final name, and force the name to disk. Raises: OSError."""
    # The bytes must be on disk before the name is, or a power cut leaves a whole name with half a file; the folder is
    # flushed so that the name itself survives.
    source.replace(target)
    flush(target.parent)


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all.

    Raises:
        OutputError: When it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(value: Any) -> bytes:
    """Encode a value in the one JSON form of our files: sorted keys, two spaces, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write `value` as JSON (sorted keys) to `path` whole or not at all.

    Raises:
        OutputError: When it cannot be written.
    """
    write_bytes_atomic(path, json_bytes(value))


def folders_by_age(parent: str | Path, marker: str) -> list[Path]:
    """List the folders directly below `parent` that hold the file `marker`, the oldest marker first.

    Args:
        parent: Folder to look in; it may be absent.
        marker: File that makes a folder one of its kind, such as `run.json` or `versions/latest`.

    Returns:
        The folders, by the time at which their marker was last written, then by name.
    """
    markers = sorted(Path(parent).glob(f"*/{marker}"), key=lambda path: (path.stat().st_mtime_ns, str(path)))
    return [path.parents[marker.count("/")] for path in markers]


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: When it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
