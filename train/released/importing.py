"""A released file to a run folder: read, translated, fitted to its model, and written whole or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from seqdata.contracts.protocol import Protocol
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.files import atomic_folder
from seqdata.storage.hashing import sha256_file, xxh3_file
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.encoders.weight_files import check_values
from train.models.encoders.weights import read_state
from train.released.positions import resample_positions
from train.released.programs import PROGRAMS, likely_programs
from train.released.reading import Reading, UnreadableWeightsError
from train.runs import checkpoint
from train.runs.folder import RunFolder, environment
from train.settings import TrainSettings

BACKBONE = "backbone"
"""The kind of a file that holds a backbone alone, for the model that is named with it."""


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        kind: A name of `train.released.programs.PROGRAMS`, or "backbone".
        file: The released file.
        out: The run folder to write.
        protocol: Protocol that the run names; what reads the run may name another.
        frames: NetVLAD checkpoint of the frame vectors that SeqNet and SeqMatchNet stand behind.
        model: Preset that a backbone is put into.
        options: Model options over those that the file decides, such as `size`.
    """

    kind: str
    file: Path
    out: Path
    protocol: Protocol
    frames: Path | None = None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def import_run(request: ImportRequest) -> Path:
    """Write a run folder from a released file; no code of the file is run.

    Args:
        request: What to import.

    Returns:
        Path of the run folder.

    Raises:
        InputError: For a file that is missing, is no weights file, or is damaged.
        ContractError: For a file of another program, with what is missing and left over.
        OutputError: If the folder is not empty or cannot be written.
    """
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise OutputError(f"{request.out}: the folder is not empty; choose another --out")
    model = _backbone(request) if request.kind == BACKBONE else _released(request)
    with atomic_folder(request.out) as folder:
        _write(folder, model, request)
    return request.out


def _backbone(request: ImportRequest) -> SequenceModel:
    """The named preset on the file's backbone."""
    if request.model is None:
        raise ContractError("import backbone: name the model that it is for with --model; seqdata models lists them")
    _check_name(request.file)
    return models.create(request.model, weights=request.file, **request.options)


def _released(request: ImportRequest) -> SequenceModel:
    """The model of a released file."""
    program, file = PROGRAMS[request.kind], request.file
    tensors = _read(file, request.kind)
    if program.needs_frames and request.frames is None:
        raise ContractError(
            f"{file}: {program.title} stands behind the frame vectors of a NetVLAD checkpoint; name it with --frames"
        )
    frames = {} if request.frames is None else _read(request.frames, "netvlad")
    try:
        reading = program.read(tensors, frames)
    except (KeyError, UnreadableWeightsError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ContractError(f"{file}: taken for {request.kind}: {reason}; {_advice(request, list(tensors))}") from error
    others = {key: value for key, value in tensors.items() if program.parts and not key.startswith(program.parts)}
    reading = replace(reading, state={**reading.state, **others})
    model = models.create(reading.model, weights="random", **_options(reading, request.options))
    if reading.positions is not None:
        grid = cast(tuple[int, int], model.get_submodule("encoder.backbone.patch_embed").grid_size)
        resampled = resample_positions(reading.state[reading.positions], grid)
        reading = replace(reading, state={**reading.state, reading.positions: resampled})
    state = _fitted(request, model, reading)
    check_values(file, state)
    model.load_state_dict(state)
    return model


def _options(reading: Reading, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the model: those of the file, those of the request over them, and positions of the frames' size."""
    merged = {**reading.options, **options}
    bound = merged.get("encoder_options", {})
    return {**merged, "encoder_options": {**bound, "img_size": merged["size"]}} if "img_size" in bound else merged


def _read(file: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a file of a program. Raises: ContractError when it is of another, or of half precision."""
    _check_name(file)
    tensors = read_state(file)
    keys = list(tensors)
    if not PROGRAMS[kind].recognises(keys):
        others = [name for name in likely_programs(keys) if name != kind]
        advice = f"import {others[0]} may take it" if others else f"import {BACKBONE} takes a backbone, with --model"
        raise ContractError(f"{file}: no file of {kind}: it holds {', '.join(keys[:3])}, …; {advice}")
    half = [key for key, value in tensors.items() if value.dtype in (torch.float16, torch.bfloat16)]
    if half:
        raise ContractError(
            f"{file}: '{half[0]}' is in half precision, which rounds every weight; take the file in float32"
        )
    return tensors


def _check_name(file: Path) -> None:
    """Raise InputError when a file's name ends in digits of another SHA-256 than its own (as torch.hub names files)."""
    digits = re.search(r"-([0-9a-f]{8})\.(?:pth|pt)$", file.name)
    if digits is None or not file.is_file():
        return
    own = sha256_file(file)
    if not own.startswith(digits[1]):
        raise InputError(f"{file}: its SHA-256 begins with {own[:8]}, its name says {digits[1]}; download it again")


def _fitted(request: ImportRequest, model: SequenceModel, reading: Reading) -> dict[str, Tensor]:
    """The state of the model from a reading. Raises: ContractError naming what is missing, left over or misshapen."""
    own = model.state_dict()
    unused = PROGRAMS[request.kind].unused
    from_file = {
        key: _shaped(value, own[key]) if key in own else value
        for key, value in reading.state.items()
        if key in own or not any(re.match(pattern, key) for pattern in unused)
    }
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    from_file = {**counters, **from_file}
    faults = {
        "missing": [key for key in own if key not in from_file],
        "left over": [key for key in from_file if key not in own],
        "of another shape": [key for key in from_file if key in own and from_file[key].shape != own[key].shape],
    }
    text = "; ".join(f"{len(keys)} {kind} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
                     for kind, keys in faults.items() if keys)  # fmt: skip
    if text:
        raise ContractError(
            f"{request.file}: taken for {request.kind}, model {reading.model}: {text}; "
            f"{_advice(request, list(reading.state))}"
        )
    return from_file


def _shaped(value: Tensor, own: Tensor) -> Tensor:
    """A tensor in the model's shape where only axes of length 1 differ, as of 1×1 convolutions; else as it is."""
    same = [side for side in value.shape if side != 1] == [side for side in own.shape if side != 1]
    return value.reshape(own.shape) if same else value


def _advice(request: ImportRequest, keys: list[str]) -> str:
    """What to do about a file that does not fit."""
    others = [name for name in likely_programs(keys) if name != request.kind]
    return f"import {others[0]} may take it" if others else "take the whole file, as it was released"


def _write(path: Path, model: SequenceModel, request: ImportRequest) -> None:
    """A finished run without an epoch."""
    folder, protocol = RunFolder(path), request.protocol
    # The name alone: a run is moved, and its file need not be there again.
    model.config = {**model.config, "weights": request.file.name}
    details = {"epoch": 0, "val": None, "dataset": ""}
    for stem in (folder.best, folder.last):
        checkpoint.save_model(stem, model, details)
    folder.add_metrics({"epoch": 0, "steps": 0, "val": None})
    settings = TrainSettings.create(
        model=str(model.config["name"]), weights=request.file.name, protocol=protocol.name, epochs=0,
        options=dict(request.options),
    )  # fmt: skip
    folder.write(
        {
            "format": checkpoint.FORMAT,
            "dataset": "",
            "dataset_path": "",
            "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
            "settings": settings.model_dump(mode="json"),
            "course": settings.same_course(),
            "features": None,
            "model": model.config,
            "weights_hash": xxh3_file(request.file),
            "descriptor_size": model.descriptor_size(model.length or protocol.length),
            "windows": {"query": 0, "database": 0},
            "environment": environment(),
            "later_environments": [],
            "finished": True,
            "imported": {"kind": request.kind, "file": request.file.name, "sha256": sha256_file(request.file)},
        }
    )
