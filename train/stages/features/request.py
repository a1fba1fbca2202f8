"""What a feature dataset is to hold, and the identity that says which request a folder belongs to."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from seqdata.storage.hashing import sha256_json, xxh3_hex
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.data.feature_files import Level
from train.models.frame_model import FrameModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


PART_BYTES = 1 << 30
"""Bytes of a part: small enough to copy, to hash again, and to describe anew after a kill, one by one."""


@dataclass(frozen=True)
class FeatureRequest:
    """What to write: the level, the type of the rows, frames in a backbone pass, where and how to compute.

    `pca`: numbers a frame after a PCA that is fitted on `sample` random frames, whitened with `whiten`; it becomes the
    model's projection (frame level only). ONNX Runtime gives the frame level alone.
    `part_bytes`: about how many bytes a file holds.
    """

    level: Level = "frame"
    dtype: Literal["float16", "float32"] = "float16"
    pca: int | None = None
    whiten: bool = True
    sample: int = 16_384
    seed: int = 0
    batch_size: int = 64
    settings: DescribeSettings = DEFAULT
    part_bytes: int = PART_BYTES


def check_request(model: nn.Module, request: FeatureRequest) -> None:
    """Raise ContractError for a model or a request that gives no single-frame vectors."""
    if not isinstance(model, FrameModel):
        raise ContractError(
            f"{type(model).__name__} is no function of single frames; describe with a late fusion model"
        )
    if request.settings.runtime == "onnx" and request.level == "token":
        raise ContractError("--runtime onnx: for --level frame")
    if request.pca is not None and (request.level == "token" or model.vlad_sums):
        raise ContractError("--pca needs one vector a frame: level frame, and a pooling other than vlad")
    if request.pca is not None and model.config.get("projection_trained"):
        raise ContractError(
            "--pca would take the place of the model's own trained map (projection); leave it away, or reduce windows: "
            "seqdata index --pca"
        )


def request_identity(
    model: FrameModel, dataset: "Dataset", request: FeatureRequest, rows: IntArray, where: torch.device
) -> str:
    """SHA-256 over all that decides the bytes of the parts."""
    settings = {name: getattr(request, name) for name in ("level", "dtype", "pca", "whiten", "sample", "seed")}
    settings |= {} if request.part_bytes == PART_BYTES else {"part_bytes": request.part_bytes}
    # Beside the runtime a precision counts where it rounds; without one, folders of earlier releases keep theirs.
    settings |= {"runtime": request.settings.runtime, **request.settings.arithmetic}
    frames = xxh3_hex(np.ascontiguousarray(rows, "<i8").tobytes())
    inputs = {"dataset": dataset.id, "frames": frames, "weights": encoder_hash(model, "frame"), "device": where.type}
    return sha256_json({**inputs, **settings, "size": model.size})


def encoder_hash(model: FrameModel, level: Level) -> str:
    """SHA-256 over the names and bytes of the weights that decide features of a level."""
    parts = ("encoder.",) if level == "token" else ("encoder.", "pooling.", "projection.")
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(parts):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
