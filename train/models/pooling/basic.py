"""Pooling of one frame's tokens into one vector: GeM, mean, CLS and SeqPool."""

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class PoolingOptions(BaseModel):
    """Options of one pooling alone (model option `pooling_options`); most have none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Pooling(nn.Module):
    """Base of all poolings: tokens `(N, T, C)` → features of frames `(N, …)`, of `size` numbers each."""

    def __init__(self, size: int) -> None:
        """Set how many numbers stand for a frame."""
        super().__init__()
        self.size = size


class GeM(Pooling):
    """Generalised-mean pooling of tokens with a learnt power, not normalised.

    Each token is brought to unit length over its channels first, as practice does; negative values count as `eps`.
    Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019; row "GeM + CAT" of Mereu et
    al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, Table II.

    Shape:
        `(N, T, C)` → `(N, C)`.

    Example:
        >>> GeM(channels=2, p=1.0)(torch.tensor([[[3.0, 4.0], [4.0, 3.0]]])).detach()
        tensor([[0.7000, 0.7000]])
    """

    def __init__(self, channels: int, p: float = 3.0, eps: float = 1e-6) -> None:
        """Set the power to start from; 3 as in the paper.

        Raises:
            ValueError: Where it is not positive.
        """
        super().__init__(channels)
        if p <= 0:
            raise ValueError(f"GeM needs p > 0, got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        # The clamp keeps the power of a negative number, and the slope of the root at zero, finite.
        unit = F.normalize(tokens, dim=-1).clamp(min=self.eps)
        return unit.pow(self.p).mean(1).pow(1.0 / self.p)


class AveragePool(Pooling):
    """Mean of tokens, then L2; no parameters: the usual vector of a frozen encoder.

    Shape:
        `(N, T, C)` → `(N, C)` of unit length.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        return F.normalize(tokens.mean(1), dim=-1)


class ClassToken(Pooling):
    """The CLS token as it is, not normalised; the encoder gives nothing but this token.

    Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. III-B.1.

    Shape:
        `(N, 1, C)` → `(N, C)`.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Take `(N, 1, C)` → `(N, C)`."""
        return tokens[:, 0]


class SeqPool(Pooling):
    """Attention pooling of tokens: softmax over tokens of Linear(C → 1), then the weighted sum, not normalised.

    Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, arXiv 2104.05704, 2021, sec. 3.2.

    Shape:
        `(N, T, C)` → `(N, C)`.
    """

    def __init__(self, channels: int, attention: nn.Linear | None = None) -> None:
        """Set the linear map: that of a trained backbone, or None for a fresh one."""
        super().__init__(channels)
        self.attention = nn.Linear(channels, 1) if attention is None else attention

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, C)`."""
        share: Tensor = self.attention(tokens).softmax(1)
        return (share * tokens).sum(1)
