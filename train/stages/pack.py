"""From an index and its run to a pack: programs exported, the index beside them, a reject threshold calibrated."""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from indexer.localizer.frame_form import index_form, index_protocol
from indexer.localizer.pack import INDEX, MANIFEST, PackManifest, file_records, read_pack, read_pack_manifest
from indexer.localizer.reject import Calibration
from indexer.localizer.search import check_same_form
from indexer.place_index import PlaceIndex
from indexer.versions.manifest import library_versions
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.parallel import StageProgress
from seqdata.storage.files import explain_write_failure, write_json_atomic
from seqdata.storage.hashing import sha256_json
from train.data.frames import FrameSource
from train.models.base import SequenceModel
from train.runs.checkpoint import load_model
from train.stages.calibrate import calibrate_index, lacks
from train.stages.evaluate import check_belongs
from train.stages.export_programs import export_model

VALIDATION = "val"
PRECISION = 0.99
"""Share of accepted queries that must be right: a guess that suits loop closures, where a wrong place is costly."""


@dataclass(frozen=True)
class PackRequest:
    """What to pack: the run behind the index, where the pack goes, and how its threshold is calibrated.

    `split`: whose queries it is calibrated on, None for the protocol's `val` where it has one. `precision`: the share
    of accepted queries that must be right. `dataset` holds them; None leaves the pack without a threshold.
    `model_from`: see `train.runs.checkpoint.load_model`.
    """

    run: Path
    out: Path
    dataset: Dataset | None = None
    split: str | None = None
    precision: float = PRECISION
    device: str = "auto"
    model_from: str | None = None


def calibration_split(index: PlaceIndex, split: str | None) -> str | None:
    """Choose the split that a threshold is calibrated on: the named one, else `val`, None where the protocol has none.

    Raises: ContractError for a name that the protocol does not have.
    """
    protocol = index_protocol(index)
    if split is not None:
        protocol.split(split)
        return split
    return VALIDATION if VALIDATION in protocol.splits else None


def write_pack(index: PlaceIndex, request: PackRequest, progress: StageProgress | None = None) -> Path:
    """Write a pack whole or not at all; one of the same inputs that is there already stays as it is.

    Args:
        index: The index to pack.
        request: The run behind it, where the pack goes, and how its threshold is calibrated.
        progress: Called with the stage and its windows.

    Returns:
        The pack's folder.

    Raises:
        ContractError: If the run is not the index's, or its model cannot be exported.
        OutputError: If the folder holds something else.
        NotEnoughDataError: If no threshold is precise enough, or a named split has no queries.
    """
    check_belongs(index, request.run)
    split = calibration_split(index, request.split)
    identifier = _identifier(index, request, split)
    if _is_there(request.out, identifier):
        return request.out
    model = load_model(request.run, request.model_from)
    calibration, note = _calibrated(index, model, request, split, progress)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the pack, so that the rename stays on one file system; hidden, so that no search for packs meets it.
    with tempfile.TemporaryDirectory(prefix=f".{request.out.name}.", dir=request.out.parent) as workspace:
        folder = Path(workspace) / "pack"
        (folder / INDEX).mkdir(parents=True)
        manifest = _fill(folder, index, model, request.run)
        _write_manifest(folder, {**manifest, "id": identifier, "calibration": calibration, "calibration_note": note})
        try:
            folder.rename(request.out)
        except OSError as error:
            explain_write_failure(request.out, error)
    return request.out


def _identifier(index: PlaceIndex, request: PackRequest, split: str | None) -> str:
    calibrated = None if request.dataset is None or split is None else [request.dataset.id, split, request.precision]
    return sha256_json({"schema_version": 1, "index": index.id, "calibrated": calibrated})[:16]


def _is_there(out: Path, identifier: str) -> bool:
    """Whether `out` is this very pack. Raises: OutputError when it holds something else, ContractError if damaged."""
    if not out.exists():
        return False
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
        return False
    if not (out / MANIFEST).is_file() or read_pack_manifest(out).id != identifier:
        raise OutputError(f"{out}: holds something else; remove it, or name another folder with --out")
    read_pack(out)
    return True


def _fill(folder: Path, index: PlaceIndex, model: SequenceModel, run: Path) -> dict[str, Any]:
    """Programs and index into `folder`; returns what the manifest says of them."""
    protocol = index_protocol(index)
    form = index_form(index, model.size)
    size = model.size or form.size
    if size is None:
        raise ContractError(
            f"index {index.id}: its frames differ in size and the model keeps theirs; it cannot be packed"
        )
    export_model(model, size, protocol.length, folder)
    try:
        for name in (MANIFEST, *index.manifest.files):
            (folder / INDEX / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(index.path / name, folder / INDEX / name)
    except OSError as error:
        explain_write_failure(folder, error)
    return {
        "length": protocol.length,
        "spacing": protocol.spacing,
        "size": size,
        "form": form,
        "model": model.config,
        "run": run.resolve().name,
        "checkpoint": index.manifest.inputs["checkpoint"],
        "index": index.id,
        "protocol": protocol.label,
        "dataset": index.manifest.inputs["dataset"],
    }


def _write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    manifest = PackManifest(
        **fields,
        files=file_records(folder),
        libraries=library_versions(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json", by_alias=True))


def _calibrated(
    index: PlaceIndex, model: SequenceModel, request: PackRequest, split: str | None, progress: StageProgress | None
) -> tuple[Calibration | None, str]:
    """The threshold, or None and why there is none. Raises: as `write_pack`."""
    protocol, dataset = index_protocol(index), request.dataset
    if split is None:
        return None, f"protocol {protocol.name} has no split {VALIDATION}, and none was named: every place is accepted"
    if dataset is None:
        return None, f"no dataset with queries of split {split} was given: every place is accepted"
    check_same_form(index, dataset)
    lacking = lacks(dataset, protocol, split)
    if lacking is None:
        calibration = calibrate_index(
            index,
            model,
            dataset,
            split,
            precision=request.precision,
            source=_source(index, model, dataset),
            device=request.device,
            progress=progress,
        )
        return calibration, ""
    text = f"split {split} of {protocol.label} has no {lacking} in this dataset"
    if request.split is not None:
        raise NotEnoughDataError(f"{text}: no threshold can be calibrated; name another --split")
    return None, f"{text}: every place is accepted"


def _source(index: PlaceIndex, model: SequenceModel, dataset: Dataset) -> FrameSource | None:
    """Frames at the size of the index's, for a model that keeps sizes; None for the dataset's own reader."""
    size = index_form(index, model.size).size
    return None if size is None else FrameSource(dataset, size)
