"""Find and read the image files of a dump.

Convention: a path below the dump is written with `/`. Links to folders are followed, since people keep drives on other
disks. Hidden files and folders, thumbnails that file managers and network disks leave behind, and resource forks are
no images.
"""

import errno
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import polars as pl

from seqdata.errors import InputError
from seqdata.frames.images import BadImageError
from seqdata.storage.faults import raise_passing, read_again

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Images that people have and that are not read; they go to quarantine by name, instead of missing without a word.
OTHER_IMAGE_SUFFIXES = (
    ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".heic", ".heif", ".hif", ".insp", ".j2k", ".jfif",
    ".jp2", ".jpe", ".jpf", ".jxl", ".jxr", ".nef", ".orf", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".raf", ".rw2",
    ".svg", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip

NOT_READ = "this kind of image is not read; convert it to .jpg or .png"

# Made by macOS, Synology and QNAP disks, Windows and photo managers beside the photos themselves.
_NO_DRIVE = re.compile(r"__macosx|@eadir|@__thumb|@recycle|#recycle|\$recycle\.bin|_?thumb(?:nail)?s", re.IGNORECASE)

# Files that are looked at for the first images: enough to pass a folder of tables, and a second at most.
_FIRST_FILES = 20_000

# Our own reasons for what readers of archives raise. Theirs are not stored: they change with the library's version,
# and some carry a memory address, so that one dump would get another id in each build.
_DAMAGE: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((zipfile.BadZipFile,), "its zip member is damaged"),
    ((zlib.error, lzma.LZMAError, struct.error, EOFError), "its packed bytes are damaged or cut short"),
    ((OverflowError, RuntimeError, ValueError), "its archive is damaged, or packs it in a way that is not read here"),
)

GREATEST_FILE = 512 << 20
"""Bytes of one file or member of an archive: no image or table of a dump is larger."""

# errno of an OSError that is the one file's fault (decoders give none), with our reason; others are the machine's.
_UNREADABLE = {
    None: "the disk or the archive gives an error",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "it is a folder",
    errno.EINVAL: "the disk or the archive gives an error",
    errno.EBADMSG: "the disk gives an error",
}


@dataclass(frozen=True)
class DumpFile:
    """A file below a dump.

    Attributes:
        name: Path below the dump.
        bytes: Size, None where a link leads nowhere.
        is_alias: Whether it was reached through a link to a folder of the same dump, where it is found again.
    """

    name: str
    bytes: int | None
    is_alias: bool = False


def walk(folder: Path, prefix: str = "") -> Iterator[DumpFile]:
    """Find all files below a folder, links to folders followed; each folder's names are sorted.

    A link to one of its own parent folders ends there, so that the walk always ends.

    Args:
        folder: Where to look.
        prefix: What to put before each name, with a `/` at its end.

    Raises:
        InputError: If a folder cannot be read.
    """
    return _walk(folder, prefix, os.path.realpath(folder), (), is_alias=False)


def _walk(
    folder: Path, prefix: str, root: str, parents: tuple[tuple[int, int], ...], *, is_alias: bool
) -> Iterator[DumpFile]:
    """Yield the files of one folder and those below it; `parents` are (device, inode) of the folders above."""
    # (device, inode) and not the path: a loop of links shows the same folder under ever longer paths.
    try:
        status = read_again(folder.stat)
        here = (status.st_dev, status.st_ino)
        entries = read_again(partial(_entries, folder)) if here not in parents else []
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    for entry in entries:
        name = prefix + entry.name
        if _is_folder(entry):
            alias = is_alias or (entry.is_symlink() and _lies_in(os.path.realpath(entry.path), root))
            yield from _walk(Path(entry.path), f"{name}/", root, (*parents, here), is_alias=alias)
        else:
            size = _file_size(entry)
            if size is not None or entry.is_symlink():
                yield DumpFile(name, size, is_alias)


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none. Raises: OSError of the disk."""
    try:
        return read_again(entry.is_dir)
    except OSError as error:
        raise_passing(error)
        return False


def _lies_in(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _file_size(entry: "os.DirEntry[str]") -> int | None:
    """Size of a file in bytes; None for a link that leads nowhere, and for what is no regular file."""
    try:
        status = read_again(entry.stat)
    except OSError as error:
        raise_passing(error)
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def first_images(raw: Path, count: int) -> list[Path]:
    """Find up to `count` images among the first files below a folder; none where a folder cannot be read."""
    try:
        names = [file.name for file in islice(walk(raw), _FIRST_FILES)]
    except InputError:
        return []
    return [raw / name for name in names if is_image(name)][:count]


def file_names(folder: Path) -> list[str]:
    """List what lies directly in a folder, sorted; nothing where it cannot be read."""
    try:
        return sorted(read_again(partial(os.listdir, folder)))
    except OSError as error:
        raise_passing(error)
        return []


def has_table(folder: Path) -> bool:
    """Whether a table of positions, a CSV or GPX, lies on top of a folder."""
    return any(name.lower().endswith((".csv", ".tsv", ".gpx")) for name in file_names(folder))


def is_text(name: str) -> bool:
    """Whether a path of the file system is UTF-8, so that a table can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a path (with /) is a hidden file, or lies in a folder that is hidden or holds thumbnails.

    Example:
        >>> [is_hidden(name) for name in ("a/1.jpg", "a/.1.jpg", ".trash/1.jpg", "a/@eaDir/1.jpg")]
        [False, True, True, True]
    """
    *folders, base = name.split("/")
    hidden_folder = any(folder.startswith(".") or _NO_DRIVE.fullmatch(folder) for folder in folders)
    return base.startswith(".") or hidden_folder


def is_image(name: str) -> bool:
    """Whether a path (with /) is one of an image that the build can read.

    Example:
        >>> [is_image(name) for name in ("a/1.JPG", "a/1.webp", ".thumbnails/1.jpg")]
        [True, False, False]
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_other_image(name: str) -> bool:
    """Whether a path (with /) is one of an image of a kind that the build does not read."""
    return name.lower().endswith(OTHER_IMAGE_SUFFIXES) and not is_hidden(name)


def image_names(column: str) -> pl.Expr:
    """Test each path of a column as `is_image` does."""
    path = pl.col(column)
    # Written as expressions: a dump has millions of names, and Python would take seconds a million.
    hidden = path.str.contains(r"(^|/)\.") | path.str.contains(rf"(?i)(^|/)({_NO_DRIVE.pattern})/")
    return path.str.contains(r"(?i)\.(jpe?g|png)$") & ~hidden


def read_image_file(path: Path) -> bytes:
    """Read an image file of a dump, again where the disk's error may pass.

    Raises:
        BadImageError: `unreadable_image`, if it may not be read, or is larger than any image.
        FileNotFoundError: If it is gone.
        OSError: If the disk's error did not pass: no fault of the file.
    """
    with reading():
        return read_again(partial(_read_whole, path))


def _read_whole(path: Path) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > GREATEST_FILE:
            raise BadImageError("unreadable_image", f"{size:,} bytes are more than {GREATEST_FILE:,}")
        return file.read()


@contextmanager
def reading() -> Iterator[None]:
    """Turn the damage of the one image that is read inside into a BadImageError; what is not its fault stays.

    Raises:
        BadImageError: `unreadable_image` for a damaged zip member or a forbidden file.
        OSError: For an error of the disk that may pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise unreadable(_UNREADABLE[error.errno]) from error
    except tuple(kind for kinds, _ in _DAMAGE for kind in kinds) as error:
        raise_passing(error)
        raise unreadable(next(reason for kinds, reason in _DAMAGE if isinstance(error, kinds))) from error


def unreadable(reason: str) -> BadImageError:
    """Make the error of an image that is there and cannot be read; `reason` is stored, so it must be our own text."""
    return BadImageError("unreadable_image", f"the file cannot be read ({reason})")


def inside(raw: Path, name: str) -> Path:
    """The path of `name` below `raw`; links in the dump are followed.

    Raises:
        KeyError: When the name climbs out.
    """
    # Names come from tables that anyone may have written. Compared as text: a build does this for every frame.
    if name.startswith("/") or ".." in name.split("/"):
        raise KeyError(f"{name} lies outside {raw}")
    return raw / name
