"""Building an index version: stream descriptors, project, store by kind, publish by one rename."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.arrays import StoredVectors, map_blocks
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.project import check_descriptors, project, projected
from indexer.pca.sample_parts import FITTED
from indexer.pca.transform import Transform
from indexer.search.exact import ExactVectors
from indexer.search.file_layout import FACTORY, Exact, write
from indexer.search.flat_file import map_exact, narrow, wrap, write_exact
from indexer.search.kinds import EXACT, KindSpec, as_spec
from indexer.search.pools import threads
from indexer.selection import choose as auto
from indexer.selection.held_out import DATABASE_ROWS, hold_out
from indexer.selection.timing import Phases
from indexer.versions.folders import EVALUATIONS, LATEST, RUNS, TAGS, VERSIONS, adopt, building, find_whole, sweep
from indexer.versions.manifest import (
    VECTORS,
    IndexManifest,
    TransformRecord,
    measure,
    read_manifest,
    version_id,
)
from indexer.versions.publish import seal
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.geometry import Float32Array
from seqdata.storage.files import explain_write_failure
from seqdata.storage.names import check_flat_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["build", "find_version", "version_id"]

BLOCK_ROWS = 4096
VALUE_BYTES = {"fp16": 6}  # on the disk at once, of each value of a vector: float32 beside float16


class BuildOptions(TypedDict, total=False):
    """The keywords of `build` that may be left out; it says what they mean."""

    normalise: bool
    kind: KindSpec | str
    queries: npt.NDArray[np.float32] | None
    queries_of: str
    origin: dict[str, Any]
    seconds: Mapping[str, float]
    arithmetic: str


def find_version(
    out: str | Path, inputs: dict[str, Any], *, normalise: bool = False, kind: KindSpec | str = "flat"
) -> Path | None:
    """Find the finished version that was built from some inputs, before anything is described.

    Its files are hashed; a damaged version counts as none (a warning names the file), and building replaces it. A
    version of the same inputs by older arithmetic counts too, so that a new release builds no index again unasked.

    Args:
        out: The named index, INDEX/<name>.
        inputs: As for `build`.
        normalise: As for `build`.
        kind: As for `build`.

    Returns:
        The folder of the version, None where there is none.

    Raises:
        ContractError: If the kind is unknown.

    Example:
        >>> find_version("no/such/index", {"dataset": "one"}) is None
        True
    """
    settings = as_spec(kind).settings()
    for arithmetic in (FITTED, ARITHMETIC, None):
        identifier = version_id(inputs, normalise=normalise, settings=settings, arithmetic=arithmetic)
        version = find_whole(Path(out), identifier)
        if version is not None:
            return version
    return None


def build(
    out: str | Path,
    *,
    blocks: Iterator[npt.NDArray[np.float32]],
    places: pl.DataFrame,
    transform: Transform | None,
    inputs: dict[str, Any],
    **options: "Unpack[BuildOptions]",
) -> Path:
    """Build and publish one version of a named index; `latest` then names it.

    The same inputs again return the existing version, without reading `blocks`. All kinds but `flat` lie on disk as
    float32 while they are trained and measured, so that recall is against float32 vectors, for fp16 too.

    Args:
        out: The named index, INDEX/<name>.
        blocks: Descriptors (m, d) float32 *before* the transform, in the order of `places`; read once.
        places: Database windows, one row a descriptor (table contract `places`).
        transform: A fitted PCA, None for descriptors as they are.
        inputs: All that the vectors depend on, any JSON: its hash, with the settings of `kind`, names the version.
        **options: Any of the following.

            * `normalise` (False): L2-normalise after the transform (none of the papers' presets does).
            * `kind` ("flat"): A name of `indexer.search.kinds.KINDS`, or a spec.
            * `queries` (None): Descriptors (q, d) float32 before the transform, by which approximate kinds are measured
              and chosen; they should be no windows of the database. Without them, and for fp16, up to 500 rows of the
              database are searched, each without itself.
            * `queries_of` ("given queries"): Whose `queries` are, for the measured facts.
            * `origin` ({}): Where the vectors came from; recorded, and no part of the version's identity.
            * `arithmetic` (that of `indexer.pca.exact_product`): How vectors are computed; the manifest's field.
            * `seconds` ({}): Phases of the caller's own work before. This function's are describe (waiting for
              `blocks`), write (projecting and writing), train, add and measure; `build` is all of it.

    Returns:
        The folder of the version.

    Raises:
        ContractError: If blocks and places do not fit.
        NotEnoughDataError: If the kind cannot be trained, or nothing reaches the recall within the memory.
        OutputError: If the disk refuses; nothing is left then.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import polars as pl
        >>> import indexer
        >>> descriptors = np.eye(3, 4, dtype=np.float32)
        >>> places = pl.DataFrame({
        ...     "track": "all", "first": [0, 5, 10], "length": 5, "step": 1, "trajectory": "drive", "city": "town",
        ...     "role": "database", "split": "test", "centre": [2, 7, 12], "key": ["a", "b", "c"],
        ...     "position": [0, 5, 10], "latitude": 0.0, "longitude": 0.0, "zone": "32N", "easting": 500_000.0,
        ...     "northing": [0.0, 10.0, 20.0], "heading": None,
        ... })
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     version = indexer.build(
        ...         f"{folder}/town", blocks=iter([descriptors]), places=places, transform=None, inputs={"data": "demo"}
        ...     )
        ...     index = indexer.open(f"{folder}/town")
        ...     distances, rows = index.search(descriptors[1], k=1)
        >>> rows.tolist(), distances.tolist()
        ([[1]], [[0.0]])
    """
    work = _Work(Path(out), transform, inputs, **options)
    index = work.index
    existing = find_version(index, inputs, normalise=work.normalise, kind=work.kind)
    if existing is not None:
        _check_same(existing, places, transform)
        # False where `gc` took the version away after it was found: it is then built again.
        if adopt(index, existing.name):
            return existing
    _check_output(index)
    table = table_contract("places").conform(places)
    if len(table) == 0:
        raise NotEnoughDataError(f"{index}: no database windows to index; does the split hold a database?")
    return _build_new(work, blocks, table)


def _check_same(existing: Path, places: pl.DataFrame, transform: Transform | None) -> None:
    """Catch a caller whose inputs do not name all that the vectors depend on. Raises: ContractError."""
    manifest = read_manifest(existing)
    size = manifest.input_size if transform is None else transform.output_size
    # Equal inputs with other sizes mean that the caller left something out of them; an old index would be taken for the
    # new.
    if (manifest.rows, manifest.size, manifest.transform is None) != (len(places), size, transform is None):
        raise ContractError(f"{existing}: these inputs gave another index before: name all that it depends on")


@dataclass
class _Work:
    """What every step of one build needs."""

    index: Path
    transform: Transform | None
    inputs: dict[str, Any]
    normalise: bool = False
    kind: KindSpec | str = "flat"
    queries: npt.NDArray[np.float32] | None = None
    queries_of: str = "given queries"
    origin: dict[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    arithmetic: str = ARITHMETIC

    @cached_property
    def spec(self) -> KindSpec:
        """The kind and its settings."""
        return as_spec(self.kind)

    @cached_property
    def phases(self) -> Phases:
        """Seconds by phase, those of the caller's first."""
        return Phases(self.seconds)

    def projected_queries(self, size: int) -> tuple[Float32Array | None, str]:
        """The given queries (q, k) as the index stores vectors of `size` values before the transform, and whose."""
        if self.queries is None or not len(self.queries):
            return None, DATABASE_ROWS
        return project(check_descriptors(self.queries, size), self.transform, self.normalise), self.queries_of


@dataclass
class _Written:
    """What lies in the index file, as the manifest and the measured facts tell it."""

    storage: str
    factory: str
    search: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)


def _build_new(work: _Work, blocks: Iterator[npt.NDArray[np.float32]], table: pl.DataFrame) -> Path:
    index, transform, spec, phases = work.index, work.transform, work.spec, work.phases
    started = time.monotonic()
    identifier = version_id(work.inputs, normalise=work.normalise, settings=spec.settings(), arithmetic=work.arithmetic)
    with building(index, identifier) as folder:
        sweep(index)
        # Before the first block comes, which may take an hour: with a transform the size of the index is known already.
        if transform is not None:
            _check_space(folder, len(table) * transform.output_size * VALUE_BYTES.get(spec.name, 4))
        timed_blocks = phases.waiting("describe", blocks)
        vectors = projected(timed_blocks, len(table), transform, work.normalise)
        # Without a transform only the first block tells how many values a vector has.
        first = next(vectors, None)
        if first is None:
            raise ContractError(f"0 descriptors came for {len(table)} places: one is needed for each")
        size = int(first.shape[1])
        _check_space(folder, len(table) * size * VALUE_BYTES.get(spec.name, 4))
        input_size = size if transform is None else transform.input_size
        written = _write(work, folder, chain([first], vectors), (len(table), size), input_size)
        manifest = IndexManifest(
            name=index.name,
            id=identifier,
            rows=len(table),
            transform=TransformRecord.from_transform(transform),
            files={},
            libraries={},
            input_size=input_size,
            size=size,
            storage=written.storage,
            factory=written.factory,
            search=written.search,
            normalised=work.normalise,
            inputs=work.inputs,
            origin=work.origin,
            settings=spec.settings(),
            threads=None if spec.name in EXACT else threads(),
            seed=spec.seed,
            arithmetic=work.arithmetic,
        )
        seconds = {**phases, "build": time.monotonic() - started}
        return seal(folder, index, manifest, table, transform, measure(seconds, **written.measured))


def _write(
    work: _Work, folder: Path, vectors: Iterator[Float32Array], shape: tuple[int, int], input_size: int
) -> _Written:
    path, spec, phases = folder / VECTORS, work.spec, work.phases
    if spec.name == "flat":
        with phases.timed("write"):
            write_exact(path, vectors, shape[0], "flat", work.transform, work.normalise)
        return _Written("flat", FACTORY["flat"])
    if spec.name == "fp16":
        vectors = _fitting(vectors)
    projected_queries, queries_of = work.projected_queries(input_size)
    # Training and measuring read vectors at random, and more than once; on disk they may exceed the memory.
    with phases.timed("write"):
        spooled = map_blocks(folder, vectors, shape)
    selection = auto.choose(spec, spooled, projected_queries, queries_of, phases)
    if selection.index is None:
        selection = _write_exact(work, path, spooled, selection, input_size)
    else:
        with phases.timed("write"):
            write(wrap(selection.index, work.transform, work.normalise), path)
    point = selection.point
    return _Written(point.kind, point.factory, point.search, selection.facts())


def _fitting(vectors: Iterator[Float32Array]) -> Iterator[Float32Array]:
    """The blocks, refused as they come, not after all, where one does not fit into float16. Raises: ContractError."""
    for block in vectors:
        narrow(block, "fp16")
        yield block


def _write_exact(
    work: _Work, path: Path, spooled: StoredVectors, selection: auto.Selection, input_size: int
) -> auto.Selection:
    """Write the vectors as the exact kind that was chosen; of float16 recall is measured, where it is not yet."""
    kind, (rows, size) = cast("Exact", selection.point.kind), spooled.shape
    with work.phases.timed("write"):
        parts = (np.asarray(spooled[at : at + BLOCK_ROWS]) for at in range(0, rows, BLOCK_ROWS))
        write_exact(path, parts, rows, kind, work.transform, work.normalise)
    if kind == "flat" or selection.point.recall is not None:
        return selection
    with work.phases.timed("measure"):
        held_out = hold_out(spooled, ExactVectors(spooled, "cpu"), work.spec.seed)
        return auto.check_exact(selection, map_exact(path, rows, size, input_size, kind), held_out)


def _check_output(index: Path) -> None:
    """Refuse a folder that holds something else, or whose name no manifest can hold. Raises: OutputError."""
    try:
        check_flat_name(index.name or ".")
    except ValueError as error:
        raise OutputError(f"the index's folder: {error}; choose another --out") from error
    try:
        foreign = [
            entry.name for entry in index.iterdir() if entry.name not in (VERSIONS, LATEST, TAGS, EVALUATIONS, RUNS)
        ]
    except FileNotFoundError:
        return
    except OSError as error:
        explain_write_failure(index, error)
    # Hidden entries are the system's (.DS_Store, .nfs…) or parts of a build.
    foreign = [name for name in foreign if not name.startswith(".")]
    if foreign:
        raise OutputError(f"{index}: holds something else ('{foreign[0]}'); name an empty folder or an index")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"the index needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise OutputError(f"{folder.parent.parent}: no space left: {sizes}")
