"""Whether a version's files are those that its manifest names."""

from pathlib import Path

from indexer.versions.manifest import MANIFEST, IndexManifest, read_manifest, read_measured, version_id
from seqdata.errors import ContractError
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.names import refuse_links


def check_file(folder: Path, manifest: IndexManifest, name: str, hashed: bool) -> None:
    """Compare a file with the manifest.

    Args:
        folder: The version's folder.
        manifest: Its manifest.
        name: The file.
        hashed: Whether to compare its hash too, not its size alone.

    Raises:
        ContractError: If it is missing or differs; it is named.
    """
    path = folder / name
    refuse_links(folder, [name], folder / MANIFEST)
    record = manifest.files.get(name)
    if record is None or not path.is_file():
        raise ContractError(f"{path}: missing; build the index again")
    # The size is compared first: a file cut short is then named without reading gigabytes.
    size = path.stat().st_size
    if size != record.bytes:
        raise ContractError(f"{path}: {size} bytes, its manifest says {record.bytes}; build the index again")
    if hashed and xxh3_file(path) != record.xxh3:
        raise ContractError(f"{path}: damaged (its hash differs from the manifest's); build the index again")


def check_version(folder: Path) -> IndexManifest:
    """Hash everything in a version's folder: its files, and its inputs against its id; returns the manifest.

    Raises:
        ContractError: Naming the first damaged or foreign file.
    """
    manifest = read_manifest(folder)
    identifier = version_id(
        manifest.inputs, normalise=manifest.normalised, settings=manifest.settings, arithmetic=manifest.arithmetic
    )
    if not identifier == manifest.id == folder.name:
        raise ContractError(
            f"{folder / 'manifest.json'}: says it is version {manifest.id}, its inputs are those of {identifier}; "
            "build the index again"
        )
    for name in manifest.files:
        check_file(folder, manifest, name, hashed=True)
    read_measured(folder)
    return manifest
