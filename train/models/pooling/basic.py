"""Pooling of one frame's tokens into one vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pooling(nn.Module):
    """From tokens `(N, T, C)` to what stands for a frame; `size` is how many numbers that is."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class GeM(Pooling):
    """Generalised-mean pooling of tokens: `(N, T, C)` → `(N, C)`, not normalised.

    Each token is brought to unit length over its channels first; negative values count as `eps`.
    Source: P1 Table II, "GeM + CAT" (channel L2-norm, p = 3, learnable).
    """

    def __init__(self, channels: int, p: float = 3.0, eps: float = 1e-6) -> None:
        """Raises: ValueError for a power that is not positive."""
        super().__init__(channels)
        if p <= 0:
            raise ValueError(f"GeM needs p > 0, got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        unit = F.normalize(tokens, dim=-1).clamp(min=self.eps)
        return unit.pow(self.p).mean(1).pow(1.0 / self.p)


class AveragePool(Pooling):
    """Mean of tokens, then L2: `(N, T, C)` → `(N, C)` of unit length; no parameters.

    Source: the usual frozen-encoder baseline (mean of `forward_features`, L2, cosine).
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        return F.normalize(tokens.mean(1), dim=-1)


class ClassToken(Pooling):
    """The CLS token as it is: `(N, 1, C)` → `(N, C)`, not normalised; the encoder gives nothing but this token.

    Source: P1 Table II, "CLS + CAT" (goes raw into the loss in practice).
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Take `(N, 1, C)` → `(N, C)`."""
        return tokens[:, 0]


class SeqPool(Pooling):
    """Attention pooling of tokens: `(N, T, C)` → `(N, C)`, not normalised.

    Source: CCT's SeqPool: softmax over tokens of Linear(C → 1), then the weighted sum.
    """

    def __init__(self, channels: int, attention: nn.Linear | None = None) -> None:
        """`attention`: the linear map of a trained backbone, or None for a fresh one."""
        super().__init__(channels)
        self.attention = nn.Linear(channels, 1) if attention is None else attention

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        share: Tensor = self.attention(tokens).softmax(1)
        return (share * tokens).sum(1)
