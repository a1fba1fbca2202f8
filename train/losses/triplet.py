"""Triplet loss on window descriptors.

Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place Recognition, eq. (9), and
Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. IV-A.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.distances import descriptor_distances


class TripletLoss(nn.Module):
    """Hinge on plain L2 distances: mean of max(0, |q − p| − |q − n| + margin) over negatives and queries.

    Shape:
        query, positive: `(B, D)`; negatives: `(B, M, D)`; output: a scalar.

    Example:
        >>> query, positive = torch.zeros(1, 2), torch.tensor([[0.3, 0.0]])
        >>> negatives = torch.tensor([[[0.0, 0.35], [1.0, 0.0]]])
        >>> TripletLoss(margin=0.1)(query, positive, negatives)  # 0.05 for the near negative, 0 for the far one
        tensor(0.0250)
    """

    def __init__(
        self, margin: float = 0.1, *, frames: int | None = None, skip_easy: bool = False, violating_only: bool = False
    ) -> None:
        """Set the loss up.

        Args:
            margin: Distance by which a negative must lie farther than the positive; 0.1 in both papers.
            frames: L of aligned descriptors (see `train.losses.distances`), None for L2.
            skip_easy: Leave queries without a violating negative out of the mean, instead of counting them as zero.
            violating_only: Take the mean over violating negatives alone, instead of over all M of each query: the
                programs of Garg and Milford, SeqNet, RA-L 2021, and Garg et al., SeqMatchNet, CoRL 2021, train so.

        Raises:
            ValueError: For a negative margin.
        """
        super().__init__()
        if margin < 0:
            raise ValueError(f"margin must not be negative, got {margin}")
        self.margin = margin
        self.frames = frames
        self.skip_easy = skip_easy
        self.violating_only = violating_only

    def forward(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """Compute the loss, a scalar."""
        to_positive, to_negatives = self._distances(query, positive, negatives)
        hinge = F.relu(to_positive - to_negatives + self.margin)
        if self.violating_only:
            return hinge.sum() / (hinge > 0).sum().clamp(min=1)
        if not self.skip_easy:
            return hinge.mean()
        # All M negatives of a counted query stay in the mean, the satisfied ones too: ours, of runs stored before
        # `violating_only` existed.
        count = (hinge > 0).any(1).sum() * hinge.shape[1]
        return hinge.sum() / count.clamp(min=1)

    @torch.no_grad()
    def statistics(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """Compute what is logged beside the loss.

        Returns:
            `(2,)`: the share of triplets with a loss, and the mean of min |q − n| − |q − p| over the queries.
        """
        to_positive, to_negatives = self._distances(query, positive, negatives)
        active = (to_positive - to_negatives + self.margin > 0).float().mean()
        return torch.stack([active, (to_negatives.amin(1, keepdim=True) - to_positive).mean()])

    def _distances(self, query: Tensor, positive: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of the queries to their positive `(B, 1)` and to their negatives `(B, M)`."""
        to_positive = descriptor_distances(query, positive, self.frames).unsqueeze(1)
        return to_positive, descriptor_distances(query.unsqueeze(1), negatives, self.frames)
