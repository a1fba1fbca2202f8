"""Write a feature dataset: every frame is described once, and heads train from the stored vectors."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.lib.format as npy
import torch
from torch import Tensor, nn

from indexer.localizer.pack import FRAMES
from indexer.localizer.programs.session import open_program
from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, OutputError
from seqdata.geometry import IntArray
from seqdata.storage.files import atomic_path, read_json, write_json_atomic
from seqdata.storage.hashing import sha256_json, xxh3_file, xxh3_hex
from seqdata.storage.leftovers import sweep
from seqdata.storage.parquet import write_parquet_atomic
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
from train.data.program_frames import ProgramFrames, Runtime
from train.devices import pick_device
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
    """What to write: the level, the type of the rows, frames in a backbone pass, where to compute.

    `pca`: numbers a frame after a PCA that is fitted on `sample` random frames, whitened with `whiten`; it becomes the
    model's projection (frame level only). `runtime`: what encodes frames; ONNX Runtime gives the frame level alone.
    """

    level: Level = "frame"
    dtype: Literal["float16", "float32"] = "float16"
    pca: int | None = None
    whiten: bool = True
    sample: int = 16_384
    seed: int = 0
    batch_size: int = 64
    device: str = "auto"
    runtime: Runtime = "torch"


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
    where = pick_device("cpu" if request.runtime == "onnx" else request.device)
    size = native_size(dataset, rows[:, None], model.size)
    source = FrameSource(dataset, size)
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
        _fit_projection(model, source, rows, request, where)
    checkpoint.save_model(folder / ENCODER, model, {"dataset": dataset.id})
    if request.runtime == "onnx":
        # After the projection, which is part of what is exported.
        source = ProgramFrames(dataset, size, lambda size: open_program(export_encoder(model, size), Path(FRAMES)))
    parts = list(_write_parts(folder, model, source, rows, request, where, progress))
    write_parquet_atomic(ids_table(rows, keys.gather(rows)), folder / IDS)
    model.cpu()
    shape = _features(model, source, rows[:1], request, torch.device("cpu")).shape[1:]
    manifest = FeatureManifest(
        level=request.level,
        dataset=dataset.id,
        encoder=encoder_hash(model, request.level),
        shape=tuple(shape),
        dtype=request.dtype,
        rows=len(rows),
        parts=tuple(parts),
        runtime=request.runtime,
        ids_hash=xxh3_file(folder / IDS),
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _identity(
    model: FrameModel, dataset: "Dataset", request: FeatureRequest, rows: IntArray, where: torch.device
) -> str:
    """SHA-256 over all that decides the bytes of the parts."""
    settings = {name: value for name, value in asdict(request).items() if name not in ("batch_size", "device")}
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
    if request.runtime == "onnx" and (request.level == "token" or request.device not in ("auto", "cpu")):
        raise ContractError("--runtime onnx: for --level frame, on the CPU")
    if request.pca is not None and (request.level == "token" or model.vlad_sums):
        raise ContractError("--pca needs one vector a frame: level frame, and a pooling other than vlad")


def _drop_fusion(model: FrameModel) -> None:
    """Features are of single frames: the stored encoder keeps no fusion that windows would need."""
    if not model.vlad_sums:
        model.fusion, model.length = CentreFrame(), None
        model.config = {**model.config, "fusion": "centre"}


def _fit_projection(
    model: FrameModel, source: FrameSource, rows: IntArray, request: FeatureRequest, where: torch.device
) -> None:
    """Fit the PCA on random frames and put it into the model as its projection."""
    model.projection = None
    count = min(request.sample, len(rows))
    sampled_rows = np.sort(np.random.default_rng(request.seed).choice(rows, count, replace=False))
    batches = (sampled_rows[start : start + request.batch_size] for start in range(0, count, request.batch_size))
    sample = np.concatenate([_features(model, source, batch, request, where).numpy() for batch in batches])
    fitted = pca.fit(sample, cast(int, request.pca), whiten=request.whiten, seed=request.seed)
    model.projection = _as_linear(fitted).to(where)
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


@torch.no_grad()
def _features(
    model: FrameModel, source: FrameSource, rows: IntArray, request: FeatureRequest, where: torch.device
) -> Tensor:
    """Features of frames `(n, ...)` float32 on the CPU."""
    frames = torch.from_numpy(source.read(rows)).to(where)
    features = model.tokens(frames) if request.level == "token" else source.encode(model, frames)
    return features.float().cpu()


def _write_parts(
    folder: Path,
    model: FrameModel,
    source: FrameSource,
    rows: IntArray,
    request: FeatureRequest,
    where: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Iterator[FeaturePart]:
    """Write the `.npy` parts, each of about a gigabyte, batch after batch."""
    first = _features(model, source, rows[:1], request, where)[0]
    per_part = max(1, PART_BYTES // (first.numel() * np.dtype(request.dtype).itemsize))
    for number, start in enumerate(range(0, len(rows), per_part)):
        of_part = rows[start : start + per_part]
        path = folder / f"part-{number:05d}.npy"
        header = _header((len(of_part), *first.shape), request.dtype)
        part_bytes = len(header) + len(of_part) * first.numel() * np.dtype(request.dtype).itemsize
        # A part has its name only when it is whole, so one that is there is kept.
        if path.is_file() and path.stat().st_size == part_bytes:
            yield FeaturePart(name=path.name, rows=len(of_part), start=len(header), hash=xxh3_file(path))
            continue
        # The header is written by hand and rows follow as they come: a part is never in memory as a whole.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(header)
            for at in range(0, len(of_part), request.batch_size):
                features = _features(model, source, of_part[at : at + request.batch_size], request, where)
                file.write(np.ascontiguousarray(features.numpy(), request.dtype).tobytes())
                if progress is not None:
                    progress(start + min(at + request.batch_size, len(of_part)), len(rows))
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
