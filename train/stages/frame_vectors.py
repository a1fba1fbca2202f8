"""Frame descriptors for matching: rows of a feature dataset, or descriptors of single frames by a run's model."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from indexer.matching.frame_vectors import FrameVectors
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array, IntArray
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.data.encode import encode_batches
from train.data.feature_files import MANIFEST
from train.data.features import open_features
from train.data.frames import FrameSource, native_size
from train.data.upload import Upload
from train.runs.checkpoint import load_model

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

BATCH = 64


def frame_vectors(dataset: "Dataset", folder: Path, settings: DescribeSettings = DEFAULT) -> FrameVectors:
    """Open frame descriptors: of a feature dataset (level frame), or of a run.

    A run's model describes windows of one frame: SeqNet trained at L = 1 (S1 of HVPR), SeqMatchNet's projection, or any
    frame encoder.

    Args:
        dataset: Holds the frames.
        folder: The feature dataset, or the run.
        settings: Where and how a run's model computes.

    Returns:
        Vectors (n, D) float32 of frames by row, and their name.

    Raises:
        InputError: If the folder is neither.
        ContractError: If it holds tokens, is of another dataset, or the model needs more than one frame.
    """
    if not (folder / MANIFEST).is_file():
        if not (folder / "run.json").is_file() and not folder.is_file():
            raise InputError(f"{folder}: neither a feature dataset nor a run; write one with seqdata describe or train")
        return FrameVectors(_RunVectors(dataset, folder, settings), folder.resolve().name)
    source = open_features(folder, dataset)
    if source.level != "frame":
        raise ContractError(f"{folder}: holds {source.level} features; matching needs one vector a frame (level frame)")
    return FrameVectors(lambda rows: np.asarray(source.read(rows), np.float32).reshape(len(rows), -1), folder.name)


class _RunVectors:
    """Descriptors (n, D) float32 of frames by row, each frame a window of its own."""

    def __init__(self, dataset: "Dataset", run: Path, settings: DescribeSettings) -> None:
        self._settings = settings
        self._upload = Upload(settings.torch_device)
        self._model = load_model(run, settings.model_from).to(self._upload.device).eval()
        self._model.check_length(1)
        # Of all frames, not of those in use: every pair of drives is then described at one size.
        size = native_size(dataset, lambda: np.arange(dataset.frame_columns("height").height), self._model.size)
        self._source = FrameSource(dataset, size, channels_last=self._upload.device.type == "cuda")

    def __call__(self, rows: IntArray) -> Float32Array:
        """Descriptors of frame rows (n,)."""
        batches = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
        parts = encode_batches(batches, self._source.read, self._describe, self._upload, self._settings.precision)
        return np.concatenate([descriptors.cpu().numpy() for _, descriptors in parts])

    def _describe(self, frames: Tensor) -> Tensor:
        """Descriptors (n, D) float32 of frames (n, 3, H, W), each a window of its own."""
        own_row = torch.arange(len(frames), device=frames.device)[:, None]
        return self._model.fuse_rows(self._source.encode(self._model, frames), own_row).float()
