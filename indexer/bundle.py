"""Building an index version: stream descriptors, project, store by kind, publish by one rename."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer import auto
from indexer.engines import threads
from indexer.flat import FACTORY, Exact, Stored, projected, wrap, write, write_exact
from indexer.kinds import EXACT, KindSpec, as_spec
from indexer.manifest import VECTORS, read_manifest, version_id
from indexer.sealing import seal
from indexer.transform import Floats, Transform
from indexer.versions import LATEST, TAGS, VERSIONS, adopt, building, find_whole, sweep
from seqdata.contracts import table_contract
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.storage import explain_write_failure

__all__ = ["build", "find_version", "version_id"]

SCRATCH = ".vectors.f32"
BLOCK_ROWS = 4096


def find_version(
    out: str | Path, inputs: dict[str, Any], *, normalise: bool = False, kind: KindSpec | str = "flat"
) -> Path | None:
    """The finished version built from these inputs, or None: ask before describing anything.

    Its files are hashed; a damaged version counts as none (a warning names the file), and building replaces it.
    """
    identifier = version_id(inputs, normalise=normalise, settings=as_spec(kind).settings())
    return find_whole(Path(out), identifier)


def build(
    out: str | Path,
    *,
    blocks: Iterator[npt.NDArray[np.float32]],
    places: pl.DataFrame,
    transform: Transform | None,
    inputs: dict[str, Any],
    normalise: bool = False,
    kind: KindSpec | str = "flat",
) -> Path:
    """Build and publish one version of the named index `out` (INDEX/<name>); returns its folder.

    `blocks` yields descriptors (m, d) float32 *before* the transform, in the order of `places` (table
    contract `places`), read once. `inputs` (any JSON) names everything the vectors depend on: its hash, with
    the settings of `kind`, is the version. The same inputs again return the existing version, without touching
    `blocks`. `normalise` L2-normalises after the transform (none in the papers' presets). `kind` is one of
    `indexer.kinds.KINDS`, or a spec: all but the exact kinds lie on disk as float32 while they are trained and
    measured. `latest` then names the version.

    Raises: ContractError when blocks and places do not fit, NotEnoughDataError when the kind cannot be trained or
    nothing reaches the recall within the memory, OutputError when the disk refuses (nothing is left).
    """
    index, spec = Path(out), as_spec(kind)
    existing = find_version(index, inputs, normalise=normalise, kind=spec)
    if existing is not None:
        _check_same(existing, places, transform)
        if adopt(index, existing.name):
            return existing
    _check_output(index)
    table = table_contract("places").conform(places)
    if len(table) == 0:
        raise NotEnoughDataError(f"{index}: no database windows to index; does the split hold a database?")
    return _build_new(index, blocks, table, transform, inputs, normalise, spec)


def _check_same(existing: Path, places: pl.DataFrame, transform: Transform | None) -> None:
    """Catch a caller whose inputs do not name all that the vectors depend on. Raises: ContractError."""
    manifest = read_manifest(existing)
    size = manifest.input_size if transform is None else transform.output_size
    if (manifest.rows, manifest.size, manifest.transform is None) != (len(places), size, transform is None):
        raise ContractError(f"{existing}: these inputs gave another index before: name all that it depends on")


@dataclass
class _Written:
    """What lies in the index file, as the manifest and the measured facts tell it."""

    storage: str
    factory: str
    search: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)


def _build_new(
    index: Path,
    blocks: Iterator[npt.NDArray[np.float32]],
    table: pl.DataFrame,
    transform: Transform | None,
    inputs: dict[str, Any],
    normalise: bool,
    spec: KindSpec,
) -> Path:
    started = time.monotonic()
    identifier = version_id(inputs, normalise=normalise, settings=spec.settings())
    with building(index, identifier) as folder:
        sweep(index)
        if transform is not None:
            _check_space(folder, len(table) * transform.output_size * 4)
        vectors = projected(blocks, len(table), transform, normalise)
        first = next(vectors, None)
        if first is None:
            raise ContractError(f"0 descriptors came for {len(table)} places: one is needed for each")
        size = int(first.shape[1])
        _check_space(folder, len(table) * size * 4)
        written = _write(folder, chain([first], vectors), (len(table), size), transform, normalise, spec)
        return seal(
            folder,
            index,
            identifier=identifier,
            places=table,
            transform=transform,
            input_size=size if transform is None else transform.input_size,
            size=size,
            seconds={"build": time.monotonic() - started},
            found=written.found,
            storage=written.storage,
            factory=written.factory,
            search=written.search,
            normalised=normalise,
            inputs=inputs,
            settings=spec.settings(),
            threads=None if spec.name in EXACT else threads(),
            seed=spec.seed,
        )


def _write(
    folder: Path,
    vectors: Iterator[Floats],
    shape: tuple[int, int],
    transform: Transform | None,
    normalise: bool,
    spec: KindSpec,
) -> _Written:
    path = folder / VECTORS
    if spec.name in EXACT:
        exact = cast("Exact", spec.name)
        write_exact(path, vectors, shape[0], exact, transform, normalise)
        return _Written(exact, FACTORY[exact])
    with _spooled(folder / SCRATCH, vectors, shape) as stored:
        chosen = auto.choose(spec, stored)
        point = chosen.point
        if chosen.index is None:
            parts = (np.asarray(stored[at : at + BLOCK_ROWS]) for at in range(0, shape[0], BLOCK_ROWS))
            write_exact(path, parts, shape[0], cast("Exact", point.kind), transform, normalise)
        else:
            write(wrap(chosen.index, transform, normalise), path)
    return _Written(point.kind, point.factory, point.search, chosen.facts())


@contextmanager
def _spooled(path: Path, vectors: Iterator[Floats], shape: tuple[int, int]) -> Iterator[Stored]:
    """The projected vectors (n, k) float32 in a file beside the index, mapped; it is gone afterwards."""
    try:
        with path.open("wb") as file:
            for block in vectors:
                file.write(np.ascontiguousarray(block).data)
        yield np.memmap(path, dtype=np.float32, mode="r", shape=shape)
    except OSError as error:
        explain_write_failure(path, error)
    finally:
        path.unlink(missing_ok=True)


def _check_output(index: Path) -> None:
    """Refuse a folder that holds something else. Raises: OutputError."""
    try:
        foreign = [entry.name for entry in index.iterdir() if entry.name not in (VERSIONS, LATEST, TAGS)]
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
