"""From an index and its run to a pack: programs exported, the index beside them, a reject threshold calibrated."""

import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal

from indexer.localizer.frame_form import index_form, index_protocol
from indexer.localizer.pack import (
    FRAMES,
    INDEX,
    MANIFEST,
    Latency,
    PackManifest,
    Quantisation,
    file_records,
    read_pack,
    read_pack_manifest,
)
from indexer.localizer.programs.onnx_files import check_onnx
from indexer.localizer.programs.session import Program, open_program
from indexer.localizer.reject import Calibration
from indexer.localizer.search import check_same_form
from indexer.place_index import PlaceIndex
from indexer.versions.manifest import library_versions
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.frames.images import Pixels
from seqdata.parallel import StageProgress
from seqdata.storage.files import atomic_folder, explain_write_failure, write_bytes_atomic, write_json_atomic
from seqdata.storage.hashing import sha256_json
from train.data.frames import FrameSource
from train.data.program_frames import ProgramFrames
from train.models.base import SequenceModel
from train.runs.checkpoint import load_model
from train.stages.calibrate import Judgement, judge_index, lacks, threshold_of
from train.stages.evaluate import check_belongs
from train.stages.export_onnx import export_model
from train.stages.pack_tests import measure_latency, median_interval, record_answers, recorded_windows, write_frames
from train.stages.quantise import quantise_int8, sample_rows

VALIDATION = "val"
PRECISION = 0.99
"""Share of accepted queries that must be right: a guess that suits loop closures, where a wrong place is costly."""

Kind = Literal["int8"]
KINDS: tuple[Kind, ...] = ("int8",)
"""Numbers that a frame program can be quantised to."""
QUANTISING_FRAMES = 128
"""Frames of the database that ranges of activations are measured on: twice what ONNX Runtime's examples take."""
NO_LATENCY = Latency(machine="", threads=1, rounds=0, median_ms=0.0, p95_ms=0.0)


@dataclass(frozen=True)
class PackRequest:
    """What to pack: the run behind the index, where the pack goes, and how its threshold is calibrated.

    `split`: whose queries it is calibrated on, None for the protocol's `val` where it has one. `precision`: the share
    of accepted queries that must be right. `dataset` holds them; None leaves the pack without a threshold, and without
    recorded frames. `quantise`: the frame program in numbers of 8 bits.
    `model_from`: see `train.runs.checkpoint.load_model`.
    """

    run: Path
    out: Path
    dataset: Dataset | None = None
    split: str | None = None
    precision: float = PRECISION
    device: str = "auto"
    model_from: str | None = None
    quantise: Kind | None = None


def calibration_split(index: PlaceIndex, split: str | None) -> str | None:
    """Choose the split that a threshold is calibrated on: the named one, else `val`, None where the protocol has none.

    Raises:
        ContractError: For a name that the protocol does not have.
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
    # A hidden folder beside the pack: no search for packs meets it before it is whole.
    with atomic_folder(request.out) as folder:
        (folder / INDEX).mkdir()
        manifest = {"id": identifier, **_fill(folder, index, model, request)}
        manifest |= _judge(folder, index, model, request, split, progress)
        _record(folder, index, request, split, manifest)
    return request.out


def _identifier(index: PlaceIndex, request: PackRequest, split: str | None) -> str:
    calibrated = None if request.dataset is None or split is None else [request.dataset.id, split, request.precision]
    recorded = None if request.dataset is None else request.dataset.id
    inputs = {"index": index.id, "calibrated": calibrated, "recorded": recorded, "quantise": request.quantise}
    return sha256_json({"schema_version": 2, **inputs})[:16]


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


def _fill(folder: Path, index: PlaceIndex, model: SequenceModel, request: PackRequest) -> dict[str, Any]:
    """Programs and index into `folder`; returns what the manifest says of them."""
    protocol = index_protocol(index)
    form = index_form(index, model.size)
    size = model.size or form.size
    if size is None:
        raise ContractError(
            f"index {index.id}: its frames differ in size and the model keeps theirs; it cannot be packed"
        )
    export_model(model, size, protocol.length, folder, _real_frames(index, request.dataset, protocol.length))
    try:
        for name in (MANIFEST, *index.manifest.files):
            # Manifests come from strangers too: a name that climbs out would be written there.
            if Path(name).name != name:
                raise ContractError(f"{index.path / MANIFEST}: names a file outside the version: '{name}'")
            shutil.copyfile(index.path / name, folder / INDEX / name)
    except OSError as error:
        explain_write_failure(folder, error)
    same_dataset = request.dataset if _is_indexed(index, request.dataset) else None
    info = None if request.dataset is None else request.dataset.manifest.source
    return {
        "length": protocol.length,
        "spacing": protocol.spacing,
        "interval": None if same_dataset is None else median_interval(index, same_dataset),
        "size": size,
        "form": form,
        "opset": check_onnx((folder / FRAMES).read_bytes(), folder / FRAMES),
        "model": model.config,
        "run": request.run.resolve().name,
        "checkpoint": index.manifest.inputs["checkpoint"],
        "index": index.id,
        "protocol": protocol.label,
        "dataset": index.manifest.inputs["dataset"],
        "attribution": "" if info is None else info.attribution,
        "licence": "" if info is None else info.licence,
    }


def _is_indexed(index: PlaceIndex, dataset: Dataset | None) -> bool:
    """Whether a dataset is the one that an index was built from."""
    return dataset is not None and dataset.id == index.manifest.inputs["dataset"]


def _real_frames(index: PlaceIndex, dataset: Dataset | None, count: int) -> list[Pixels] | None:
    """The first frames of a dataset in the form that the index's have, None without a dataset."""
    if dataset is None:
        return None
    rows = dataset.frame_rows(index.sequences.head(1))[0] if _is_indexed(index, dataset) else range(count)
    return list(dataset.read_frames(list(rows), index_form(index, None).size))


def _judge(
    folder: Path,
    index: PlaceIndex,
    model: SequenceModel,
    request: PackRequest,
    split: str | None,
    progress: StageProgress | None,
) -> dict[str, Any]:
    """Quantise where asked, and calibrate the threshold on the pack's own programs; the manifest's fields of both."""
    reason = _why_uncalibrated(index, request, split)
    judge = None
    if reason is None and request.dataset is not None and split is not None:
        source = _source(index, model, request.dataset)
        judge = partial(
            judge_index, index, model, request.dataset, split, source=source, device=request.device, progress=progress
        )
    quantised, judged = None, None
    if request.quantise is not None:
        before = None if judge is None else judge(query_source=_queries(folder, index, model, request.dataset))
        frames = _quantise(folder, index, request)
        judged = None if judge is None else judge(query_source=_queries(folder, index, model, request.dataset))
        quantised = Quantisation(
            frames=frames,
            recall_before=None if before is None else before.recall,
            recall_after=None if judged is None else judged.recall,
        )
    elif judge is not None:
        judged = judge(query_source=_queries(folder, index, model, request.dataset))
    calibration = None if judged is None else _threshold(judged, index, request, split)
    return {"calibration": calibration, "calibration_note": reason or "", "quantised": quantised}


def _queries(folder: Path, index: PlaceIndex, model: SequenceModel, dataset: Dataset | None) -> ProgramFrames:
    """Frames of a dataset as the pack's frame program encodes them."""
    assert dataset is not None  # noqa: S101  (nothing is judged without one)
    data = (folder / FRAMES).read_bytes()

    def open_frames(_: tuple[int, int]) -> Program:
        return open_program(data, folder / FRAMES)

    return ProgramFrames(dataset, index_form(index, model.size).size, open_frames)


def _quantise(folder: Path, index: PlaceIndex, request: PackRequest) -> int:
    """Put a quantised frame program in the place of the other; the number of frames that it was measured on.

    Raises: NotEnoughDataError without the index's dataset.
    """
    if request.dataset is None or not _is_indexed(index, request.dataset):
        raise NotEnoughDataError(
            "--quantise measures ranges on frames of the index's dataset "
            f"{index.manifest.inputs['dataset'][:12]}; name its folder with --dataset"
        )
    rows = sample_rows(request.dataset.frame_rows(index.sequences), QUANTISING_FRAMES)
    frames = list(request.dataset.read_frames(rows, index_form(index, None).size))
    path = folder / FRAMES
    data = path.read_bytes()
    height, width = open_program(data, path).shape[-2:]
    write_bytes_atomic(path, quantise_int8(data, frames, (height, width)))
    return len(frames)


def _threshold(judged: Judgement, index: PlaceIndex, request: PackRequest, split: str | None) -> Calibration:
    assert request.dataset is not None and split is not None  # noqa: S101  (they were judged)
    return threshold_of(judged, index, request.dataset, split, request.precision)


def _why_uncalibrated(index: PlaceIndex, request: PackRequest, split: str | None) -> str | None:
    """Why there can be no threshold, None where there can. Raises: as `write_pack`."""
    protocol, dataset = index_protocol(index), request.dataset
    if split is None:
        return f"protocol {protocol.name} has no split {VALIDATION}, and none was named: every place is accepted"
    if dataset is None:
        return f"no dataset with queries of split {split} was given: every place is accepted"
    check_same_form(index, dataset)
    lacking = lacks(dataset, protocol, split)
    if lacking is None:
        return None
    text = f"split {split} of {protocol.label} has no {lacking} in this dataset"
    if request.split is not None:
        raise NotEnoughDataError(f"{text}: no threshold can be calibrated; name another --split")
    return f"{text}: every place is accepted"


def _source(index: PlaceIndex, model: SequenceModel, dataset: Dataset) -> FrameSource | None:
    """Frames at the size of the index's, for a model that keeps sizes; None for the dataset's own reader."""
    size = index_form(index, model.size).size
    return None if size is None else FrameSource(dataset, size)


def _record(folder: Path, index: PlaceIndex, request: PackRequest, split: str | None, fields: dict[str, Any]) -> None:
    """Frames of the self-test, latency, and last the manifest."""
    names: list[tuple[str, ...]] = []
    # Windows of the database can be read from its own dataset only, queries from any.
    if request.dataset is not None and (split is not None or _is_indexed(index, request.dataset)):
        windows = recorded_windows(index, request.dataset, split)
        names = write_frames(folder, request.dataset, windows)
    # The localizer opens whole packs only: the first manifest lets it answer what the second one records.
    _write_manifest(folder, {**fields, "tests": (), "latency": NO_LATENCY})
    answers = record_answers(folder, names)
    _write_manifest(folder, {**fields, "tests": answers, "latency": measure_latency(folder, names)})


def _write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    manifest = PackManifest(
        **fields,
        files=file_records(folder),
        libraries=library_versions(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json", by_alias=True))
