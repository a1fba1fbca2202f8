"""A pack: one self-contained folder that finds places from frames, without the training code and without PyTorch.

Its files: manifest.json, frames.onnx (a frame → its features), window.onnx (the features of a window → its
descriptor), index/ (an index version as it is: PCA, vectors, places), test/ (frames with the places that they have).
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.reject import Calibration
from indexer.versions.manifest import FileRecord
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError, InputError
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.names import check_name

MANIFEST = "manifest.json"
FRAMES = "frames.onnx"
WINDOW = "window.onnx"
INDEX = "index"
TEST = "test"


class Latency(Frozen):
    """How long one frame took, from JPEG to place, on the machine that made the pack.

    `machine` is its processor's name; `threads` of ONNX Runtime; times in milliseconds over `rounds` frames.
    """

    machine: str
    threads: int
    rounds: int
    median_ms: float
    p95_ms: float


class RecordedAnswer(Frozen):
    """What the frames of the self-test led to on the machine that made the pack: the place after the last of them."""

    frames: tuple[str, ...]
    key: str
    distance: float


class Quantisation(Frozen):
    """How the frame program was quantised, and what that cost on the queries of the calibration split.

    `kind` of numbers, `frames` that the ranges were measured on; R@1 of the float32 program and of this one.
    """

    kind: Literal["int8"] = "int8"
    frames: int
    recall_before: float | None
    recall_after: float | None


class PackManifest(Frozen):
    """What a pack holds, how it was judged, and what it was made from.

    `length` frames make a window, `spacing` metres apart where the protocol says so, `interval` seconds apart in the
    median of the database (None where its frames have no times); `size` (height, width) is what frames.onnx takes:
    frames in `form` of another size are brought to it by antialiased bilinear sampling. `opset` is the version of
    ONNX's operators. `calibration` is the reject threshold, or None, and `calibration_note` says why there is none.
    `quantised` tells of a frame program of 8 bits, `latency` what a frame cost, `tests` what the frames in test/ led
    to. `model`, `run`, `checkpoint`, `index`, `protocol` (name@hash) and `dataset` name the origin, `attribution` and
    `licence` whose images these are. `files`: path in the pack → size and hash.
    """

    schema_version: Literal[2] = 2
    kind: Literal["pack"] = "pack"
    id: str
    length: int = Field(ge=1)
    spacing: float | None
    interval: float | None = Field(gt=0)
    size: tuple[int, int]
    form: FrameForm
    opset: int
    calibration: Calibration | None
    calibration_note: str
    quantised: Quantisation | None
    latency: Latency
    tests: tuple[RecordedAnswer, ...]
    model: dict[str, Any]
    run: str
    checkpoint: str
    index: str
    protocol: str
    dataset: str
    attribution: str
    licence: str
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
        ContractError: If a file is damaged, foreign or not listed; it is named.
    """
    manifest = read_pack_manifest(folder)
    tests = [f"{TEST}/{name}" for answer in manifest.tests for name in answer.frames]
    for name in (FRAMES, WINDOW, f"{INDEX}/{MANIFEST}", *tests):
        if name not in manifest.files:
            raise ContractError(f"{folder / MANIFEST}: field 'files': '{name}' is missing; pack again")
    for name, record in manifest.files.items():
        _check_file(folder, name, record)
    unlisted = sorted(set(_names(folder)) - {*manifest.files, MANIFEST})
    if unlisted:
        raise ContractError(f"{folder / unlisted[0]}: the pack's manifest does not list it; remove it, or pack again")
    return manifest


def read_pack_manifest(folder: Path) -> PackManifest:
    """Read the manifest alone.

    Raises:
        InputError: When there is no pack.
        ContractError: When it is damaged.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        _refuse_old(path, data)
        return PackManifest.model_validate_json(data)
    except ValidationError as error:
        raise ContractError(f"{path}: not the manifest of a pack, or damaged: {describe_first(error)}") from error
    except OSError as error:
        raise InputError(f"{folder}: no pack here; make one with seqdata pack") from error


def is_pack(folder: Path) -> bool:
    """Whether a folder says that it is a pack, whatever its schema or its state."""
    try:
        fields = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("kind") == "pack"


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Measure size and hash of every file below a folder, by its path in it."""
    return {
        name: FileRecord(bytes=(folder / name).stat().st_size, xxh3=xxh3_file(folder / name)) for name in _names(folder)
    }


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of this manifest, by stem (`schemas/manifests/pack.schema.json`)."""
    return {"pack": PackManifest.model_json_schema()}


def _refuse_old(path: Path, data: bytes) -> None:
    """Raise ContractError for a pack of schema 1: PyTorch programs, whose loader imports what they name."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return  # the schema says what is wrong
    if isinstance(fields, dict) and (fields.get("kind"), fields.get("schema_version")) == ("pack", 1):
        raise ContractError(
            f"{path}: a pack of schema 1; its PyTorch programs can run code of their maker and are not opened; pack "
            "again with seqdata pack"
        )


def _names(folder: Path) -> list[str]:
    """Paths of everything below a folder that is no folder, links included, relative to it."""
    # os.walk follows no links to folders: they count as what they are.
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, folders, files in os.walk(folder)
        for name in [*files, *(name for name in folders if (Path(parent) / name).is_symlink())]
    )


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    """Raise ContractError when a file of a pack is not inside it, or differs from its record."""
    try:
        check_name(name)
    except ValueError as error:
        raise ContractError(f"{folder / MANIFEST}: field 'files': '{name}' leads out of the pack") from error
    path = folder / name
    if not path.is_file() or path.resolve() != folder.resolve() / name:
        raise ContractError(f"{path}: missing, or a link; pack again")
    size = path.stat().st_size
    if size != record.bytes:
        raise ContractError(f"{path}: {size} bytes, the pack's manifest says {record.bytes}; pack again")
    if xxh3_file(path) != record.xxh3:
        raise ContractError(f"{path}: damaged (its hash differs from the manifest's); pack again")
