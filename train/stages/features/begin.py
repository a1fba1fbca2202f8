"""The beginning of a feature dataset: the encoder with its PCA, and the plan that all parts have in common."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from indexer.describer import Precision
from indexer.pca import fit as pca
from indexer.pca.sample_parts import SampleParts
from indexer.pca.transform import Transform
from seqdata.errors import OutputError
from seqdata.geometry import Float32Array, IntArray
from seqdata.storage.files import read_json, write_json_atomic
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.leftovers import SUFFIX, sweep
from seqdata.storage.lock import part_claimed
from seqdata.storage.parquet import write_parquet_atomic
from train.data.feature_files import ENCODER, IDS, MANIFEST, FeatureManifest, ids_table
from train.data.feature_parts import LOCK, SAMPLE, FeaturePlan, finish_features, read_plan
from train.models.frame_model import FrameModel
from train.models.fusion.basic import CentreFrame
from train.runs import checkpoint
from train.stages.features.request import FeatureRequest, check_request, encoder_hash, request_identity
from train.stages.features.work import FeatureArrays, FeatureWork, frame_source

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

REQUEST = ".request.json"
"""Says which request a folder belongs to, so that the same one can go on in it."""


def begin_features(
    model: FrameModel,
    dataset: "Dataset",
    out: str | Path,
    request: FeatureRequest,
    frames: IntArray | None = None,
) -> FeatureWork | FeatureManifest:
    """Settle what all parts have in common; the first job to come stores the encoder, its PCA fitted.

    Args:
        model: As for `write_features`, as the other arguments.
        dataset: Holds the frames.
        out: The folder.
        request: What is stored.
        frames: Frame rows int64 (n,), rising; None for all of the dataset.

    Returns:
        The work, or the manifest where the same request is finished.

    Raises:
        SeqdataError: As `write_features`.
    """
    folder = Path(out)
    check_request(model, request)
    keys = dataset.frame_columns("key")["key"]
    rows = np.arange(len(keys)) if frames is None else frames
    where = request.settings.torch_device
    model = model.to(where).eval()
    _drop_fusion(model)
    finished = _take_up(folder, request_identity(model, dataset, request, rows, where))
    if finished is not None:
        return finished
    if request.pca is not None and not _encoder_file(folder).is_file():
        # Before the lock: jobs that begin together describe the sample together.
        _sample(model, dataset, folder, request, rows)
    with part_claimed(folder / LOCK, wait=True):
        _settle_projection(model, dataset, folder, request, rows)
        arrays = FeatureArrays(model, frame_source(model, dataset, request, rows), request)
        plan = read_plan(folder)
        if plan is None:
            checkpoint.save_model(folder / ENCODER, model, {"dataset": dataset.id})
            write_parquet_atomic(ids_table(rows, keys.gather(rows)), folder / IDS)
            plan = _plan(arrays, dataset, folder, rows)
            plan.write(folder)
    return FeatureWork(folder, plan, rows, arrays)


def _settle_projection(
    model: FrameModel, dataset: "Dataset", folder: Path, request: FeatureRequest, rows: IntArray
) -> None:
    """Give the model the projection of the request's PCA: the stored one, else fitted on the sample."""
    if request.pca is None:
        return
    if _encoder_file(folder).is_file():
        # Fitted again on other threads it might differ in its last bits from what described the parts that are there.
        state = checkpoint.read_tensors(folder / f"{ENCODER}.safetensors")
        weight, bias = state["projection.weight"], state["projection.bias"]
    else:
        sample = _sample(model, dataset, folder, request, rows).data()
        transform = pca.fit(sample, request.pca, whiten=request.whiten, seed=request.seed)
        weight, bias = _linear_form(transform)
    model.projection = _frozen_linear(weight, bias).to(request.settings.torch_device)
    model.config = {**model.config, "projection": request.pca}


def _linear_form(transform: Transform) -> tuple[Tensor, Tensor]:
    """Weight (k, d) and bias (k,) float32 of a PCA as a linear map: W·x − W·mean."""
    matrix = torch.from_numpy(np.asarray(transform.matrix, np.float64))
    return matrix.float(), -(matrix @ torch.from_numpy(np.asarray(transform.mean, np.float64))).float()


def _frozen_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def _plan(arrays: FeatureArrays, dataset: "Dataset", folder: Path, rows: IntArray) -> FeaturePlan:
    """The plan of features of frame rows, whose ids are written."""
    request = arrays.request
    shape = next(arrays.of_frames(rows[:1])).shape[1:]
    row_bytes = math.prod(shape) * np.dtype(request.dtype).itemsize
    return FeaturePlan(
        level=request.level,
        dataset=dataset.id,
        encoder=encoder_hash(arrays.model, request.level),
        shape=shape,
        dtype=request.dtype,
        rows=len(rows),
        runtime=request.settings.runtime,
        precision=cast(Precision, request.settings.arithmetic.get("precision", "fp32")),
        resize=request.settings.resize or "pillow",
        ids_hash=xxh3_file(folder / IDS),
        part_rows=max(1, request.part_bytes // row_bytes),
    )


def _take_up(folder: Path, identity: str) -> FeatureManifest | None:
    """Begin in a folder, or take up what the same request left there; the manifest where it is finished.

    Raises: OutputError when it holds something else.
    """
    # A kill may leave a half-written request alone.
    sweep(folder)
    # What is still being written is another job's that began this moment.
    entries = folder.iterdir() if folder.is_dir() else ()
    names = [path.name for path in entries if not path.name.endswith(SUFFIX)]
    if REQUEST in names and read_json(folder / REQUEST) == {"request": identity}:
        return finish_features(folder) if MANIFEST in names else None
    if names:
        raise OutputError(
            f"{folder}: the folder is not empty, and holds no part of this request; choose another --out, or remove it"
        )
    write_json_atomic(folder / REQUEST, {"request": identity})
    return None


def _encoder_file(folder: Path) -> Path:
    """The file of the encoder that is written last."""
    return folder / f"{ENCODER}.json"


def _drop_fusion(model: FrameModel) -> None:
    """Features are of single frames: the stored encoder keeps no fusion that windows would need."""
    if not model.vlad_sums:
        model.fusion, model.length = CentreFrame(), None
        model.config = {**model.config, "fusion": "centre"}


def _sample(
    model: FrameModel, dataset: "Dataset", folder: Path, request: FeatureRequest, rows: IntArray
) -> SampleParts:
    """Describe what is missing of the random frames that the PCA is fitted on, without one; returns all."""
    model.projection = None
    count = min(request.sample, len(rows))
    sampled_rows = np.sort(np.random.default_rng(request.seed).choice(rows, count, replace=False))
    # In PyTorch for ONNX Runtime too, whose program holds the projection.
    settings = replace(request.settings, device=request.settings.place, runtime="torch")
    whole = replace(request, dtype="float32", settings=settings)
    arrays = FeatureArrays(model, frame_source(model, dataset, whole, rows), whole)

    def describe(part: range) -> Float32Array:
        return np.concatenate(list(arrays.of_frames(sampled_rows[part.start : part.stop])))

    size = next(arrays.of_frames(rows[:1])).shape[1]
    parts = SampleParts(folder / SAMPLE, count, size)
    parts.complete(describe)
    return parts
