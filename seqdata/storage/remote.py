"""Remote stores: which file system a URL names, which faults are tried again, and the error at the end.

One rule for every store. A fault that may pass (the server answers 5xx, 408 or 429, the connection breaks, nothing
comes within the time-out, a reply is short) is tried again with growing waits; an answer that will not change (absent,
not allowed, refused) ends at once. Either way the error is one line that names the file.
"""

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import fsspec.core
from fsspec.asyn import sync

from seqdata.errors import InputError, MissingDependencyError, SeqdataError
from seqdata.storage.faults import Refusal, ShortReply

SLOWEST = 64 << 10
"""Bytes a second below which a transfer counts as stalled."""

READ_ONLY = ("http", "https")
# Schemes whose upload appears as one object or not at all; elsewhere a file shows while it grows.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss")
_S3 = ("s3", "s3a")
# As in the extras of pyproject.toml.
_S3FS, _GCSFS, _AIOHTTP = "s3fs>=2024.6", "gcsfs>=2024.6", "aiohttp>=3.9"
_PACKAGES = {"s3": _S3FS, "s3a": _S3FS, "gs": _GCSFS, "gcs": _GCSFS, "http": _AIOHTTP, "https": _AIOHTTP}
# EINVAL, EPERM and ENOSYS are how clients report a wrong request; EREMCHG is how s3fs reports a redirected bucket.
_FINAL_ERRNO = (errno.EINVAL, errno.EPERM, errno.ENOSYS, getattr(errno, "EREMCHG", errno.EINVAL))
# Errors of a program, ours or a client's: never tried again, and shown with their traceback.
_DEFECTS = (TypeError, AttributeError, AssertionError, KeyError, MemoryError)
_MADE: dict[tuple[int, str], tuple[Any, str]] = {}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long a remote store is tried."""

    tries: int = 5
    """Tries in all."""
    timeout: float = 20.0
    """Seconds without an answer after which a request ends; a transfer gets another second for every 64 KiB."""
    wait: float = 0.5
    """Seconds before the second try; doubled with each further one."""


def scheme(root: str) -> str:
    """The scheme of a URL, "" for a local path; of a chained URL the inner one.

    Example:
        >>> scheme("simplecache::s3://bucket/city"), scheme("/data/city")
        ('s3', '')
    """
    return root.rpartition("::")[2].partition("://")[0] if "://" in root else ""


def without_password(root: str) -> str:
    """A URL with the password replaced by ***, as it may be printed and stored."""
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:***@", root)


def filesystem(root: str) -> tuple[Any, str]:
    """Give the file system of a URL in this process, and the path of the root in it.

    Raises:
        MissingDependencyError: If a package is missing; the message names it.
        InputError: If the URL cannot be opened.
    """
    # One that a parent process made hangs: its event loop does not survive the fork. Nor may it ever be freed in the
    # child, where closing its connections would disturb the parent's: hence it is stored, by process.
    key = os.getpid(), root
    if key not in _MADE:
        _MADE[key] = _make(root)
    return _MADE[key]


def _make(root: str) -> tuple[Any, str]:
    """Make the file system of a URL."""
    kind = scheme(root)
    try:
        if root.startswith(("http://", "https://")):
            from seqdata.storage.http import RangedHTTP  # optional: aiohttp

            return RangedHTTP(skip_instance_cache=True), root.rstrip("/")
        # A cached listing would not show what another job has just written.
        options = {"use_listings_cache": False} if kind in OBJECT_STORES else {}
        files, base = fsspec.core.url_to_fs(root, skip_instance_cache=True, **options)
        if kind in _S3:
            # s3fs and botocore try again on their own, each several times: up to a hundred requests for one of ours.
            files.retries, files.config_kwargs = 1, {"retries": {"max_attempts": 0}, **files.config_kwargs}
        return files, base.rstrip("/")
    except ImportError as error:
        package = _PACKAGES.get(kind)
        install = f"pip install '{package}'" if package else f"install its package ({error})"
        raise MissingDependencyError(f"{without_password(root)}: {kind}:// needs a package: {install}") from error
    except ValueError as error:
        raise InputError(f"{without_password(root)}: not a URL that can be opened ({error})") from error


def call(files: Any, method: str, *arguments: Any, seconds: float, **options: Any) -> Any:
    """Send one request to a file system; an asynchronous one ends after `seconds`."""
    coroutine = getattr(files, f"_{method}", None) if files.async_impl else None
    if coroutine is None:
        return getattr(files, method)(*arguments, **options)
    # fsspec's own synchronous methods take no time-out and would wait for ever on a silent server.
    return sync(files.loop, coroutine, *arguments, timeout=seconds, **options)


def persist(operation: Callable[[], Result], where: str, patience: Patience, kind: type[SeqdataError]) -> Result:
    """Run `operation`, again as long as its fault may pass.

    Args:
        operation: What to try.
        where: Name of the file for the message.
        patience: How often and how long.
        kind: Error to raise at the end; it says what happened, after how many tries, and what to do.

    Raises:
        FileNotFoundError: If the file is absent.
    """
    for number in range(1, patience.tries + 1):
        try:
            return operation()
        except (SeqdataError, FileNotFoundError, *_DEFECTS):
            raise
        except Exception as error:
            advice = _final(error)
            if advice or number == patience.tries:
                tries = f" ({number} tries)" if number > 1 else ""
                advice = advice or "try again later, or copy the dataset to a local disk"
                raise kind(f"{where}: {_happened(error, patience)}{tries}; {advice}") from error
            # Without the random part all workers of a job would come back at the same moment.
            time.sleep(patience.wait * 2 ** (number - 1) * (0.5 + random.random()))  # noqa: S311
    raise AssertionError("patience has no tries")


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of any of the clients, None where there is none."""
    answer = getattr(error.__cause__, "response", None)  # botocore's, of which s3fs makes an OSError
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    for name in ("status", "code"):
        if str(getattr(error, name, "")).isdigit():
            return int(getattr(error, name))
    return None


def _final(error: Exception) -> str:
    """Advice for an error that will not pass by itself, "" for one that may."""
    status = status_of(error)
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return ""
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return (
            "not allowed, or absent from a store that does not say so: check the URL and the credentials "
            "(such as AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if isinstance(error, Refusal):
        return "serve it with a server that answers byte ranges, or copy the dataset to a local disk"
    if status in (408, 429) or (status is not None and status >= 500):
        return ""
    if status is not None or isinstance(error, ValueError | NotImplementedError):
        return "the store refuses this request: check the URL"
    if isinstance(error, OSError) and error.errno in _FINAL_ERRNO:
        return "the store refuses this request: check the URL"
    return ""


def _happened(error: Exception, patience: Patience) -> str:
    """What went wrong, in one line."""
    status = status_of(error)
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return f"stalled (no answer within {patience.timeout:g} s, or under {SLOWEST >> 10} KiB/s)"
    text = (str(getattr(error, "message", "") or error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, ShortReply | Refusal):
        return text
    return f"the server answered {status} ({text})" if status else f"{type(error).__name__}: {text}"
