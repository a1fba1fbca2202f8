"""Fusion of per-frame features into one descriptor a window.

Every fusion works on a pool of frame features and the rows that form each window, so that neighbouring windows share
the features of their common frames (design: frames are encoded once).
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.base import Distance, join
from train.models.pooling.vlad import SeqVLAD


class Fusion(nn.Module):
    """From frame features and window rows to descriptors; `length` and `distance` as in `SequenceModel`."""

    length: int | None = None
    distance: Distance = "l2"

    def descriptor_size(self, features: int, length: int) -> int:
        """D for windows of `length` frames with `features` numbers a frame."""
        return features

    @abstractmethod
    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and rows `(B, L)` int64 into them → descriptors `(B, D)`."""

    def forward(self, features: Tensor) -> Tensor:
        """Features of whole windows `(B, L, ...)` → `(B, D)`."""
        batch, length = features.shape[:2]
        flat = join(features)
        rows = torch.arange(batch * length, device=flat.device).view(batch, length)
        return self.gather(flat, rows)


class Concatenate(Fusion):
    """CAT: the L frame vectors one after the other, `(M, C)` → `(B, L·C)`; depends on frame order.

    Source: P1 section III-B, late fusion. Not normalised by default, as in practice; `normalize` adds a final L2.
    """

    def __init__(self, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    def descriptor_size(self, features: int, length: int) -> int:
        """L·C."""
        return features * length

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, L·C)`."""
        joined = features[rows].flatten(1)
        return F.normalize(joined, dim=-1) if self.normalize else joined


class Mean(Fusion):
    """Mean of the L frame vectors, `(M, C)` → `(B, C)`; any L, free of frame order. `normalize` adds a final L2."""

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, C)`."""
        mean = window_sums(features, rows) / rows.shape[1]
        return F.normalize(mean, dim=-1) if self.normalize else mean


class SeqGeM(Fusion):
    """Generalised mean over the frame axis, learnable power: `(M, C)` → `(B, C)`; any L, free of frame order.

    Negative features count as `eps`. Source: methods, "Beyond the papers".
    """

    def __init__(self, normalize: bool = True, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.normalize = normalize
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, C)`."""
        powers = features.clamp(min=self.eps).pow(self.p)
        pooled = (window_sums(powers, rows) / rows.shape[1]).pow(1.0 / self.p)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled


class CentreFrame(Fusion):
    """The centre frame's vector alone, index (L−1)//2: a single-image method on the windows' centres."""

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, C)`."""
        return features[rows[:, (rows.shape[1] - 1) // 2]]


class VLADSum(Fusion):
    """Sum of per-frame residual sums over the window, then VLAD's normalisation: `(M, K, C)` → `(B, K·C)`.

    Source: P1 eq. (1); a direct sum over the L frames, because differences of float32 prefix sums drift.
    """

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, K, C)`, `(B, L)` → `(B, K·C)`."""
        return SeqVLAD.finish(window_sums(features, rows))


def window_sums(features: Tensor, rows: Tensor) -> Tensor:
    """Sum over each window's frames, `(M, ...)`, `(B, L)` → `(B, ...)`, added in frame order, without temporaries."""
    sums = F.embedding_bag(rows, features.flatten(1), mode="sum")
    return sums.view(len(rows), *features.shape[1:])
