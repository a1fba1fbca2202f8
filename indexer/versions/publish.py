"""The last step of every way to a version: places, transform, manifest and measured facts, then one rename."""

from pathlib import Path

import polars as pl

from indexer.pca.transform import Transform
from indexer.versions.folders import publish
from indexer.versions.manifest import (
    PLACES,
    TRANSFORM,
    VECTORS,
    FileRecord,
    IndexManifest,
    Measured,
    library_versions,
)
from indexer.versions.places import GROUP_ROWS, WHOLE_BYTES
from indexer.versions.published import remember
from seqdata.contracts.tables import table_contract
from seqdata.storage.files import atomic_path
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.parquet import parquet_writer


def seal(
    folder: Path,
    index: Path,
    manifest: IndexManifest,
    places: pl.DataFrame,
    transform: Transform | None,
    measured: Measured,
) -> Path:
    """Complete a private folder that holds the vectors' files, and publish it as a version.

    Args:
        folder: The private folder (see `indexer.versions.folders.building`).
        index: The named index.
        manifest: The version's manifest; `files` and `libraries` are filled in here.
        places: The database windows, one row a vector.
        transform: The transform before the vectors, None for none.
        measured: What was measured while it was built.

    Returns:
        The folder of the version.

    Raises:
        ContractError: If the places break their contract.
        OutputError: If the disk refuses.
    """
    table = table_contract("places").conform(places)
    _write_places(table, folder / PLACES, manifest.id)
    if transform is not None:
        transform.save(folder / TRANSFORM)
    # Only now is everything there that a manifest names: vectors, places and transform.
    files = {path.name: file_record(path) for path in sorted(folder.iterdir())}
    manifest.model_copy(update={"files": files, "libraries": library_versions()}).write(folder)
    # Written after the list of files was made: times differ from run to run, and the manifest must not.
    measured.write(folder)
    version = publish(folder, index, manifest.id)
    remember(files[VECTORS])
    return version


def file_record(path: Path) -> FileRecord:
    """Size and hash of a file."""
    return FileRecord(bytes=path.stat().st_size, xxh3=xxh3_file(path))


def _write_places(table: pl.DataFrame, path: Path, identifier: str) -> None:
    """Write the places, a large table in small row groups: an answer reads only those of its places."""
    is_large = table.estimated_size() > WHOLE_BYTES
    with atomic_path(path) as temporary, parquet_writer(temporary, table.schema, {"index": identifier}) as write:
        for part in table.iter_slices(GROUP_ROWS) if is_large else [table]:
            write(part)
