"""The manifest of an index version (what it was built from, what lies in its folder) and its measured facts.

The manifest depends on the inputs and the libraries alone: built again, it has the same bytes. Times, memory and
recall differ from run to run and lie beside it, in `measured.json`.
"""

import resource
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from indexer.pca.transform import Transform
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.version import VERSION
from seqdata.errors import ContractError
from seqdata.storage.files import json_bytes, write_bytes_atomic
from seqdata.storage.hashing import checksum_line, is_listed, sha256_json
from seqdata.storage.names import FlatName, check_flat_name

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
MEASURED = "measured.json"
TRANSFORM = "transform.safetensors"
VECTORS = "index.faiss"
PLACES = "ids.parquet"

# getrusage counts in bytes on macOS, in KiB on Linux.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
LIBRARIES = ("seqdata", "faiss-cpu", "faiss-gpu", "numpy", "polars", "safetensors", "torch")


class FileRecord(Frozen):
    """One file of a version: its size in bytes and XXH3-128 (32 hex digits)."""

    bytes: int
    xxh3: str


class TransformRecord(Frozen):
    """The facts of the fitted transform, as `Transform.describe` gives them."""

    input_size: int
    output_size: int
    explained: float
    route: str
    samples: int
    whiten: bool
    seed: int

    @classmethod
    def from_transform(cls, transform: Transform | None) -> "TransformRecord | None":
        """Record a fitted transform; None for none."""
        return None if transform is None else cls(**transform.describe())


class IndexManifest(Frozen):
    """One immutable index version.

    `inputs` is what the caller says it was built from (dataset, protocol, checkpoint, PCA sample, seeds: any JSON),
    `settings` how the vectors are indexed (empty: exact); `id` is a hash of both. `storage` and `factory` (FAISS's own
    string) tell how vectors are kept, `search` the default search parameters (nprobe, say). `rows` vectors of `size`
    values, `input_size` before the transform; `normalised` tells whether vectors were L2-normalised after it.
    `threads` and `seed` belong to the training of a quantiser or graph. `parent` is the version that this one was
    appended to, whose transform and quantiser it keeps. `origin` tells where it came from (the run's name, say) and is
    no part of its identity. `arithmetic` names how vectors were projected and assigned to lists (see
    `indexer.pca.exact_product`), then behind a "+" how their PCA was fitted where that was on sums of parts (see
    `indexer.pca.sample_parts`); versions without it were built by float32 products. `created` and `seconds` stand here
    in schema version 1 only.
    """

    schema_version: Literal[1, 2] = 2
    kind: Literal["index"] = "index"
    name: FlatName
    id: FlatName
    storage: str = "flat"
    factory: str = "Flat"
    metric: Literal["L2"] = "L2"
    search: dict[str, Any] = Field(default_factory=dict)
    rows: int
    input_size: int
    size: int
    normalised: bool
    transform: TransformRecord | None
    inputs: dict[str, Any]
    origin: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    threads: int | None = None
    seed: int = 0
    parent: str | None = None
    arithmetic: str | None = None
    files: dict[FlatName, FileRecord]
    libraries: dict[str, str]
    created: str | None = None
    seconds: float | None = None

    @field_validator("inputs", "origin")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        # Commands look for the run beside the index by its name, and name files of predictions by the split.
        for key in ("run", "split"):
            if key in value:
                check_flat_name(str(value[key]))
        return value

    def write(self, folder: Path) -> None:
        """Write the manifest into a version's folder; equal manifests, equal bytes.

        Raises:
            OutputError: When it cannot be written.
        """
        # Left out of today's manifests, or two builds of the same inputs would differ in their bytes.
        fields = self.model_dump(mode="json", exclude=None if self.created else {"created", "seconds"})
        data = json_bytes(fields)
        write_bytes_atomic(folder / CHECKSUM, checksum_line(MANIFEST, data))
        write_bytes_atomic(folder / MANIFEST, data)


class Measured(Frozen):
    """What was measured when a version was built; no part of its identity.

    `created` is UTC (ISO 8601), `seconds` by phase (describe, train, add, measure, write, ...; `build` is all of them),
    `peak_memory` the resident set, in bytes, of the building process or of one that it started, whichever was higher.
    `recall` is recall@k against exact search of the same vectors, by k, over `queries` held-out ones: `queries_of` says
    whose they are (windows of another split, or rows of the database, each searched without itself), `truth` what the
    exact search compared. `curve` holds a point for every setting tried; a point's note says why it was not measured.
    None where there was nothing to measure: a float32 index finds all by construction.
    """

    created: str
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory: int | None = None
    queries: int = 0
    queries_of: str | None = None
    truth: str | None = None
    recall: dict[int, float] | None = None
    curve: list[dict[str, Any]] | None = None

    def write(self, folder: Path) -> None:
        """Write into a version's folder.

        Raises:
            OutputError: When it cannot be written.
        """
        write_bytes_atomic(folder / MEASURED, json_bytes(self.model_dump(mode="json")))


def measure(seconds: dict[str, float], **facts: Any) -> Measured:
    """Measure a build that ends now in this process: its date, times and memory, and other `facts` of `Measured`.

    Memory is also that of its worker processes, each on its own, which have ended by now.
    """
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    rounded = {phase: round(taken, 3) for phase, taken in seconds.items()}
    return Measured(created=created, seconds=rounded, peak_memory=max(used) * RSS_UNIT, **facts)


def version_id(
    inputs: dict[str, Any],
    *,
    normalise: bool = False,
    settings: dict[str, Any] | None = None,
    arithmetic: str | None = None,
) -> str:
    """Name the version that is built from some inputs by a hash of them.

    Args:
        inputs: All that the vectors depend on, any JSON.
        normalise: Whether vectors are L2-normalised after the transform.
        settings: What names another index than the exact one (kind, factory, seed, ...).
        arithmetic: The manifest's field of that name: a new arithmetic makes another version of the same inputs.

    Returns:
        16 hex digits of a SHA-256. Without `settings` and `arithmetic` they are those of schema version 1.

    Example:
        >>> version_id({"dataset": "one"})
        '8a1e9192a953346a'
    """
    # An exact index hashes the fields that schema version 1 had, so that versions built before other kinds keep their
    # ids.
    exact = {"schema_version": 1, "factory": "Flat", "metric": "L2", "normalise": normalise}
    index = exact if not settings else {"schema_version": 2, "normalise": normalise, **settings}
    if arithmetic is not None:
        index["arithmetic"] = arithmetic
    return sha256_json({"inputs": inputs, "index": index})[:16]


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that an index depends on."""
    installed = {name: _version(name) for name in LIBRARIES}
    return {name: number for name, number in installed.items() if number is not None}


def _version(name: str) -> str | None:
    # Ours is the module's own: another distribution called seqdata may be installed beside it.
    if name == "seqdata":
        return VERSION
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest of a version folder.

    Raises:
        ContractError: When it is missing, damaged or foreign.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = IndexManifest.model_validate_json(data)
        # Versions of older programs have none.
        if (folder / CHECKSUM).is_file() and not is_listed(data, (folder / CHECKSUM).read_bytes()):
            raise ContractError(f"{path}: its bytes have changed ({CHECKSUM} has another hash); build the index again")
        return manifest
    except ValidationError as error:
        raise ContractError(f"{path}: not an index manifest, or damaged: {describe_first(error)}") from error
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); build the index again") from error


def read_measured(folder: Path) -> Measured:
    """The measured facts of a version folder; of schema version 1, what its manifest knows.

    Raises:
        ContractError: When they are damaged or foreign.
    """
    path = folder / MEASURED
    try:
        return Measured.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        manifest = read_manifest(folder)
        seconds = {} if manifest.seconds is None else {"build": manifest.seconds}
        return Measured(created=manifest.created or "", seconds=seconds)
    except ValidationError as error:
        raise ContractError(f"{path}: not an index's measured facts, or damaged: {describe_first(error)}") from error
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from error


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of this package's manifests, by stem (`index`: `schemas/manifests/index.schema.json`)."""
    return {"index": IndexManifest.model_json_schema()}
