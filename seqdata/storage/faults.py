"""Faults that may pass: answers of a remote store that are not the requested bytes, and errors of a disk."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What a network disk answers while its server restarts or a cable is loose: no file is to blame."""
WAITS_SECONDS = (0.05, 0.25, 1.0)
"""Before the second, third and fourth try; a guess: longer than a retransmission, shorter than patience."""

AGAIN = "run the same command again when the disk answers; what is finished stays"
"""What to do about an error of a disk that did not pass."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that another try will not change; its text says what it was."""


class ShortReply(OSError):  # noqa: N818 - it is an answer
    """Fewer bytes than requested, which another try may mend."""


def passing_error(error: BaseException | None) -> OSError | None:
    """Find the error of the disk behind an error, None where there is none that may pass.

    Readers of archives hide it: `zipfile` answers an unreadable end of a zip with "not a zip file".

    Example:
        >>> passing_error(OSError(errno.EIO, "Input/output error")) is None
        False
        >>> passing_error(FileNotFoundError(errno.ENOENT, "No such file")) is None
        True
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return error
        error = error.__cause__ or error.__context__
    return None


def raise_passing(error: BaseException) -> None:
    """Raise the disk's error that is behind `error`, if there is one: no file may be taken for absent because of it."""
    disk_error = passing_error(error)
    if disk_error is not None:
        raise disk_error


def read_again(operation: Callable[[], Result]) -> Result:
    """Run something that reads from a disk, four times at most where an error of the disk may pass.

    Args:
        operation: Opens what it reads by itself: after ESTALE an open file stays unreadable.

    Returns:
        Its result.

    Raises:
        OSError: The disk's own error, if it did not pass; every other exception of `operation`, at once.
    """
    for seconds in WAITS_SECONDS:
        try:
            return operation()
        except Exception as error:
            if passing_error(error) is None:
                raise
        time.sleep(seconds)
    try:
        return operation()
    except Exception as error:
        disk_error = passing_error(error)
        if disk_error is None or disk_error is error:
            raise
        raise disk_error from error
