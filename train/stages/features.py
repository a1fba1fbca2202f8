"""Write a feature dataset: every frame is described once, and heads train from the stored vectors."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.lib.format as npy
import torch
from numpy.typing import NDArray
from torch import nn

from indexer.describer import Precision
from indexer.localizer.pack import FRAMES
from indexer.localizer.programs.session import open_program
from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, OutputError
from seqdata.frames.prefetch import prefetch
from seqdata.geometry import IntArray
from seqdata.storage.files import atomic_path, read_json, write_json_atomic
from seqdata.storage.hashing import sha256_json, xxh3_file, xxh3_hex
from seqdata.storage.leftovers import sweep
from seqdata.storage.parquet import write_parquet_atomic
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.data.encode import encode_batches
from train.data.feature_files import (
    ENCODER,
    IDS,
    MANIFEST,
    FeatureManifest,
    FeaturePart,
    Level,
    ids_table,
    read_manifest,
)
from train.data.frames import FrameSource, native_size
from train.data.program_frames import ProgramFrames
from train.data.upload import Upload
from train.models.frame_model import FrameModel
from train.models.fusion.basic import CentreFrame
from train.runs import checkpoint
from train.stages.export_onnx import export_encoder

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

REQUEST = ".request.json"
"""Says which request a folder belongs to, so that the same one can go on in it."""
# Parts small enough to copy and to hash again one by one.
PART_BYTES = 1 << 30


@dataclass(frozen=True)
class FeatureRequest:
    """What to write: the level, the type of the rows, frames in a backbone pass, where and how to compute.

    `pca`: numbers a frame after a PCA that is fitted on `sample` random frames, whitened with `whiten`; it becomes the
    model's projection (frame level only). ONNX Runtime gives the frame level alone.
    """

    level: Level = "frame"
    dtype: Literal["float16", "float32"] = "float16"
    pca: int | None = None
    whiten: bool = True
    sample: int = 16_384
    seed: int = 0
    batch_size: int = 64
    settings: DescribeSettings = DEFAULT


def write_features(
    model: FrameModel,
    dataset: "Dataset",
    out: str | Path,
    request: FeatureRequest,
    frames: IntArray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureManifest:
    """Describe frames of a dataset into a folder, each frame once.

    Killed or interrupted and started again with the same arguments, it keeps the parts that are whole and goes on; a
    finished folder of the same request stays as it is.

    Args:
        model: A model of single frames and a fusion; its fusion is left out.
        dataset: Holds the frames.
        out: The new folder.
        request: Level, type and PCA of the stored vectors, and where to compute.
        frames: Frame rows int64 (n,), rising; None for all of the dataset.
        progress: Called with frames finished and frames in all.

    Returns:
        The manifest, which is written last.

    Raises:
        OutputError: If `out` holds something else.
        ContractError: If the model has no per-frame features, or the request has a PCA at token level.
        NotEnoughDataError: If there are too few frames for the PCA.
    """
    folder = Path(out)
    _check(model, request)
    keys = dataset.frame_columns("key")["key"]
    rows = np.arange(len(keys)) if frames is None else frames
    where = request.settings.torch_device
    size = native_size(dataset, rows[:, None], model.size)
    source = FrameSource(dataset, size, channels_last=where.type == "cuda")
    model = model.to(where).eval()
    _drop_fusion(model)
    finished = _take_up(folder, _identity(model, dataset, request, rows, where))
    if finished is not None:
        return finished
    if request.pca is not None and _encoder_file(folder).is_file():
        # Fitted again on other threads it might differ in its last bits from what described the parts that are there.
        projection: Any = checkpoint.load_model(folder / ENCODER).projection
        model.projection = projection.to(where)
        model.config = {**model.config, "projection": request.pca}
    elif request.pca is not None:
        _fit_projection(model, source, rows, request)
    checkpoint.save_model(folder / ENCODER, model, {"dataset": dataset.id})
    if request.settings.runtime == "onnx":
        # After the projection, which is part of what is exported.
        source = ProgramFrames(dataset, size, lambda size: open_program(export_encoder(model, size), Path(FRAMES)))
    arrays = _Arrays(model, source, request)
    shape = next(arrays.of_frames(rows[:1])).shape[1:]
    parts = list(_write_parts(folder, arrays, rows, shape, progress))
    write_parquet_atomic(ids_table(rows, keys.gather(rows)), folder / IDS)
    manifest = FeatureManifest(
        level=request.level,
        dataset=dataset.id,
        encoder=encoder_hash(model, request.level),
        shape=shape,
        dtype=request.dtype,
        rows=len(rows),
        parts=tuple(parts),
        runtime=request.settings.runtime,
        precision=cast(Precision, request.settings.arithmetic.get("precision", "fp32")),
        ids_hash=xxh3_file(folder / IDS),
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _identity(
    model: FrameModel, dataset: "Dataset", request: FeatureRequest, rows: IntArray, where: torch.device
) -> str:
    """SHA-256 over all that decides the bytes of the parts."""
    settings = {name: getattr(request, name) for name in ("level", "dtype", "pca", "whiten", "sample", "seed")}
    # Beside the runtime a precision counts where it rounds; without one, folders of earlier releases keep theirs.
    settings |= {"runtime": request.settings.runtime, **request.settings.arithmetic}
    frames = xxh3_hex(np.ascontiguousarray(rows, "<i8").tobytes())
    inputs = {"dataset": dataset.id, "frames": frames, "weights": encoder_hash(model, "frame"), "device": where.type}
    return sha256_json({**inputs, **settings, "size": model.size})


def _take_up(folder: Path, identity: str) -> FeatureManifest | None:
    """Begin in a folder, or take up what the same request left there; the manifest where it is finished.

    Raises: OutputError when it holds something else.
    """
    # A kill may leave a half-written request alone.
    sweep(folder)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if REQUEST in names and read_json(folder / REQUEST) == {"request": identity}:
        return read_manifest(folder) if MANIFEST in names else None
    if names:
        raise OutputError(
            f"{folder}: the folder is not empty, and holds no part of this request; choose another --out, or remove it"
        )
    write_json_atomic(folder / REQUEST, {"request": identity})
    return None


def _encoder_file(folder: Path) -> Path:
    """The file of the encoder that is written last."""
    return folder / f"{ENCODER}.json"


def _check(model: nn.Module, request: FeatureRequest) -> None:
    """Raise ContractError for a model or a request that gives no single-frame vectors."""
    if not isinstance(model, FrameModel):
        raise ContractError(
            f"{type(model).__name__} is no function of single frames; describe with a late fusion model"
        )
    if request.settings.runtime == "onnx" and request.level == "token":
        raise ContractError("--runtime onnx: for --level frame")
    if request.pca is not None and (request.level == "token" or model.vlad_sums):
        raise ContractError("--pca needs one vector a frame: level frame, and a pooling other than vlad")


def _drop_fusion(model: FrameModel) -> None:
    """Features are of single frames: the stored encoder keeps no fusion that windows would need."""
    if not model.vlad_sums:
        model.fusion, model.length = CentreFrame(), None
        model.config = {**model.config, "fusion": "centre"}


def _fit_projection(model: FrameModel, source: FrameSource, rows: IntArray, request: FeatureRequest) -> None:
    """Fit the PCA on random frames and put it into the model as its projection."""
    model.projection = None
    count = min(request.sample, len(rows))
    sampled_rows = np.sort(np.random.default_rng(request.seed).choice(rows, count, replace=False))
    whole = _Arrays(model, source, replace(request, dtype="float32"))
    sample = np.concatenate(list(whole.of_frames(sampled_rows)))
    fitted = pca.fit(sample, cast(int, request.pca), whiten=request.whiten, seed=request.seed)
    model.projection = _as_linear(fitted).to(request.settings.torch_device)
    model.config = {**model.config, "projection": request.pca}


def _as_linear(transform: Transform) -> nn.Linear:
    """A PCA as a frozen linear map: W·(x − mean)."""
    matrix = torch.from_numpy(np.asarray(transform.matrix, np.float64))
    layer = nn.Linear(matrix.shape[1], matrix.shape[0])
    with torch.no_grad():
        layer.weight.copy_(matrix)
        layer.bias.copy_(-(matrix @ torch.from_numpy(np.asarray(transform.mean, np.float64))))
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    return layer


class _Arrays:
    """What is stored of frames, computed batch by batch where the request says, and brought to the host."""

    def __init__(self, model: FrameModel, source: FrameSource, request: FeatureRequest) -> None:
        self.request = request
        self._upload = Upload(request.settings.torch_device)
        self._read = source.read
        self._encode = model.tokens if request.level == "token" else partial(source.encode, model)

    def of_frames(self, rows: IntArray) -> Iterator[NDArray[Any]]:
        """Yield features (m, …) of frame rows (n,), in order, in the type of the request."""
        size, dtype = self.request.batch_size, getattr(torch, self.request.dtype)
        batches = (rows[start : start + size] for start in range(0, len(rows), size))
        encoded = encode_batches(batches, self._read, self._encode, self._upload, self.request.settings.precision)
        # Rounded where they are: half the bytes come to the host.
        arrays = (features.to(dtype).cpu().numpy() for _, features in encoded)
        # A card goes on encoding while the host writes.
        return prefetch(arrays, lambda array: array) if self._upload.device.type == "cuda" else arrays


def _write_parts(
    folder: Path,
    arrays: _Arrays,
    rows: IntArray,
    shape: tuple[int, ...],
    progress: Callable[[int, int], None] | None,
) -> Iterator[FeaturePart]:
    """Write the `.npy` parts of rows of a shape, each of about a gigabyte, batch after batch."""
    dtype = arrays.request.dtype
    frame_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    per_part = max(1, PART_BYTES // frame_bytes)
    for number, start in enumerate(range(0, len(rows), per_part)):
        of_part = rows[start : start + per_part]
        path = folder / f"part-{number:05d}.npy"
        header = _header((len(of_part), *shape), dtype)
        # A part has its name only when it is whole, so one that is there is kept.
        if path.is_file() and path.stat().st_size == len(header) + len(of_part) * frame_bytes:
            yield FeaturePart(name=path.name, rows=len(of_part), start=len(header), hash=xxh3_file(path))
            continue
        # The header is written by hand and rows follow as they come: a part is never in memory as a whole.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(header)
            count = start
            for features in arrays.of_frames(of_part):
                file.write(np.ascontiguousarray(features).tobytes())
                count += len(features)
                if progress is not None:
                    progress(count, len(rows))
        yield FeaturePart(name=path.name, rows=len(of_part), start=len(header), hash=xxh3_file(path))


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The bytes of a `.npy` file before its rows."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def encoder_hash(model: FrameModel, level: Level) -> str:
    """SHA-256 over the names and bytes of the weights that decide features of a level."""
    parts = ("encoder.",) if level == "token" else ("encoder.", "pooling.", "projection.")
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(parts):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
