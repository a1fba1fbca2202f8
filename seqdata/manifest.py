"""The dataset's manifest: what it was built from, with which settings and tools, and the hash of every file.

It is written last; a folder without one is an unfinished build. It holds no time and no path of the machine, so two
builds of one dump give the same bytes, and the dataset's id is the SHA-256 of this file's content.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from seqdata.errors import ContractError, InputError
from seqdata.protocols import Frozen, Protocol, describe_first
from seqdata.storage import read_json, sha256_json

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"
_TOOLS = ("seqdata", "polars", "pyarrow", "numpy", "pillow", "simplejpeg", "utm", "shapely")


class SourceInfo(Frozen):
    """Which dump it came from: kind, the source's options, SHA-256 over the listing (paths and sizes), and credit."""

    kind: str
    options: dict[str, str]
    fingerprint: str
    attribution: str


class BuildSettings(Frozen):
    """Settings that decide the bytes of a dataset. Units: bytes and metres."""

    keep_png: bool = False
    check: Literal["header", "decode"] = "header"
    shard_bytes: int = Field(default=256 << 20, ge=1 << 16)
    halo: int = Field(default=14, ge=0)
    resample_metres: float = Field(default=2.0, gt=0)
    resample_rule: Literal["greedy", "arc"] = "greedy"


class ShardInfo(Frozen):
    """One tar: name below `shards/`, bytes, XXH3-128 of it and of its Parquet, frames, halo frames before them."""

    name: str
    bytes: int
    hash: str
    seal: str
    frames: int
    halo: int


class TableInfo(Frozen):
    """One Parquet table: size in bytes, XXH3-128, rows."""

    bytes: int
    hash: str
    rows: int


class Counts(Frozen):
    """Frames and trajectories stored, image bytes, and inputs left out by reason."""

    frames: int
    trajectories: int
    image_bytes: int
    quarantined: dict[str, int]


class DatasetManifest(Frozen):
    """Everything `seqdata.open` needs to know before it touches a table."""

    schema_version: Literal[1] = 1
    kind: Literal["dataset"] = "dataset"
    source: SourceInfo
    settings: BuildSettings
    protocol: Protocol | None
    tools: dict[str, str]
    shards: tuple[ShardInfo, ...]
    tables: dict[str, TableInfo]
    counts: Counts

    @property
    def id(self) -> str:
        """SHA-256 of the manifest's content: equal ids mean equal datasets."""
        return sha256_json(self.model_dump(mode="json"))


def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide bytes."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def read_manifest(folder: str | Path) -> DatasetManifest:
    """The manifest of a dataset folder.

    Raises: InputError when the folder is no dataset or an unfinished build, ContractError when the manifest is broken.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        if (Path(folder) / "shards").is_dir():
            raise InputError(
                f"{folder}: the build is unfinished (no {MANIFEST_NAME}); run the same seqdata build again"
            )
        raise InputError(f"{folder}: no dataset here (no {MANIFEST_NAME}); name a folder that seqdata build wrote")
    return parse_manifest(read_json(path), path)


def parse_manifest(data: Any, path: Path) -> DatasetManifest:
    """The manifest in `data`. Raises: ContractError that names the first wrong field, or a version that is too new."""
    if isinstance(data, dict) and data.get("kind") not in (None, "dataset"):
        raise ContractError(f"{path}: holds the manifest of another kind ({data['kind']}), not of a dataset")
    if isinstance(data, dict) and data.get("schema_version", 0) != SCHEMA_VERSION:
        raise ContractError(
            f"{path}: schema version {data.get('schema_version')}, this program reads {SCHEMA_VERSION}; update seqdata"
        )
    try:
        return DatasetManifest.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"{path}: {describe_first(error)}") from error


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of this floor's models, by the file name they have in `schemas/manifests`."""
    return {"dataset": DatasetManifest.model_json_schema(), "protocol": Protocol.model_json_schema()}
