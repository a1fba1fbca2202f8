"""Late and intermediate fusion: preprocessing, frame encoder, frame pooling, projection and fusion, in this order."""

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from train.encoder_sizes import encode
from train.encoders import Encoder
from train.fusion import Fusion
from train.pooling import Pooling
from train.preprocess import Preprocess
from train.sequence_model import SequenceModel
from train.vlad import NetVLAD, SeqVLAD


class FrameModel(SequenceModel):
    """A model that is a function of per-frame features.

    `projection`: a linear map of each frame's vector, such as a fitted PCA, then L2; or None.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        encoder: Encoder,
        pooling: Pooling,
        projection: nn.Linear | None,
        fusion: Fusion,
        config: dict[str, Any],
    ) -> None:
        super().__init__(preprocess, config)
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.fusion = fusion
        self.length = fusion.length
        self.distance = fusion.distance

    @property
    def feature_size(self) -> int:
        """Numbers that stand for one frame when windows are fused."""
        return self.pooling.size if self.projection is None else self.projection.out_features

    def descriptor_size(self, length: int) -> int:
        """D for windows of `length` frames. Raises: ContractError for a length that the fusion cannot take."""
        self.check_length(length)
        return self.fusion.descriptor_size(self.feature_size, length)

    @property
    def vlad_sums(self) -> bool:
        """Whether a frame stands for itself as unnormalised VLAD sums `(K, C)` rather than as a vector."""
        return isinstance(self.pooling, SeqVLAD) and not isinstance(self.pooling, NetVLAD)

    @property
    def vlad(self) -> SeqVLAD | None:
        """The VLAD layer, of SeqVLAD or NetVLAD, None for another pooling."""
        return self.pooling if isinstance(self.pooling, SeqVLAD) else None

    def tokens(self, frames: Tensor) -> Tensor:
        """Local features of frames: `(N, 3, H, W)` → `(N, T, C)`."""
        return encode(self.encoder, self.preprocess(frames))

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens `(N, T, C)` → frame features `(N, F)`, or `(N, K, C)` unnormalised sums for SeqVLAD."""
        pooled = self.pooling(tokens)
        return cast(Tensor, pooled if self.projection is None else F.normalize(self.projection(pooled), dim=-1))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """What fusion needs of each frame: `(N, 3, H, W)` → `(N, F)`, or `(N, K, C)` for SeqVLAD."""
        return self.pool(self.tokens(frames))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and window rows `(B, L)` int64 into them → descriptors `(B, D)`."""
        self.check_length(rows.shape[1])
        return self.fusion.gather(features, rows)
