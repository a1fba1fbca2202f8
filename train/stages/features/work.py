"""An unfinished feature dataset, opened to write any of its parts, and what computes the features of frames."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.lib.format as npy
import torch
from numpy.typing import NDArray

from indexer.localizer.pack import FRAMES
from indexer.localizer.programs.session import open_program
from seqdata.errors import InputError
from seqdata.frames.prefetch import prefetch
from seqdata.geometry import IntArray
from seqdata.storage.files import atomic_path
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.parquet import read_parquet
from train.data.encode import encode_batches
from train.data.feature_files import ENCODER, IDS, FeaturePart
from train.data.feature_parts import FeaturePlan, part_name, read_plan, seal_part, sealed_part
from train.data.frames import FrameSource, native_size
from train.data.program_frames import ProgramFrames
from train.data.upload import Upload
from train.devices import to_host
from train.models.frame_model import FrameModel
from train.runs import checkpoint
from train.stages.export_onnx import export_encoder
from train.stages.features.request import FeatureRequest

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class FeatureWork:
    """A feature dataset that is being written: its plan, the frames of its rows, and what computes their features."""

    folder: Path
    plan: FeaturePlan
    frames: IntArray
    arrays: "FeatureArrays"

    @classmethod
    def reopen(cls, folder: Path, dataset: "Dataset", request: FeatureRequest) -> "FeatureWork":
        """Take up what `begin_features` began, with the encoder that it stored.

        Raises:
            InputError: If nothing was begun there.
            ContractError: If what lies there is damaged.
        """
        plan = read_plan(folder)
        if plan is None:
            raise InputError(f"{folder}: no unfinished features here; run seqdata describe again")
        settings = request.settings
        loaded = checkpoint.load_model(folder / ENCODER, settings.model_from)
        model = cast(FrameModel, loaded).to(settings.torch_device).eval()
        frames = read_parquet(folder / IDS)["frame"].to_numpy().astype(np.int64)
        return cls(folder, plan, frames, FeatureArrays(model, frame_source(model, dataset, request, frames), request))

    def write(self, number: int, progress: Callable[[int, int], None] | None = None) -> FeaturePart:
        """Write and seal part `number` (from 0); one that is sealed stays as it is.

        Raises:
            OutputError: If the disk refuses.
            ContractError: If a frame is damaged.
        """
        part = sealed_part(self.folder, self.plan, number)
        if part is not None:
            return part
        rows, path = self.plan.rows_of(number), self.folder / part_name(number)
        header = _header((len(rows), *self.plan.shape), self.plan.dtype)
        # The header is written by hand and rows follow as they come: a part is never in memory as a whole.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(header)
            count = rows.start
            for features in self.arrays.of_frames(self.frames[rows.start : rows.stop]):
                file.write(np.ascontiguousarray(features).tobytes())
                count += len(features)
                if progress is not None:
                    progress(count, self.plan.rows)
        part = FeaturePart(name=path.name, rows=len(rows), start=len(header), hash=xxh3_file(path))
        seal_part(self.folder, part)
        return part


class FeatureArrays:
    """What is stored of frames, computed batch by batch where the request says, and brought to the host."""

    def __init__(self, model: FrameModel, source: FrameSource, request: FeatureRequest) -> None:
        self.model, self.request = model, request
        self._upload = Upload(request.settings.torch_device)
        self._read = source.read
        self._encode = model.tokens if request.level == "token" else partial(source.encode, model)

    def of_frames(self, rows: IntArray) -> Iterator[NDArray[Any]]:
        """Yield features (m, …) of frame rows (n,), in order, in the type of the request."""
        size, dtype = self.request.batch_size, getattr(torch, self.request.dtype)
        batches = (rows[start : start + size] for start in range(0, len(rows), size))
        encoded = encode_batches(batches, self._read, self._encode, self._upload, self.request.settings.precision)
        # Rounded where they are: half the bytes come to the host.
        arrays = (to_host(features.to(dtype)) for _, features in encoded)
        # A card goes on encoding while the host writes.
        return prefetch(arrays, lambda array: array) if self._upload.device.type == "cuda" else arrays


def frame_source(model: FrameModel, dataset: "Dataset", request: FeatureRequest, rows: IntArray) -> FrameSource:
    """What reads and encodes frames, in the runtime of the request."""
    size, kernel = native_size(dataset, lambda: rows, model.size), request.settings.resize or "pillow"
    if request.settings.runtime == "onnx":
        # Made once the model has its projection, which is part of what is exported.
        open_frames = lambda size: open_program(export_encoder(model, size), Path(FRAMES))  # noqa: E731
        return ProgramFrames(dataset, size, open_frames, kernel)
    is_cuda = request.settings.torch_device.type == "cuda"
    return FrameSource(dataset, size, channels_last=is_cuda, kernel=kernel)


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The bytes of a `.npy` file before its rows."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return file.getvalue()
