"""Folders of an index: `INDEX/<name>/versions/<id>/` and the `latest` pointer, and how a path is resolved.

A version appears under its name by one rename of a finished folder; `latest` is a small file replaced by
rename, so a reader sees the old version or the new one, never a mixture, and one that has a version open is
not disturbed.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.manifest import MANIFEST
from seqdata.errors import ContractError, InputError
from seqdata.storage import explain_write_failure, write_bytes_atomic

VERSIONS = "versions"
LATEST = "latest"
BUILDING = ".building"


def version_folder(index: Path, identifier: str) -> Path:
    """Where the version `identifier` of the named index lies."""
    return index / VERSIONS / identifier


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


def list_versions(index: Path) -> list[str]:
    """Identifiers of the finished versions of a named index, sorted."""
    folder = index / VERSIONS
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file() and entry.name[0] != ".")


@contextmanager
def building(index: Path, identifier: str) -> Iterator[Path]:
    """Yield a private folder beside the versions; it is removed in the end unless `publish` renamed it.

    Raises: OutputError where the folder cannot be made.
    """
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
    """Rename a finished folder to its version; when another builder was first, theirs is returned."""
    target = version_folder(index, identifier)
    try:
        folder.rename(target)
    except OSError as error:
        if not (target / MANIFEST).is_file():
            explain_write_failure(target, error)
    return target


def sweep(index: Path) -> None:
    """Remove the private folders of killed builders of this machine; those of living ones stay."""
    for folder in (index / VERSIONS).glob(f"{BUILDING}-*@{socket.gethostname()}"):
        process = folder.name.partition("@")[0].rsplit("-", 1)[-1]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def resolve(path: Path, version: str = "latest") -> Path:
    """The version folder meant by `path`: a version, a named index, or a folder with one named index in it.

    `version` is `latest`, an identifier, or an unambiguous beginning of one.
    Raises: InputError when there is nothing, or more than one; ContractError when `latest` points nowhere.
    """
    if (path / MANIFEST).is_file():
        return path
    index = _named_index(path)
    if version == "latest":
        identifier = read_latest(index)
        if identifier is None:
            raise InputError(f"{index}: no version is published here; run seqdata index")
        if identifier not in list_versions(index):
            raise ContractError(f"{index / LATEST}: points to '{identifier}', which is not there; {_known(index)}")
        return version_folder(index, identifier)
    matches = [known for known in list_versions(index) if known.startswith(version)]
    if len(matches) != 1:
        fault = "no version" if not matches else "more than one version"
        raise InputError(f"{index}: {fault} '{version}'; {_known(index)}")
    return version_folder(index, matches[0])


def _known(index: Path) -> str:
    return f"it holds {', '.join(list_versions(index)) or 'none'}"


def _named_index(path: Path) -> Path:
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
