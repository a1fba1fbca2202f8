"""Temporary files and folders beside what they will become, and those that killed processes left.

A temporary file is locked by the kernel while its writer runs, and the lock ends with the process however that ends: so
a file that nobody has locked was left behind, on this machine or on another one that shares the disk.
"""

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SUFFIX = ".tmp"
# What `tempfile` makes of a prefix and the suffix: nothing else that ends in .tmp is ours to remove.
_MADE = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(SUFFIX)}")


def make_temporary(target: Path, *, is_folder: bool = False, sweeps: bool = True) -> tuple[Path, int]:
    """Make an empty temporary file or folder beside `target`, and remove what killed writers of `target` left there.

    Args:
        target: The name that it will get.
        is_folder: Whether it is a folder.
        sweeps: Whether to look for left-overs, which lists the folder.

    Returns:
        Its path, and an open handle that holds the lock; the caller closes it.

    Raises:
        OSError: If the file system refuses.
    """
    if sweeps:
        _sweep_beside(target)
    while True:
        prefix = f".{target.name}."
        if is_folder:
            path = Path(tempfile.mkdtemp(SUFFIX, prefix, target.parent))
            handle = os.open(path, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(SUFFIX, prefix, target.parent)
            path = Path(name)
        # Between making and locking it, another process may have taken it for left behind: then another is made.
        if _lock(handle) and path.exists():
            return path, handle
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file or folder; False where another process has it. A file system without locks grants all."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove every temporary file and folder below `folder` that no running process is writing."""
    with suppress(OSError):
        for path in list(folder.rglob(f".*{SUFFIX}")):
            if _MADE.fullmatch(path.name):
                _remove_stale(path)


def _sweep_beside(target: Path) -> None:
    # Two dots: a writer that takes a path, and is given a temporary one, makes another beside that.
    pattern = re.compile(rf"\.+{re.escape(target.name)}\..*")
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(target.parent) if pattern.fullmatch(entry.name)]
        for name in filter(_MADE.fullmatch, names):
            _remove_stale(target.parent / name)


def _remove_stale(path: Path) -> None:
    """Remove a temporary file or folder unless its writer still runs."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
