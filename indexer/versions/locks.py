"""Locks of readers of a version and of changes of an index: kernel locks (flock) on what is there already.

A reader holds a shared lock on its version's manifest as long as it is open, so that `gc` leaves that version alone;
the lock ends with the process. Publishing, tagging, rolling back and gc hold the `versions` folder one after another.
Where a file system has no locks (some network mounts), both go on without: what a POSIX reader has mapped stays
readable after it was removed, only what it had not opened yet is then missing.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from indexer.versions.manifest import MANIFEST


def hold(folder: Path) -> IO[bytes] | None:
    """A lease on a version folder: an open file that must be kept (closing it ends the lease).

    None when the version is not there (any more): resolve the name again, gc may just have removed it.
    """
    path = folder / MANIFEST
    try:
        file = path.open("rb")
    except OSError:
        return None
    _lock(file.fileno(), fcntl.LOCK_SH)
    try:
        # Between opening and locking the version may have been replaced: the lock must be on the file that has the name
        # now.
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
    except OSError:
        pass
    file.close()
    return None


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no reader has the version open; none can begin to until the end of the block."""
    with (folder / MANIFEST).open("rb") as file:
        yield _lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def changing(versions: Path) -> Iterator[None]:
    """Be the only one who publishes, tags, rolls back or collects in an index; others wait (milliseconds).

    Raises:
        OSError: When the folder is not there.
    """
    # The folder itself is locked: it is always there, and a lock file of its own would be one more thing to leave
    # behind.
    handle = os.open(versions, os.O_RDONLY)
    try:
        _lock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, mode: int) -> bool:
    """Lock a file; False when another holds it, True also where the file system knows no locks."""
    try:
        fcntl.flock(handle, mode)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
