"""Collect: remove what no version of a dataset that is to stay names, and what killed commands left behind."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seqdata.contracts.manifest import (
    ADDED,
    PLAN_NAME,
    SHARDS,
    VERSIONS,
    DatasetManifest,
    read_manifest,
    version_name,
    version_numbers,
)
from seqdata.dataset.extra_tables import folder_of
from seqdata.errors import InputError
from seqdata.storage.lock import claimed
from seqdata.storage.store import Store


@dataclass(frozen=True)
class Removal:
    """What `collect` removes.

    Attributes:
        versions: Numbers of the versions.
        files: Names of the files, the versions' manifests among them.
        bytes: Their size.
    """

    versions: tuple[int, ...]
    files: tuple[str, ...]
    bytes: int


def collect(out: str | Path, keep: Collection[int] = (), *, dry_run: bool = False) -> Removal:
    """Remove every version of a dataset but the latest and those to keep, and the files that none of these names.

    What an append that was killed has written goes too: no version names it. A process that has an older version open
    finds files gone that it has not read yet. Killed and started again, it goes on.

    Args:
        out: Folder or URL of the dataset.
        keep: Numbers of older versions that stay.
        dry_run: Only say what would be removed.

    Raises:
        InputError: If there is no dataset, or no version of a number.
        OutputError: If a build is under way there, or the store refuses.
    """
    store = Store(out, is_output=True)
    read_manifest(store)  # before a lock is made where no dataset is
    with claimed(store, "seqdata gc"):
        latest = read_manifest(store)
        numbers = version_numbers(store, latest)
        unknown = sorted(set(keep) - set(numbers))
        if unknown:
            raise InputError(f"{store}: no version {unknown[0]}; there are {', '.join(map(str, numbers))}")
        staying = {*keep, latest.version}
        named = set(_named(store, [read_manifest(store, number) for number in sorted(staying)]))
        gone = tuple(number for number in numbers if number not in staying)
        # Manifests first: what is killed in between has left no version that lacks a file.
        manifests = [version_name(number) for number in gone]
        files = [*manifests, *sorted(set(_present(store)) - named - set(manifests))]
        removal = Removal(gone, tuple(files), sum(store.size(name) or 0 for name in files))
        if not dry_run:
            for name in files:
                store.remove(name)
            _remove_empty_folders(store)
        return removal


def _named(store: Store, manifests: list[DatasetManifest]) -> Iterator[str]:
    """Name the files of some versions, and of what was added to them."""
    for manifest in manifests:
        yield version_name(manifest.version)
        yield from manifest.files()
        yield from store.names(folder_of(manifest.id))


def _present(store: Store) -> Iterator[str]:
    """Name the files that commands of ours write into a dataset, what stands beside the manifest but for the tables."""
    yield from (name for name in store.names() if name.endswith((".parquet", ".tmp")) or name == PLAN_NAME)
    folders = (SHARDS, VERSIONS, *store.folders(VERSIONS), *store.folders(ADDED))
    for folder in folders:
        yield from store.names(folder)


def _remove_empty_folders(store: Store) -> None:
    """Remove folders of versions that hold nothing any more; an object store has none."""
    if not store.is_local:
        return
    for name in (*store.folders(VERSIONS), *store.folders(ADDED), VERSIONS, ADDED):
        with suppress(OSError):
            store.path(name).rmdir()
