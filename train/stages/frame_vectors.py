"""Frame descriptors for matching: rows of a feature dataset, or descriptors of single frames by a run's model."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from indexer.matching.frame_vectors import FrameVectors
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array, IntArray
from train.data.feature_files import MANIFEST
from train.data.features import open_features
from train.data.frames import FrameSource, native_size
from train.devices import pick_device
from train.runs.checkpoint import load_model

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

BATCH = 64


def frame_vectors(
    dataset: "Dataset", folder: Path, *, device: str = "auto", model_from: str | None = None
) -> FrameVectors:
    """Open frame descriptors: of a feature dataset (level frame), or of a run.

    A run's model describes windows of one frame: SeqNet trained at L = 1 (S1 of HVPR), SeqMatchNet's projection, or any
    frame encoder.

    Args:
        dataset: Holds the frames.
        folder: The feature dataset, or the run.
        device: "auto", "cpu", "cuda" or "cuda:N".
        model_from: Where the model's code is (see `train.runs.checkpoint.load_model`).

    Returns:
        Vectors (n, D) float32 of frames by row, and their name.

    Raises:
        InputError: If the folder is neither.
        ContractError: If it holds tokens, is of another dataset, or the model needs more than one frame.
    """
    if not (folder / MANIFEST).is_file():
        if not (folder / "run.json").is_file() and not folder.is_file():
            raise InputError(f"{folder}: neither a feature dataset nor a run; write one with seqdata describe or train")
        return FrameVectors(_RunVectors(dataset, folder, device, model_from), folder.resolve().name)
    source = open_features(folder, dataset)
    if source.level != "frame":
        raise ContractError(f"{folder}: holds {source.level} features; matching needs one vector a frame (level frame)")
    return FrameVectors(lambda rows: np.asarray(source.read(rows), np.float32).reshape(len(rows), -1), folder.name)


class _RunVectors:
    """Descriptors (n, D) float32 of frames by row, each frame a window of its own."""

    def __init__(self, dataset: "Dataset", run: Path, device: str, model_from: str | None) -> None:
        self._device = pick_device(device)
        self._model = load_model(run, model_from).to(self._device).eval()
        self._model.check_length(1)
        # Of all frames, not of those in use: every pair of drives is then described at one size.
        everything = np.arange(dataset.frame_columns("height").height)
        self._source = FrameSource(dataset, native_size(dataset, everything[:, None], self._model.size))

    @torch.inference_mode()
    def __call__(self, rows: IntArray) -> Float32Array:
        """Descriptors of frame rows (n,)."""
        parts = []
        for start in range(0, len(rows), BATCH):
            frames = torch.from_numpy(self._source.read(rows[start : start + BATCH])).to(self._device)
            features = self._source.encode(self._model, frames)
            own_row = torch.arange(len(frames), device=self._device)[:, None]
            parts.append(self._model.fuse_rows(features, own_row).float().cpu())
        return torch.cat(parts).numpy()
