"""The manifest of an index version: what it was built from, what lies in its folder, with hashes."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from seqdata.errors import ContractError
from seqdata.protocols import Frozen, describe_first
from seqdata.storage import sha256_json

MANIFEST = "manifest.json"
TRANSFORM = "transform.safetensors"
VECTORS = "index.faiss"
PLACES = "ids.parquet"

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


class IndexManifest(Frozen):
    """One immutable index version.

    `inputs` is what the caller says it was built from (dataset, protocol, checkpoint, PCA sample, seeds: any
    JSON); `id` is a hash of it and of the settings here. `rows` vectors of `size` float32 values,
    `input_size` before the transform; `normalised` tells whether vectors were L2-normalised after it.
    """

    schema_version: Literal[1] = 1
    kind: Literal["index"] = "index"
    name: str
    id: str
    factory: Literal["Flat"] = "Flat"
    metric: Literal["L2"] = "L2"
    rows: int
    input_size: int
    size: int
    normalised: bool
    transform: TransformRecord | None
    inputs: dict[str, Any]
    files: dict[str, FileRecord]
    libraries: dict[str, str]
    created: str
    seconds: float


def version_id(inputs: dict[str, Any], *, normalise: bool = False) -> str:
    """16 hex digits of the SHA-256 of inputs and index settings: the name of the version built from them."""
    settings = {"schema_version": 1, "factory": "Flat", "metric": "L2", "normalise": normalise}
    return sha256_json({"inputs": inputs, "index": settings})[:16]


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that an index depends on."""
    installed = {name: _version(name) for name in LIBRARIES}
    return {name: found for name, found in installed.items() if found is not None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest of a version folder. Raises: ContractError when it is missing, damaged or foreign."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        return IndexManifest.model_validate_json(text)
    except ValidationError as error:
        raise ContractError(f"{path}: not an index manifest, or damaged: {describe_first(error)}") from error
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); build the index again") from error


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of this package's manifests, by stem (`index`: `schemas/manifests/index.schema.json`)."""
    return {"index": IndexManifest.model_json_schema()}
