"""The dataset's manifest: what it was built from, with which settings and tools, and the hash of every file.

It is written last; a folder without one is an unfinished build. It holds no time and no path of the machine, so two
builds of one dump give the same bytes, and the dataset's id is the SHA-256 of this file's content as it is stored:
fields that later programs add never change an old dataset's id.

`manifest.json` is the latest version of the dataset. Older ones stay as `versions/000001.json` and so on; the tables of
version 1 stand beside the manifest, those of version n in `versions/<n>/`, the shards of all in `shards/`.

A version that was appended to or withdrawn from adds *segments* to the tables of the versions before it, so that it
costs what it adds; `seqdata.contracts.dataset_tables` reads both as one table.
"""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.version import VERSION
from seqdata.errors import ContractError, InputError
from seqdata.storage.hashing import checksum_line, is_listed, sha256_json, xxh3_file
from seqdata.storage.names import FileName, FlatName
from seqdata.storage.parquet import read_rows
from seqdata.storage.store import Store, parse_json

SCHEMA_VERSION: Literal[3] = 3
MANIFEST_NAME = "manifest.json"
CHECKSUM_NAME = "manifest.sha256"
PLAN_NAME = ".plan.json"
VERSIONS = "versions"
ADDED = "added"
SHARDS = "shards"
FRAMES_NAME = "frames.parquet"
# Packages whose version can change a stored byte: decoders, encoders, table writers, projections.
_TOOLS = ("seqdata", "polars", "pyarrow", "numpy", "pillow", "simplejpeg", "utm", "shapely")


class SourceInfo(Frozen):
    """Which raw dump frames came from.

    Attributes:
        kind: Kind of dump, such as "msls".
        options: The source's options; of a path only its last name.
        fingerprint: SHA-256 over the listing: every record and every input left out.
        attribution: Credit line that the dump's makers ask for.
        licence: Licence, empty where the credit line names it.
    """

    kind: str
    options: dict[str, str]
    fingerprint: str
    attribution: str
    licence: str = ""

    def same_dump(self, other: "SourceInfo") -> bool:
        """Compare kind, options and frames; the credit line does not count."""
        return (self.kind, self.options, self.fingerprint) == (other.kind, other.options, other.fingerprint)


class BuildSettings(Frozen):
    """Settings that decide the bytes of a dataset.

    Example:
        >>> BuildSettings(short_side=480).quality
        95
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    keep_png: bool = False
    """Store PNG images as they are; otherwise they are written as JPEG."""

    check: Literal["header", "decode"] = "header"
    """How images are checked: by their header and end marker, or by decoding every one."""

    short_side: int | None = Field(default=None, ge=16)
    """Greatest length of an image's shorter side, in pixels; every image is then written anew. None keeps the bytes."""

    quality: int = Field(default=95, ge=1, le=100)
    """Quality of the JPEGs that are written, 1 to 100."""

    drop: bool = False
    """Store no frame that the resampling rule leaves out."""

    max_radius: float | None = Field(default=None, gt=0)
    """How far stored pairs reach, in the protocol's unit, where that is farther than its own radii and 25."""

    shard_bytes: int = Field(default=256 << 20, ge=1 << 16)
    """Bytes of raw images after which a shard ends."""

    halo: int = Field(default=14, ge=0)
    """Frames repeated at the head of a shard that cuts a trajectory; 14 serve windows of up to 15 frames."""

    resample_metres: float = Field(default=2.0, gt=0)
    """Spacing of the resampling flag, in metres."""

    resample_rule: Literal["greedy", "arc"] = "greedy"
    """Rule of the resampling flag: distance from the last frame that remains, or marks along the path."""


class ShardInfo(Frozen):
    """One shard.

    Attributes:
        name: Name of the tar below `shards/`.
        bytes: Size of the tar.
        hash: XXH3-128 of the tar.
        seal: XXH3-128 of the Parquet that seals it.
        frames: Frames that it holds.
        halo: Repeated frames before them.
        source: Which of the manifest's sources its frames came from, from 0.
    """

    name: str
    bytes: int
    hash: str
    seal: str
    frames: int
    halo: int
    source: int = 0

    @field_validator("name")
    @classmethod
    def _numbered(cls, value: str) -> str:
        # The frames table names shards by their numbers, so no other name can be read.
        if not re.fullmatch(r"part-\d{6,9}\.tar", value):
            raise ValueError(f"{value!r} is no name of a shard, such as part-000000.tar")
        return value

    @property
    def seal_name(self) -> str:
        """Name of the Parquet below `shards/` that seals the shard."""
        return seal_name(self.name)


class TableInfo(Frozen):
    """One Parquet table: its path in the dataset, size in bytes, XXH3-128, rows."""

    path: FileName
    bytes: int
    hash: str
    rows: int

    @classmethod
    def measure(cls, path: str, file: Path) -> "TableInfo":
        """Describe the table in the local `file`, which is to stand at `path` in the dataset."""
        return cls(path=path, bytes=file.stat().st_size, hash=xxh3_file(file), rows=read_rows(file))


class Counts(Frozen):
    """Frames and trajectories stored, image bytes, and inputs left out by reason."""

    frames: int
    trajectories: int
    image_bytes: int
    quarantined: dict[str, int]


class DatasetManifest(Frozen):
    """Everything `seqdata.open` needs to know before it touches a table.

    `version` counts from 1; `parent` is the id of the version before. `sources` has one entry a build or append, in
    order. Frame rows of a version that was appended to stay what they were. `segments` lists, by the name of their
    table, the files that later versions added to `tables`, oldest first.
    """

    schema_version: Literal[3] = 3
    kind: Literal["dataset"] = "dataset"
    version: int = Field(default=1, ge=1)
    parent: str | None = None
    sources: tuple[SourceInfo, ...] = Field(min_length=1)
    settings: BuildSettings
    protocol: Protocol | None
    tools: dict[str, str]
    shards: tuple[ShardInfo, ...]
    tables: dict[FlatName, TableInfo]
    segments: dict[FlatName, tuple[TableInfo, ...]] = Field(default_factory=dict)
    counts: Counts
    _id: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _counted(self) -> "DatasetManifest":
        # Rows of frames are looked up by number in the table: one list of them, one count. Withdrawn frames are no part
        # of the count, but still rows of a segment (see `seqdata.contracts.dataset_tables`).
        rows = sum(part.rows for part in self.parts(FRAMES_NAME))
        if rows < self.counts.frames or (rows > self.counts.frames and not self.segments):
            raise ValueError(f"{self.counts.frames} frames are counted, {FRAMES_NAME} has {rows} rows")
        return self

    def model_post_init(self, _: Any) -> None:
        """A manifest that was not read has the id that it will be stored under."""
        # A manifest that is read gets its id from the stored text instead (see `parse_manifest`): fields that this
        # program adds would change it.
        self._id = self._id or sha256_json(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """SHA-256 of the manifest's content as it is stored: equal ids mean equal datasets."""
        return self._id

    @property
    def source(self) -> SourceInfo:
        """The first source: that of the build."""
        return self.sources[0]

    def parts(self, name: str) -> tuple[TableInfo, ...]:
        """List the files of a table in the order of their rows; none where the version has no such table."""
        first = (self.tables[name],) if name in self.tables else ()
        return (*first, *self.segments.get(name, ()))

    def table_files(self) -> list[TableInfo]:
        """List the files of every table."""
        return [part for name in dict.fromkeys((*self.tables, *self.segments)) for part in self.parts(name)]

    def files(self) -> list[str]:
        """List the files of this version, its manifest aside."""
        shards = [name for shard in self.shards for name in (shard.name, shard.seal_name)]
        return [*(table.path for table in self.table_files()), *(f"{SHARDS}/{name}" for name in shards)]


def seal_name(shard: str) -> str:
    """Name the Parquet that seals a shard.

    Example:
        >>> seal_name("part-000007.tar")
        'part-000007.parquet'
    """
    return shard.removesuffix(".tar") + ".parquet"


def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide bytes."""
    # Ours is the module's own: another distribution called seqdata may be installed beside it.
    versions = {"seqdata": VERSION}
    for name in _TOOLS[1:]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def read_manifest(place: str | Path | Store, version: int | None = None) -> DatasetManifest:
    """Read the manifest of a dataset.

    Args:
        place: Folder, fsspec URL or store of the dataset.
        version: Number of an older version, from 1; default: the latest.

    Returns:
        The manifest, upgraded where it was written by an older program; its id stays that of the stored content.

    Raises:
        InputError: If there is no dataset, an unfinished build, or no such version.
        ContractError: If the manifest is broken, or of a newer schema.
    """
    store = place if isinstance(place, Store) else Store(place)
    if store.size(MANIFEST_NAME) is None:
        # The plan goes last and shards come first, so either of them means that a build began here.
        if store.size(PLAN_NAME) is not None or store.names(SHARDS):
            raise InputError(f"{store}: the build is unfinished (no {MANIFEST_NAME}); run the same seqdata build again")
        raise InputError(f"{store}: no dataset here (no {MANIFEST_NAME}); name a folder that seqdata build wrote")
    # From a remote store both are asked for again where they do not belong together.
    for _ in range(1 if store.is_local else store.patience.tries):
        data = store.read_bytes(MANIFEST_NAME)
        is_changed = _is_changed(store, data)
        if not is_changed:
            break
    latest = parse_manifest(parse_json(data, f"{store}/{MANIFEST_NAME}"), f"{store}/{MANIFEST_NAME}")
    if is_changed:
        raise ContractError(
            f"{store}/{MANIFEST_NAME}: its bytes have changed since the build ({CHECKSUM_NAME} has another hash); copy "
            "both files again from where the dataset came from"
        )
    return latest if version is None else manifest_of(store, latest, version)


def manifest_of(store: Store, latest: DatasetManifest, version: int) -> DatasetManifest:
    """Read the manifest of one version beside the latest, which is not read again.

    Args:
        store: The dataset's store.
        latest: Its latest manifest.
        version: Number of the version, from 1.

    Raises:
        InputError: If there is no such version.
        ContractError: If the manifest is broken.
    """
    if version == latest.version:
        return latest
    name = version_name(version)
    if not 1 <= version < latest.version or store.size(name) is None:
        numbers = version_numbers(store, latest)
        text = f"1 to {latest.version}" if len(numbers) == latest.version else ", ".join(map(str, numbers))
        raise InputError(f"{store}: no version {version}; there are {text}")
    return parse_manifest(store.read_json(name), f"{store}/{name}")


def version_numbers(store: Store, latest: DatasetManifest) -> list[int]:
    """List the numbers of a dataset's versions, rising: `seqdata gc` leaves gaps.

    Args:
        store: The dataset's store.
        latest: Its latest manifest.
    """
    # Looked for one by one, because a web server may list no folder. A manifest is copied to its later place before the
    # next version takes its name, so that a kill leaves the latest in both.
    older = range(1, latest.version)
    return [*(number for number in older if store.size(version_name(number)) is not None), latest.version]


def checksums(store: Store, version: int, data: bytes) -> bytes:
    """Make the content of `manifest.sha256` for a new manifest.

    The manifest of the version before is listed too, so that the file can be written first: until the manifest is in
    place, and after a kill in between, the old one is still found.

    Args:
        store: The dataset's store, with the manifest of the version before at its later place.
        version: Number of the new version.
        data: Bytes of the new manifest.
    """
    lines = checksum_line(MANIFEST_NAME, data)
    if version > 1:
        name = version_name(version - 1)
        lines += checksum_line(name, store.read_bytes(name))
    return lines


def _is_changed(store: Store, data: bytes) -> bool:
    """Whether the manifest is not the one whose hash stands beside it; older datasets have none."""
    size = store.size(CHECKSUM_NAME)
    return size is not None and not is_listed(data, store.read(CHECKSUM_NAME, 0, size))


def version_name(version: int) -> str:
    """Where the manifest of a version stands once a later one took its place."""
    return f"{VERSIONS}/{version:06d}.json"


def parse_manifest(data: Any, path: str | Path) -> DatasetManifest:
    """Check the content of a dataset's manifest.

    Args:
        data: The parsed JSON.
        path: Its file, for errors.

    Returns:
        The manifest, upgraded where it was written by an older program.

    Raises:
        ContractError: At the first wrong field, or for a version that is too new.
    """
    if isinstance(data, dict) and data.get("kind") not in (None, "dataset"):
        raise ContractError(f"{path}: holds the manifest of another kind ({data['kind']}), not of a dataset")
    schema_version = data.get("schema_version", 0) if isinstance(data, dict) else SCHEMA_VERSION
    if schema_version not in range(1, SCHEMA_VERSION + 1):
        raise ContractError(
            f"{path}: schema version {schema_version}, this program reads 1 to {SCHEMA_VERSION}; update seqdata"
        )
    try:
        manifest = DatasetManifest.model_validate(_upgrade(data, schema_version))
    except ValidationError as error:
        raise ContractError(f"{path}: {describe_first(error)}") from error
    manifest._id = sha256_json(data)
    return manifest


def _upgrade(data: Any, schema_version: int) -> Any:
    """A manifest of an older schema in today's form; what does not look like one is left for the model to refuse."""
    if schema_version == SCHEMA_VERSION:
        return data
    # Version 2 knew no segments, which are none by default.
    upgraded = {**data, "schema_version": SCHEMA_VERSION}
    if schema_version == 1:
        # Version 1 named a table by its path alone and had one source.
        upgraded["sources"] = [upgraded.pop("source")] if "source" in data else []
        tables = data.get("tables")
        if isinstance(tables, dict):
            upgraded["tables"] = {
                name: {"path": name, **info} if isinstance(info, dict) else info for name, info in tables.items()
            }
    return upgraded


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of this floor's models, by the file name they have in `schemas/manifests`."""
    return {"dataset": DatasetManifest.model_json_schema(), "protocol": Protocol.model_json_schema()}
