"""Fusion of per-frame features into one descriptor a window: CAT, mean, SeqGeM, centre frame and the sum of VLAD.

Every fusion works on a pool of frame features and the rows that form each window, so that neighbouring windows share
the features of their common frames, and each frame is encoded once.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.base import Distance, join, window_rows
from train.models.pooling.vlad import SeqVLAD


class Fusion(nn.Module):
    """Base of all fusions: frame features and window rows → descriptors.

    Attributes:
        length, distance: As in `train.models.base.SequenceModel`.
    """

    length: int | None = None
    distance: Distance = "l2"

    def descriptor_size(self, features: int, length: int) -> int:
        """Return D for windows of `length` frames with `features` numbers a frame."""
        return features

    @abstractmethod
    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse features `(M, …)` of distinct frames by rows `(B, L)` int64 into them: descriptors `(B, D)`."""

    def forward(self, features: Tensor) -> Tensor:
        """Fuse features of whole windows `(B, L, …)`: descriptors `(B, D)`."""
        return self.gather(join(features), window_rows(features))


class Concatenate(Fusion):
    """CAT: the L frame vectors one after the other; depends on frame order.

    Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. III-B.1.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, L·C)`.

    Example:
        >>> Concatenate()(torch.tensor([[[1.0], [2.0]]]))
        tensor([[1., 2.]])
    """

    def __init__(self, normalize: bool = False) -> None:
        """Set whether a final L2 is applied; not in practice."""
        super().__init__()
        self.normalize = normalize

    def descriptor_size(self, features: int, length: int) -> int:
        """Return L·C."""
        return features * length

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Concatenate: `(M, C)`, `(B, L)` → `(B, L·C)`."""
        joined = features[rows].flatten(1)
        return F.normalize(joined, dim=-1) if self.normalize else joined


class Mean(Fusion):
    """Mean of the L frame vectors; takes any L and does not depend on frame order.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, C)`.
    """

    def __init__(self, normalize: bool = True) -> None:
        """Set whether a final L2 is applied."""
        super().__init__()
        self.normalize = normalize

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Average: `(M, C)`, `(B, L)` → `(B, C)`."""
        mean = window_sums(features, rows) / rows.shape[1]
        return F.normalize(mean, dim=-1) if self.normalize else mean


class SeqGeM(Fusion):
    """Generalised mean over the frame axis with a learnt power; takes any L and does not depend on frame order.

    Ours, see docs/methods.md#beyond. Negative features count as `eps`.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, C)`.
    """

    def __init__(self, normalize: bool = True, p: float = 3.0, eps: float = 1e-6) -> None:
        """Set whether a final L2 is applied, and the power to start from."""
        super().__init__()
        self.normalize = normalize
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Average powers: `(M, C)`, `(B, L)` → `(B, C)`."""
        # Powers are taken once for each distinct frame; the sum over windows is the cheap part.
        powers = features.clamp(min=self.eps).pow(self.p)
        pooled = (window_sums(powers, rows) / rows.shape[1]).pow(1.0 / self.p)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled


class CentreFrame(Fusion):
    """The centre frame's vector alone, index (L−1)//2: a single-image method on the windows' centres.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, C)`.
    """

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Take the centre frames: `(M, C)`, `(B, L)` → `(B, C)`."""
        return features[rows[:, (rows.shape[1] - 1) // 2]]


class VLADSum(Fusion):
    """Sum of per-frame residual sums over the window, then VLAD's normalisation.

    Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, eq. (1): its
    sum over frames. It is taken directly, because differences of float32 prefix sums drift over thousands of frames.

    Shape:
        `(M, K, C)`, rows `(B, L)` → `(B, K·C)` of unit length.
    """

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Sum and normalise: `(M, K, C)`, `(B, L)` → `(B, K·C)`."""
        return SeqVLAD.finish(window_sums(features, rows))


def window_sums(features: Tensor, rows: Tensor) -> Tensor:
    """Sum features over each window's frames, in frame order: `(M, …)`, rows `(B, L)` → `(B, …)`.

    Example:
        >>> window_sums(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1], [1, 2]]))
        tensor([[3.],
                [6.]])
    """
    # A bag of rows is summed as it is read: features[rows] would hold L copies of every frame's features.
    sums = F.embedding_bag(rows, features.flatten(1), mode="sum")
    return sums.view(len(rows), *features.shape[1:])
