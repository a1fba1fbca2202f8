"""Folders of an index: `INDEX/<name>/versions/<id>/`, the `latest` pointer and tags, and how a path is resolved.

A version appears under its name by one rename of a finished folder; `latest` and `tags/<tag>` are small files replaced
by rename, so a reader sees the old version or the new one, never a mixture, and one that has a version open is not
disturbed.
"""

import logging
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from indexer.versions.checks import check_version
from indexer.versions.locks import changing
from indexer.versions.manifest import MANIFEST
from seqdata.errors import ContractError, InputError
from seqdata.storage import leftovers
from seqdata.storage.files import explain_write_failure, flush_tree, rename_flushed, write_bytes_atomic

VERSIONS = "versions"
LATEST = "latest"
TAGS = "tags"
EVALUATIONS = "evaluations"
RUNS = "runs"
"""Folder of hints: a file for each version, with the relative path of the run that it was built from."""
BUILDING = ".building"
REMOVED = ".removed"

logger = logging.getLogger(__name__)


def version_folder(index: Path, identifier: str) -> Path:
    """Where the version `identifier` of the named index lies."""
    return index / VERSIONS / identifier


def is_index(path: Path) -> bool:
    """Whether a path is an index, one of its versions, or a folder that holds indexes."""
    # The last two forms are a version folder on its own (copied out, or in a pack) and a folder of several indexes.
    below = path.glob("*/latest") if path.is_dir() else ()
    return (
        (path / LATEST).is_file()
        or (path / "ids.parquet").is_file()
        or any((latest.parent / VERSIONS).is_dir() for latest in below)
    )


def evaluations_folder(version: Path) -> Path:
    """Where evaluations of a version folder are kept: beside `versions/`, for a published version never changes."""
    folder = version.resolve()
    above = folder.parent
    return (above.parent if above.name == VERSIONS else above) / EVALUATIONS / folder.name


def read_latest(index: Path) -> str | None:
    """The version that `latest` names, or None when there is no pointer."""
    try:
        return (index / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def point_latest(index: Path, identifier: str) -> None:
    """Move the `latest` pointer by one rename; nothing is written when it already names that version."""
    if read_latest(index) != identifier:
        write_bytes_atomic(index / LATEST, f"{identifier}\n".encode())


def read_tags(index: Path) -> dict[str, str]:
    """The version that each tag of an index names, by tag, sorted."""
    folder = index / TAGS
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    return {name: (folder / name).read_text(encoding="utf-8", errors="replace").strip() for name in names}


def list_versions(index: Path) -> list[str]:
    """Identifiers of the finished versions of a named index, sorted."""
    folder = index / VERSIONS
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file() and entry.name[0] != ".")


@contextmanager
def building(index: Path, identifier: str) -> Iterator[Path]:
    """Yield a private folder beside the versions; it is removed in the end unless `publish` renamed it.

    Raises:
        OutputError: Where the folder cannot be made.
    """
    # The name says whose folder it is, so that `sweep` can tell a killed builder's from one at work, on this machine
    # only.
    owner = f"{os.getpid()}@{socket.gethostname()}"
    folder = index / VERSIONS / f"{BUILDING}-{identifier}-{uuid.uuid4().hex[:8]}-{owner}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        explain_write_failure(folder.parent, error)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, index: Path, identifier: str) -> Path:
    """Rename a finished folder to its version and point `latest` there; another builder's, if first, is kept.

    Raises:
        OutputError: Where the file system refuses.
    """
    target = version_folder(index, identifier)
    try:
        # Contents reach the disk before the name does: after a power cut a version that has its name is whole.
        flush_tree(folder)
        with changing(index / VERSIONS):
            # Two builders of one version give the same bytes, so the first one's stays under the readers that have it
            # open.
            if find_whole(index, identifier) is None:
                discard(target)
                rename_flushed(folder, target)
            point_latest(index, identifier)
    except OSError as error:
        explain_write_failure(target, error)
    return target


def find_whole(index: Path, identifier: str) -> Path | None:
    """The folder of a version whose files are all there and undamaged; None otherwise, with a warning for damage."""
    folder = version_folder(index, identifier)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        check_version(folder)
    except ContractError as error:
        logger.warning("%s", error)
        return None
    return folder


def discard(folder: Path) -> None:
    """Take a version away whole, by one rename, then delete it; nothing where it is absent.

    Raises:
        OSError: When the file system refuses.
    """
    away = folder.parent / f"{REMOVED}-{folder.name}-{uuid.uuid4().hex[:8]}"
    # Renamed first: deleting in place would leave half a version under its name if it were interrupted.
    with suppress(FileNotFoundError):
        folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def adopt(index: Path, identifier: str) -> bool:
    """Point `latest` to a version that is there already; False when it is not (any more).

    Raises:
        OutputError: When it cannot be written.
    """
    if not (version_folder(index, identifier) / MANIFEST).is_file():
        return False
    with changing(index / VERSIONS):
        # Looked at again under the lock: `gc` may have removed the version since the first look.
        if not (version_folder(index, identifier) / MANIFEST).is_file():
            return False
        point_latest(index, identifier)
    return True


def sweep(index: Path) -> None:
    """Remove what was half deleted, and private folders of this machine's killed builders; living ones' stay."""
    leftovers.sweep(index)
    for folder in (index / VERSIONS).glob(f"{REMOVED}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (index / VERSIONS).glob(f"{BUILDING}-*@{socket.gethostname()}"):
        process = folder.name.partition("@")[0].rsplit("-", 1)[-1]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        # Signal 0 is not delivered; it only says whether the process is there.
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def resolve(path: Path, version: str = "latest") -> Path:
    """The version folder meant by `path`: a version, a named index, or a folder with one named index in it.

    `version` is `latest`, a tag, an identifier, or an unambiguous beginning of one.

    Raises:
        InputError: When there is nothing, or more than one.
        ContractError: When `latest` points nowhere.
    """
    if (path / MANIFEST).is_file():
        return path
    index = named_index(path)
    if version == "latest":
        identifier = read_latest(index)
        if identifier is None:
            raise InputError(f"{index}: no version is published here; run seqdata index")
        if identifier not in list_versions(index):
            raise ContractError(f"{index / LATEST}: points to '{identifier}', which is not there; {_list_known(index)}")
        return version_folder(index, identifier)
    # A tag is never a bare hexadecimal number (see `tags.set_tag`), so it cannot hide the beginning of an identifier.
    tagged = read_tags(index).get(version, version)
    matches = [name for name in list_versions(index) if name.startswith(tagged)]
    if len(matches) != 1 or not version:
        fault = "no version" if not matches else "more than one version"
        raise InputError(f"{index}: {fault} '{version}'; {_list_known(index)}")
    return version_folder(index, matches[0])


def _list_known(index: Path) -> str:
    return f"it holds {', '.join(list_versions(index)) or 'none'}"


def named_index(path: Path) -> Path:
    """The named index meant by `path`: it, or the only one in that folder.

    Raises:
        InputError: Otherwise.
    """
    if (path / VERSIONS).is_dir():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such index; run seqdata index, or name the folder it wrote")
    inside = sorted(entry for entry in path.iterdir() if (entry / VERSIONS).is_dir())
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise InputError(f"{path}: holds several indexes, name one: {', '.join(entry.name for entry in inside)}")
    raise InputError(f"{path}: no index in this folder; run seqdata index, or name the folder it wrote")
