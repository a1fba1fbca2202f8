"""Pooling of one frame's tokens into one vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised-mean pooling of tokens: `(N, T, C)` → `(N, C)`, not normalised.

    Each token is brought to unit length over its channels first; negative values count as `eps`.
    Source: P1 Table II, "GeM + CAT" (channel L2-norm, p = 3, learnable).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if p <= 0:
            raise ValueError(f"GeM needs p > 0, got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        unit = F.normalize(tokens, dim=-1).clamp(min=self.eps)
        return unit.pow(self.p).mean(1).pow(1.0 / self.p)


class AveragePool(nn.Module):
    """Mean of tokens, then L2: `(N, T, C)` → `(N, C)` of unit length; no parameters.

    Source: the usual frozen-encoder baseline (mean of `forward_features`, L2, cosine).
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        return F.normalize(tokens.mean(1), dim=-1)
