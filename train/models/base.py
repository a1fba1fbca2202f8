"""The contract of every model, windows `(B, L, 3, H, W)` → descriptors `(B, D)`, and families of models by options."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.encoders.preprocess import Preprocess
from train.models.pooling.vlad import SeqVLAD

Distance = Literal["l2", "aligned"]


class SequenceModel(nn.Module):
    """A sequence descriptor: features of each frame (`encode_frames`), then of each window (`fuse_rows`).

    The two halves are apart because windows overlap: a frame is encoded once, however many windows hold it.

    Convention:
        Frames are RGB, uint8 or float in 0…255; a window's frames stand in driving order.

    Attributes:
        config: JSON-able values that recreate the model: `train.models.registry.create(**config)`.
        length: The only window length that it takes, None for any.
        windows_at_once: Most windows that are fused in one call when many are described, None for no limit.
        distance: How two descriptors are compared: "l2", or "aligned" (mean of the distances of frames in the same
            position, see `train.losses.distances`).
    """

    length: int | None = None
    windows_at_once: int | None = None
    distance: Distance = "l2"

    def __init__(self, preprocess: Preprocess, config: dict[str, Any]) -> None:
        """Set what every model has: the preparation of pixels, and the values that recreate it."""
        super().__init__()
        self.preprocess = preprocess
        self.config = config

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that frames are resized to, or None for their own size."""
        return self.preprocess.size

    @abstractmethod
    def descriptor_size(self, length: int) -> int:
        """Return D for windows of `length` frames.

        Raises:
            ContractError: For a length that it cannot take.
        """

    @abstractmethod
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Compute what fusion needs of each frame alone: `(N, 3, H, W)` → `(N, …)`."""

    @abstractmethod
    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse frame features into descriptors of windows.

        Args:
            features: Features `(M, …)` of distinct frames, as `encode_frames` gives them.
            rows: Int64 `(B, L)`, the frames of each window as rows of `features`.

        Returns:
            Descriptors `(B, D)`.
        """

    @property
    def vlad(self) -> SeqVLAD | None:
        """The VLAD layer that `tokens` go into, None where there is none."""
        return None

    def tokens(self, frames: Tensor) -> Tensor:
        """Compute the VLAD layer's input of single frames: `(N, 3, H, W)` → `(N, T, C)`.

        Raises:
            NotImplementedError: Where there is no VLAD layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no VLAD layer")

    def fuse(self, features: Tensor) -> Tensor:
        """Fuse frame features of whole windows `(B, L, …)` into descriptors `(B, D)`."""
        return self.fuse_rows(join(features), window_rows(features))

    def forward(self, windows: Tensor) -> Tensor:
        """Describe windows `(B, L, 3, H, W)`: descriptors `(B, D)` float32.

        Raises:
            ValueError: For another shape.
            ContractError: For windows of a length that the model cannot take.
        """
        if windows.dim() != 5:
            raise ValueError(f"windows must be (B, L, 3, H, W), got {tuple(windows.shape)}")
        self.check_length(windows.shape[1])
        # Frames are encoded alone and put back into their windows: the model never mixes windows of a batch.
        return self.fuse(split(self.encode_frames(join(windows)), windows.shape[1]))

    def check_length(self, length: int) -> None:
        """Raise ContractError for windows of a length that this model cannot take."""
        if self.length is not None and length != self.length:
            raise ContractError(
                f"model {self.config.get('name', '')} takes windows of {self.length} frames only, not {length}; train "
                f"one with --option length={length}, or use a fusion that takes any length"
            )


def join(sequences: Tensor) -> Tensor:
    """Join batch and sequence axes: `(B, L, …)` → `(B·L, …)`, frame `l` of window `b` at row `b·L + l`.

    The one place where they are joined: a wrong (batch, sequence) reshape mixes frames of different windows without
    any error.

    Raises:
        ValueError: When there is no sequence axis.

    Example:
        >>> join(torch.tensor([[[1], [2]], [[3], [4]]])).flatten().tolist()
        [1, 2, 3, 4]
    """
    if sequences.dim() < 2:
        raise ValueError(f"sequences need at least (B, L), got shape {tuple(sequences.shape)}")
    return sequences.flatten(0, 1)


def split(frames: Tensor, length: int) -> Tensor:
    """Undo `join`: `(B·L, …)` → `(B, L, …)` for windows of `length` frames.

    Raises:
        ValueError: When the rows do not divide into windows.

    Example:
        >>> split(torch.tensor([1, 2, 3, 4]), 2).tolist()
        [[1, 2], [3, 4]]
    """
    if length < 1 or frames.shape[0] % length:
        raise ValueError(f"{frames.shape[0]} frames do not divide into windows of {length}")
    return frames.view(frames.shape[0] // length, length, *frames.shape[1:])


def window_rows(windows: Tensor) -> Tensor:
    """Return rows `(B, L)` int64 of windows `(B, L, …)` in what `join` makes of them."""
    batch, length = windows.shape[:2]
    # Each window has its own frames here, so the rows are simply those of `join`, in order.
    return torch.arange(batch * length, device=windows.device).view(batch, length)


def _merged(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over a preset."""
    return {**preset, **options}


def _unchecked(name: str, options: Any) -> None:
    """No check beyond the options' own: what cannot work shows when the encoder is built."""


@dataclass(frozen=True)
class Family:
    """Models that share one set of options.

    Attributes:
        options: The model of its options; `presets` are such options by name.
        build: Makes the model of checked options, weights, seed and config.
        presets: Options of each preset.
        complete: Puts options over a preset.
        check: Raises ContractError for options of the named model that cannot work together.
        added: Options that came after models had been stored, each with the value that a stored model without it has.
    """

    options: type[BaseModel]
    build: Callable[[Any, str | Path, int, dict[str, Any]], SequenceModel]
    presets: dict[str, dict[str, Any]]
    complete: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = _merged
    check: Callable[[str, Any], None] = _unchecked
    added: Mapping[str, Any] = field(default_factory=dict)
