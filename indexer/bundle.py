"""Building an index version: stream descriptors, project, store exactly, publish by one rename."""

import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer import flat
from indexer.manifest import (
    MANIFEST,
    PLACES,
    TRANSFORM,
    VECTORS,
    FileRecord,
    IndexManifest,
    TransformRecord,
    library_versions,
    read_manifest,
    version_id,
)
from indexer.transform import Transform
from indexer.versions import building, list_versions, point_latest, publish, sweep, version_folder
from seqdata.contracts import table_contract
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.storage import explain_write_failure, write_json_atomic, write_parquet_atomic, xxh3_file

__all__ = ["build", "find_version", "version_id"]


def find_version(out: str | Path, inputs: dict[str, Any], *, normalise: bool = False) -> Path | None:
    """The finished version built from these inputs, or None: ask before describing anything.

    Raises: ContractError when the version's manifest is damaged.
    """
    identifier = version_id(inputs, normalise=normalise)
    if identifier not in list_versions(Path(out)):
        return None
    read_manifest(version_folder(Path(out), identifier))
    return version_folder(Path(out), identifier)


def build(
    out: str | Path,
    *,
    blocks: Iterator[npt.NDArray[np.float32]],
    places: pl.DataFrame,
    transform: Transform | None,
    inputs: dict[str, Any],
    normalise: bool = False,
) -> Path:
    """Build and publish one version of the named index `out` (INDEX/<name>); returns its folder.

    `blocks` yields descriptors (m, d) float32 *before* the transform, in the order of `places` (table
    contract `places`), read once. `inputs` (any JSON) names everything the vectors depend on: its hash is
    the version. The same inputs again return the existing version, without touching `blocks`. `normalise`
    L2-normalises after the transform (none in the papers' presets). `latest` then names the version.

    Raises: ContractError when blocks and places do not fit, OutputError when the disk refuses (nothing is
    left).
    """
    index = Path(out)
    existing = find_version(index, inputs, normalise=normalise)
    if existing is None:
        _check_output(index)
        existing = _build_new(index, blocks, places, transform, inputs, normalise)
    else:
        _check_same(existing, places, transform)
    point_latest(index, existing.name)
    return existing


def _check_same(existing: Path, places: pl.DataFrame, transform: Transform | None) -> None:
    """Catch a caller whose inputs do not name all that the vectors depend on. Raises: ContractError."""
    manifest = read_manifest(existing)
    size = manifest.input_size if transform is None else transform.output_size
    if (manifest.rows, manifest.size, manifest.transform is None) != (len(places), size, transform is None):
        raise ContractError(f"{existing}: these inputs gave another index before: name all that it depends on")


def _build_new(
    index: Path,
    blocks: Iterator[npt.NDArray[np.float32]],
    places: pl.DataFrame,
    transform: Transform | None,
    inputs: dict[str, Any],
    normalise: bool,
) -> Path:
    started = time.monotonic()
    table = table_contract("places").conform(places)
    if len(table) == 0:
        raise NotEnoughDataError(f"{index}: no database windows to index; does the split hold a database?")
    identifier = version_id(inputs, normalise=normalise)
    with building(index, identifier) as folder:
        sweep(index)
        if transform is not None:
            _check_space(folder, len(table) * transform.output_size * 4)
        vectors = flat.fill(blocks, len(table), transform, normalise)
        inner_size = vectors.d if transform is None else transform.output_size
        _check_space(folder, len(table) * inner_size * 4)
        write_parquet_atomic(table, folder / PLACES, {"index": identifier})
        if transform is not None:
            transform.save(folder / TRANSFORM)
        flat.write(vectors, folder / VECTORS)
        manifest = IndexManifest(
            name=index.name,
            id=identifier,
            rows=len(table),
            input_size=vectors.d,
            size=inner_size,
            normalised=normalise,
            transform=None if transform is None else TransformRecord(**transform.describe()),
            inputs=inputs,
            files=_records(folder),
            libraries=library_versions(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
        )
        write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))
        return publish(folder, index, identifier)


def _records(folder: Path) -> dict[str, FileRecord]:
    names = [name for name in (PLACES, TRANSFORM, VECTORS) if (folder / name).is_file()]
    return {name: FileRecord(bytes=(folder / name).stat().st_size, xxh3=xxh3_file(folder / name)) for name in names}


def _check_output(index: Path) -> None:
    """Refuse a folder that holds something else. Raises: OutputError."""
    try:
        foreign = [entry.name for entry in index.iterdir() if entry.name not in ("versions", "latest")]
    except FileNotFoundError:
        return
    except OSError as error:
        explain_write_failure(index, error)
    foreign = [name for name in foreign if not name.startswith(".")]
    if foreign:
        raise OutputError(f"{index}: holds something else ('{foreign[0]}'); name an empty folder or an index")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"the index needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise OutputError(f"{folder.parent.parent}: no space left: {sizes}")
