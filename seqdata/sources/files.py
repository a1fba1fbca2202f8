"""Find and read the image files of a dump."""

import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from seqdata.frames.images import BadImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

_RESOURCE_FORKS = "__MACOSX"

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip

"""What a damaged, encrypted or unknown zip member raises; NotImplementedError is a RuntimeError."""

_UNREADABLE = {None, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EBADMSG}

"""errno of an OSError that is the one file's fault (decoders give none); the others are the machine's."""


def find_images(folder: Path, pattern: str) -> list[tuple[str, int]]:
    """Image files below `folder` that match the glob `pattern`, sorted: path below `folder` and size in bytes."""
    if not folder.is_dir():
        return []
    names = ((path.relative_to(folder).as_posix(), path) for path in folder.glob(pattern))
    sizes = ((name, _file_size(path)) for name, path in names if is_image(name))
    return sorted((name, size) for name, size in sizes if size is not None)


def _file_size(path: Path) -> int | None:
    """Size of a file in bytes, None where there is none: a dangling link, or a folder that is named like an image."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_text(name: str) -> bool:
    """Whether a path of the file system is UTF-8, so that a table can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_image(name: str) -> bool:
    """Whether a path (with /) is one of an image that the build can read; hidden files and resource forks are none."""
    *folders, base = name.split("/")
    return base.lower().endswith(IMAGE_SUFFIXES) and not base.startswith(".") and _RESOURCE_FORKS not in folders


def image_names(column: str) -> pl.Expr:
    """Whether each path of a column is one of an image, as `is_image`."""
    path = pl.col(column)
    suffixed = path.str.contains(r"(?i)\.(jpe?g|png)$")
    return suffixed & ~path.str.contains(r"(^|/)\.[^/]*$") & ~path.str.contains(rf"(^|/){_RESOURCE_FORKS}/")


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Around the reading of one image: its own damage becomes a BadImageError, what it is not to blame for stays.

    Raises: BadImageError (`unreadable_image`) for a damaged zip member, a bad disk block or a forbidden file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise BadImageError("unreadable_image", f"the file cannot be read ({error.strerror or error})") from error
    except _DAMAGED as error:
        raise BadImageError("unreadable_image", f"the file cannot be read ({error or type(error).__name__})") from error


def inside(raw: Path, name: str) -> Path:
    """The path of `name` below `raw`; links in the dump are followed. Raises: KeyError when the name climbs out."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise KeyError(f"{name} lies outside {raw}")
    return raw / name
