"""The one shape of every model here: `(B, L, 3, H, W)` → `(B, D)`, through per-frame features."""

from typing import Any, cast

from torch import Tensor, nn

from train.batching import join, split
from train.encoders import Encoder
from train.fusion import Concatenate, Fusion
from train.preprocess import Preprocess
from train.vlad import SeqVLAD


class SequenceModel(nn.Module):
    """Preprocessing, frame encoder, frame pooling and fusion, in this order.

    Convention: frames are RGB, uint8 or float in 0…255; a window's frames stand in driving order.
    `config` is JSON-able and recreates the model: `train.models.create(**config)`.
    """

    def __init__(
        self, preprocess: Preprocess, encoder: Encoder, pooling: nn.Module, fusion: Fusion, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.encoder = encoder
        self.pooling = pooling
        self.fusion = fusion
        self.config = config

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that frames are resized to, or None for their own size."""
        return self.preprocess.size

    def descriptor_size(self, length: int) -> int:
        """D for windows of `length` frames."""
        if isinstance(self.pooling, SeqVLAD):
            return self.pooling.centres.numel()
        return self.encoder.channels * (length if isinstance(self.fusion, Concatenate) else 1)

    def tokens(self, frames: Tensor) -> Tensor:
        """Local features of frames: `(N, 3, H, W)` → `(N, T, C)`."""
        return cast(Tensor, self.encoder(self.preprocess(frames)))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """What fusion needs of each frame: `(N, 3, H, W)` → `(N, C)`, or `(N, K, C)` unnormalised sums for SeqVLAD."""
        tokens = self.tokens(frames)
        pooled = self.pooling.frame_sums(tokens) if isinstance(self.pooling, SeqVLAD) else self.pooling(tokens)
        return cast(Tensor, pooled)

    def fuse(self, features: Tensor) -> Tensor:
        """Frame features of whole windows `(B, L, ...)` → descriptors `(B, D)`."""
        return cast(Tensor, self.fusion(features))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and window rows `(B, L)` int64 into them → descriptors `(B, D)`."""
        return self.fusion.gather(features, rows)

    def forward(self, windows: Tensor) -> Tensor:
        """`(B, L, 3, H, W)` → `(B, D)` float32. Raises: ValueError for another shape."""
        if windows.dim() != 5:
            raise ValueError(f"windows must be (B, L, 3, H, W), got {tuple(windows.shape)}")
        return self.fuse(split(self.encode_frames(join(windows)), windows.shape[1]))
