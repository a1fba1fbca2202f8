"""A lock on an output folder: one build at a time, named in the error that a second one gets.

On a local disk the lock is the kernel's (flock) and ends with the process. On an object store it is an object that
names the builder and is written again every minute; one that was not written for ten minutes counts as left behind.
That is best effort: stores without exclusive creation leave a moment in which two builders may both begin, and their
clocks must agree within minutes. Parts of one build (array jobs) share the folder, each with a lock on its own part.
"""

import errno
import fcntl
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from seqdata.errors import OutputError, SeqdataError
from seqdata.storage.files import explain_write_failure
from seqdata.storage.leftovers import sweep
from seqdata.storage.store import Store

LOCK_NAME = ".build.lock"
BEAT_SECONDS = 60.0
STALE_SECONDS = 600.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Holder:
    """The process that has a lock."""

    pid: int
    host: str
    user: str
    started: str
    """When it began, in UTC."""
    what: str
    """What it builds."""
    beat: float
    """Its last sign of life, in seconds since 1970."""

    @classmethod
    def me(cls, what: str) -> "Holder":
        """The holder that this process is."""
        now = datetime.now(timezone.utc)
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return cls(os.getpid(), socket.gethostname(), user, f"{now:%Y-%m-%d %H:%M:%S} UTC", what, now.timestamp())

    @classmethod
    def parse(cls, data: bytes) -> "Holder | None":
        """Read the holder from the content of a lock, None where it names none."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            return None

    def encode(self) -> bytes:
        """Content of a lock."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def __str__(self) -> str:
        """The holder in words."""
        return f"process {self.pid} of {self.user} on {self.host} (since {self.started}, {self.what})"


@contextmanager
def claimed(store: Store, what: str, part: str = "") -> Iterator[None]:
    """Lock a store for one build.

    Args:
        store: Folder or object store.
        what: What is built, for the message of another process.
        part: Part of a build, such as `2-of-3`: parts lock the store together, each its own part alone.

    Raises:
        OutputError: If another build has the lock (it is named), or the store cannot be written.
    """
    with ExitStack() as stack:
        if not store.is_local:
            stack.enter_context(_beating(store, part, Holder.me(what)))
            yield
            return
        folder = store.path("")
        _make_folder(folder)
        stack.enter_context(_flocked(folder, LOCK_NAME, what, shared=bool(part)))
        if part:
            stack.enter_context(_flocked(folder, _part_name(part), what, shared=False))
        else:
            sweep(folder)
        yield


def refuse_busy(store: Store, what: str, part: str = "") -> None:
    """Refuse a store that another build has locked; nothing is made where there is none.

    Args:
        store: Folder or object store.
        what: See `claimed`.
        part: See `claimed`.

    Raises:
        OutputError: If another build has the lock, or the store does not answer.
    """
    if not store.is_local:
        _refuse_holders(store, _part_name(part) if part else LOCK_NAME, part)
    elif store.path(LOCK_NAME).is_file():
        with claimed(store, what, part):
            pass


@contextmanager
def part_claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Claim a part of some work that any of several jobs may do; the claim ends with the process.

    Args:
        path: Lock file of the part; it stays.
        wait: Whether to wait for a job that has it.

    Yields:
        Whether the part is this job's; True also where the file system has no locks, and a part may be made twice.

    Raises:
        OutputError: If the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        explain_write_failure(path.parent, error)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_mine = True
        except OSError as error:
            is_mine = error.errno in _NO_LOCKS
        yield is_mine
    finally:
        os.close(handle)


def _part_name(part: str) -> str:
    """Name of the lock of a part."""
    return f".build-{part}.lock"


def _make_folder(folder: Path) -> None:
    """Make the output folder. Raises: OutputError."""
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder}: is a file, not a folder; choose another --out") from error
    except OSError as error:
        explain_write_failure(folder, error)


@contextmanager
def _flocked(folder: Path, name: str, what: str, *, shared: bool) -> Iterator[None]:
    """Lock one file; it is removed at the end unless other processes share it."""
    handle = _open_locked(folder, name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        try:
            os.ftruncate(handle, 0)
            if not shared:
                os.pwrite(handle, Holder.me(what).encode(), 0)
        except OSError as error:
            explain_write_failure(folder, error)
        yield
    finally:
        # Only the last of several that share the lock gets it exclusively, and only then may the file go.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / name).unlink(missing_ok=True)
        os.close(handle)


def _open_locked(folder: Path, name: str, mode: int) -> int:
    """Open and lock a lock file. Raises: OutputError that names the holder."""
    path = folder / name
    # A holder removes its file when it ends: between opening and locking, the name may have come to mean another file,
    # and a lock on the old one would keep nobody out. Then everything is tried again.
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            explain_write_failure(folder, error)
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            holder = _local_holder(folder, os.pread(handle, 4096, 0))
            os.close(handle)
            raise OutputError(_refusal(str(folder), holder)) from error
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                raise OutputError(f"{folder}: this file system has no locks (mount it with flock)") from error
            raise
        os.close(handle)


def _local_holder(folder: Path, data: bytes) -> Holder | None:
    """The process that has a lock: the one that its content names, else one of the parts that share it."""
    for path in (None, *sorted(folder.glob(_part_name("*")))):
        with suppress(OSError):
            holder = Holder.parse(data if path is None else path.read_bytes())
            if holder is not None:
                return holder
    return None


def _refusal(location: str, holder: Holder | None) -> str:
    """The message to the second process."""
    return f"{location}: {holder or 'another process'} is building here; wait for it or choose another --out"


@contextmanager
def _beating(store: Store, part: str, holder: Holder) -> Iterator[None]:
    """Create a lock object, and write it again while the build runs."""
    name = _part_name(part) if part else LOCK_NAME
    _refuse_holders(store, name, part)
    if not store.create(name, holder.encode()):
        _refuse_holders(store, name, part)
        raise OutputError(_refusal(str(store), None))
    # A store without exclusive creation lets two processes write: the one whose name stands there afterwards has it.
    winner = Holder.parse(store.read_bytes(name))
    if winner != holder:
        raise OutputError(_refusal(str(store), winner))
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(SeqdataError, OSError), store.writing(name) as temporary:
                temporary.write_bytes(replace(holder, beat=time.time()).encode())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.remove(name)


def _refuse_holders(store: Store, mine: str, part: str) -> None:
    """Raise OutputError when a running build has a lock that excludes `mine`; locks left behind are removed."""
    for name in store.names():
        is_part = name.startswith(".build-") and name.endswith(".lock")
        if name not in (LOCK_NAME, mine) and not (is_part and not part):
            continue
        holder = Holder.parse(store.read_bytes(name))
        if holder is None or time.time() - holder.beat > STALE_SECONDS:
            store.remove(name)
            continue
        minutes = STALE_SECONDS / 60
        raise OutputError(
            f"{_refusal(str(store), holder)} (if it is gone: {minutes:g} minutes after its last sign of life its lock "
            f"ends, or delete {store}/{name})"
        )
