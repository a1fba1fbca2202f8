"""The last step of every way to a version: places, transform, manifest and measured facts, then one rename."""

from pathlib import Path
from typing import Any

import polars as pl

from indexer.pca.transform import Transform
from indexer.versions.folders import publish
from indexer.versions.manifest import (
    PLACES,
    TRANSFORM,
    FileRecord,
    IndexManifest,
    TransformRecord,
    library_versions,
    measure,
)
from seqdata.contracts.tables import table_contract
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.parquet import write_parquet_atomic


def seal(
    folder: Path,
    index: Path,
    *,
    identifier: str,
    places: pl.DataFrame,
    transform: Transform | None,
    input_size: int,
    size: int,
    seconds: dict[str, float],
    measured: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Complete a private folder that holds the vectors' files, and publish it as the version `identifier`.

    `fields` are those of `IndexManifest` that are no arguments here, `measured` those of `Measured`.
    Raises: ContractError when the places break their contract, OutputError.
    """
    table = table_contract("places").conform(places)
    write_parquet_atomic(table, folder / PLACES, {"index": identifier})
    if transform is not None:
        transform.save(folder / TRANSFORM)
    manifest = IndexManifest(
        name=index.name,
        id=identifier,
        rows=len(table),
        input_size=input_size,
        size=size,
        transform=None if transform is None else TransformRecord(**transform.describe()),
        files={path.name: file_record(path) for path in sorted(folder.iterdir())},
        libraries=library_versions(),
        **fields,
    )
    manifest.write(folder)
    # Written after the list of files was made: times differ from run to run, and the manifest must not.
    measure(seconds, **(measured or {})).write(folder)
    return publish(folder, index, identifier)


def file_record(path: Path) -> FileRecord:
    """Size and hash of a file."""
    return FileRecord(bytes=path.stat().st_size, xxh3=xxh3_file(path))
