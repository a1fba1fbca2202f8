"""Moving what names a version: tags, `latest` back to an older version; and deleting what nothing names."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from indexer.versions.folders import (
    EVALUATIONS,
    LATEST,
    RUNS,
    TAGS,
    VERSIONS,
    discard,
    list_versions,
    point_latest,
    read_latest,
    read_tags,
    resolve,
    sweep,
    version_folder,
)
from indexer.versions.listing import entries
from indexer.versions.locks import alone, changing
from seqdata.errors import InputError
from seqdata.storage.files import explain_write_failure, write_bytes_atomic

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Removal:
    """The versions that `collect` deletes, with their bytes, and those that stay because a reader has them open."""

    removed: tuple[str, ...]
    bytes: int
    in_use: tuple[str, ...]


def set_tag(index: Path, tag: str, version: str = LATEST) -> str:
    """Give a version a name that `gc` respects, by one rename; a tag that is there already moves. Returns its id.

    Raises:
        InputError: For a name that could be a version's, or an unknown version.
        OutputError: When it cannot be written.
    """
    if not TAG.fullmatch(tag) or HEX.fullmatch(tag) or tag == LATEST:
        raise InputError(
            f"tag '{tag}': letters, digits, '.', '_' and '-' only (64 at most), not '{LATEST}', and no bare "
            "hexadecimal number, which would look like a version"
        )
    with changing(index / VERSIONS):
        identifier = resolve(index, version).name
        write_bytes_atomic(index / TAGS / tag, f"{identifier}\n".encode())
    return identifier


def remove_tag(index: Path, tag: str) -> str:
    """Take a tag away; returns the version it named.

    Raises:
        InputError: When there is no such tag.
        OutputError: When it cannot be written.
    """
    names = read_tags(index)
    if tag not in names:
        raise InputError(f"{index}: no tag '{tag}'; it has {', '.join(names) or 'none'}")
    try:
        (index / TAGS / tag).unlink()
    except OSError as error:
        explain_write_failure(index / TAGS / tag, error)
    return names[tag]


def rollback(index: Path, version: str | None = None) -> tuple[str | None, str]:
    """Point `latest`, by one rename, to a version: the one built before it without a name. Returns (before, now).

    Raises:
        InputError: When there is none before, or no such version.
        OutputError: When it cannot be written.
    """
    with changing(index / VERSIONS):
        before = read_latest(index)
        target = _one_before(index, before) if version is None else resolve(index, version).name
        point_latest(index, target)
    return before, target


def _one_before(index: Path, latest: str | None) -> str:
    # Damaged versions are passed over: `latest` must not come to stand on one.
    whole = [entry.id for entry in entries(index) if entry.fault is None]
    place = whole.index(latest) if latest in whole else len(whole)
    if place == 0:
        raise InputError(f"{index}: no version is older than {latest or 'none'}; name one of {', '.join(whole)}")
    return whole[place - 1]


def collect(index: Path, *, dry_run: bool = False) -> Removal:
    """Delete the versions that neither `latest` nor a tag names and no reader has open; with `dry_run` only tell.

    A version vanishes whole, by a rename, and a reader that opened it in the same moment either has it or resolves its
    name again. Leftovers of killed builders go too, and the evaluations of versions that are gone.

    Raises:
        InputError: When the index has no `latest`, so that everything would go.
        OutputError: When it cannot be written.
    """
    if read_latest(index) not in list_versions(index):
        raise InputError(f"{index}: '{LATEST}' names no version that is there; seqdata index rollback VERSION sets it")
    removed, in_use, size = [], [], 0
    try:
        with changing(index / VERSIONS):
            for identifier in _unnamed(index):
                folder = version_folder(index, identifier)
                # Locked until it is gone: a reader that opens it meanwhile waits, then resolves its name again.
                with alone(folder) as free:
                    if not free:
                        in_use.append(identifier)
                        continue
                    size += sum(file.stat().st_size for file in folder.iterdir())
                    removed.append(identifier)
                    if not dry_run:
                        discard(folder)
            if not dry_run:
                sweep(index)
                _forget(index)
    except OSError as error:
        explain_write_failure(index, error)
    return Removal(tuple(removed), size, tuple(in_use))


def _forget(index: Path) -> None:
    """Remove the evaluations of versions that are not there any more, and what is remembered of their runs."""
    names = list_versions(index)
    for file in (index / RUNS).glob("*"):
        if file.name not in names:
            file.unlink(missing_ok=True)
    for folder in (index / EVALUATIONS).glob("*"):
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)


def _unnamed(index: Path) -> list[str]:
    named = {read_latest(index), *read_tags(index).values()}
    return [identifier for identifier in list_versions(index) if identifier not in named]
