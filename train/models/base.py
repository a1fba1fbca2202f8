"""The one shape of every model here: `(B, L, 3, H, W)` → `(B, D)`."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.encoders.preprocess import Preprocess
from train.models.pooling.vlad import SeqVLAD

Distance = Literal["l2", "aligned"]


class SequenceModel(nn.Module):
    """A sequence descriptor: something of each frame (`encode_frames`), then of each window (`fuse_rows`).

    Convention: frames are RGB, uint8 or float in 0…255; a window's frames stand in driving order.
    `config` is JSON-able and recreates the model: `train.models.registry.create(**config)`. `length`: the only
    window length it
    takes, None for any. `windows_at_once`: most windows that are fused in one call when many are described, None for no
    limit. `distance`: how two descriptors are compared, "l2" or "aligned" (mean of the frames' own distances).
    """

    length: int | None = None
    windows_at_once: int | None = None
    distance: Distance = "l2"

    def __init__(self, preprocess: Preprocess, config: dict[str, Any]) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.config = config

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that frames are resized to, or None for their own size."""
        return self.preprocess.size

    @abstractmethod
    def descriptor_size(self, length: int) -> int:
        """D for windows of `length` frames. Raises: ContractError for a length that it cannot take."""

    @abstractmethod
    def encode_frames(self, frames: Tensor) -> Tensor:
        """All that can be known of each frame alone: `(N, 3, H, W)` → `(N, ...)`."""

    @abstractmethod
    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and window rows `(B, L)` int64 into them → descriptors `(B, D)`."""

    @property
    def vlad(self) -> SeqVLAD | None:
        """The VLAD layer whose words `tokens` are made of, None where there is none."""
        return None

    def tokens(self, frames: Tensor) -> Tensor:
        """What the VLAD layer gets of single frames: `(N, 3, H, W)` → `(N, T, C)`. Raises: where there is none."""
        raise NotImplementedError(f"{type(self).__name__} has no VLAD layer")

    def fuse(self, features: Tensor) -> Tensor:
        """Frame features of whole windows `(B, L, ...)` → descriptors `(B, D)`."""
        batch, length = features.shape[:2]
        flat = join(features)
        return self.fuse_rows(flat, torch.arange(batch * length, device=flat.device).view(batch, length))

    def forward(self, windows: Tensor) -> Tensor:
        """`(B, L, 3, H, W)` → `(B, D)` float32. Raises: ValueError for another shape, ContractError for a length."""
        if windows.dim() != 5:
            raise ValueError(f"windows must be (B, L, 3, H, W), got {tuple(windows.shape)}")
        self.check_length(windows.shape[1])
        return self.fuse(split(self.encode_frames(join(windows)), windows.shape[1]))

    def check_length(self, length: int) -> None:
        """Raise ContractError for windows of a length that this model cannot take."""
        if self.length is not None and length != self.length:
            raise ContractError(
                f"model {self.config.get('name', '')} takes windows of {self.length} frames only, not {length}; train "
                f"one with --option length={length}, or use a fusion that takes any length"
            )


def join(sequences: Tensor) -> Tensor:
    """Join batch and sequence axes: `(B, L, ...)` → `(B·L, ...)`, frame `l` of window `b` at row `b·L + l`.

    Raises: ValueError when there is no sequence axis.
    """
    if sequences.dim() < 2:
        raise ValueError(f"sequences need at least (B, L), got shape {tuple(sequences.shape)}")
    return sequences.flatten(0, 1)


def split(frames: Tensor, length: int) -> Tensor:
    """Undo `join`: `(B·L, ...)` → `(B, L, ...)` for windows of `length` frames.

    Raises: ValueError when the rows do not divide into windows.
    """
    if length < 1 or frames.shape[0] % length:
        raise ValueError(f"{frames.shape[0]} frames do not divide into windows of {length}")
    return frames.view(frames.shape[0] // length, length, *frames.shape[1:])
