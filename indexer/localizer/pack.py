"""A pack: one self-contained folder that finds places from frames, without the training code.

Its files: manifest.json, frames.pt2 (a frame → its features), window.pt2 (the features of a window → its descriptor),
index/ (an index version as it is: PCA, vectors, places).
"""

from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, ValidationError

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.reject import Calibration
from indexer.versions.manifest import FileRecord
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError, InputError
from seqdata.storage.hashing import xxh3_file

MANIFEST = "manifest.json"
FRAMES = "frames.pt2"
WINDOW = "window.pt2"
INDEX = "index"


class PackManifest(Frozen):
    """What a pack holds and what it was made from.

    `length` frames make a window, `spacing` metres apart where the protocol says so; `size` (height, width) is what
    frames.pt2 takes: frames in `form` of another size are brought to it by antialiased bilinear sampling. `calibration`
    is the reject threshold, or None, and `calibration_note` says why there is none. `model`, `run`, `checkpoint`,
    `index`, `protocol` (name@hash) and `dataset` name the origin. `files`: path in the pack → size and hash.
    """

    schema_version: Literal[1] = 1
    kind: Literal["pack"] = "pack"
    id: str
    length: int = Field(ge=1)
    spacing: float | None
    size: tuple[int, int]
    form: FrameForm
    calibration: Calibration | None
    calibration_note: str
    model: dict[str, Any]
    run: str
    checkpoint: str
    index: str
    protocol: str
    dataset: str
    files: dict[str, FileRecord]
    libraries: dict[str, str]
    created: str


def read_pack(folder: Path) -> PackManifest:
    """Read the manifest of a pack, and compare every file with it by size and hash before anything opens one.

    Args:
        folder: The pack.

    Returns:
        Its manifest.

    Raises:
        InputError: If there is no pack.
        ContractError: If a file is damaged or foreign; it is named.
    """
    manifest = read_pack_manifest(folder)
    for name in (FRAMES, WINDOW, f"{INDEX}/{MANIFEST}"):
        if name not in manifest.files:
            raise ContractError(f"{folder / MANIFEST}: field 'files': '{name}' is missing; pack again")
    for name, record in manifest.files.items():
        _check_file(folder, name, record)
    return manifest


def read_pack_manifest(folder: Path) -> PackManifest:
    """Read the manifest alone. Raises: InputError when there is no pack, ContractError when it is damaged."""
    path = folder / MANIFEST
    try:
        return PackManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ContractError(f"{path}: not the manifest of a pack, or damaged: {describe_first(error)}") from error
    except OSError as error:
        raise InputError(f"{folder}: no pack here; make one with seqdata pack") from error


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Measure size and hash of every file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(bytes=path.stat().st_size, xxh3=xxh3_file(path))
        for path in files
    }


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of this manifest, by stem (`schemas/manifests/pack.schema.json`)."""
    return {"pack": PackManifest.model_json_schema()}


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    """Raise ContractError when a file of a pack is not inside it, or differs from its record."""
    # Packs travel between people: names must stay inside the folder on every system, and through no symbolic link.
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
        raise ContractError(f"{folder / MANIFEST}: field 'files': '{name}' leads out of the pack")
    path = folder / name
    if not path.is_file() or path.resolve().parent != folder.resolve().joinpath(*parts[:-1]):
        raise ContractError(f"{path}: missing; pack again")
    size = path.stat().st_size
    if size != record.bytes:
        raise ContractError(f"{path}: {size} bytes, the pack's manifest says {record.bytes}; pack again")
    if xxh3_file(path) != record.xxh3:
        raise ContractError(f"{path}: damaged (its hash differs from the manifest's); pack again")
