"""What versions an index has, and what differs between two of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.versions.folders import list_versions, read_latest, read_tags, version_folder
from indexer.versions.locks import alone
from indexer.versions.manifest import IndexManifest, read_manifest, read_measured
from seqdata.errors import ContractError

HASHED = ("inputs", "settings", "normalised", "parent")
RECORDED = (
    "origin",
    "storage",
    "factory",
    "search",
    "rows",
    "input_size",
    "size",
    "transform",
    "threads",
    "seed",
    "libraries",
)


@dataclass(frozen=True)
class VersionEntry:
    """One line of an index's list: `fault` says what is damaged, all else is then unknown.

    `created` is UTC (ISO 8601), `bytes` of its files, `recall` recall@10 against exact search (None where it was not
    measured: 1 by construction for float32 vectors), `in_use` whether a reader has it open now.
    """

    id: str
    latest: bool
    tags: tuple[str, ...]
    created: str = ""
    rows: int = 0
    size: int = 0
    storage: str = ""
    factory: str = ""
    recall: float | None = None
    parent: str | None = None
    bytes: int = 0
    in_use: bool = False
    fault: str | None = None


def entries(index: Path) -> list[VersionEntry]:
    """The versions of a named index, oldest first."""
    latest, tags = read_latest(index), read_tags(index)
    versions = [_entry(index, item, latest, tags) for item in list_versions(index)]
    return sorted(versions, key=lambda entry: (entry.created, entry.id))


def _entry(index: Path, identifier: str, latest: str | None, tags: dict[str, str]) -> VersionEntry:
    folder = version_folder(index, identifier)
    names = tuple(tag for tag, named in tags.items() if named == identifier)
    try:
        manifest, measured = read_manifest(folder), read_measured(folder)
        # The only way to see readers from outside: flock keeps no list of them.
        with alone(folder) as free:
            in_use = not free
    except (ContractError, OSError) as error:
        return VersionEntry(identifier, identifier == latest, names, fault=str(error))
    recall = measured.recall or {}
    return VersionEntry(
        id=identifier,
        latest=identifier == latest,
        tags=names,
        created=measured.created,
        rows=manifest.rows,
        size=manifest.size,
        storage=manifest.storage,
        factory=manifest.factory,
        # Recall at ten where it was measured; older versions may hold another N alone.
        recall=recall.get(10, next(iter(recall.values()), None)),
        parent=manifest.parent,
        bytes=sum(record.bytes for record in manifest.files.values()),
        in_use=in_use,
    )


def differences(a: IndexManifest, b: IndexManifest) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Compare the manifests of two versions field by field.

    Args:
        a: One manifest.
        b: The other.

    Returns:
        Under `inputs` the fields behind their ids, under `recorded` what came out of them or merely went along
        (libraries): by dotted name the values (of a, of b), None where one lacks the field.
    """
    left, right = a.model_dump(mode="json"), b.model_dump(mode="json")
    return {
        title: _differing({name: left[name] for name in names}, {name: right[name] for name in names})
        for title, names in (("inputs", HASHED), ("recorded", RECORDED))
    }


def _differing(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    one, other = flatten(left), flatten(right)
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested JSON by dotted name; an empty table or list is a leaf."""
    if isinstance(value, dict) and value:
        parts = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
    # A list of plain values is one leaf, since a change in it reads best as a whole.
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        parts = [(f"{name}.{place}", item) for place, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for part, item in parts for key, leaf in flatten(item, part).items()}
