"""Losses on window descriptors: the papers' triplet, and place-batch losses over geometric pair masks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.distances import separation


class TripletLoss(nn.Module):
    """Hinge on plain L2 distances, averaged over the negatives and the batch.

    `query` and `positive` `(B, D)`, `negatives` `(B, M, D)` → scalar: mean of max(0, |q−p| − |q−n| + margin). `frames`:
    see `train.losses.distances`. With `skip_easy` queries without a violating negative count for nothing, not for zero.
    Source: P1 section IV, margin 0.1; P2 eq. (9); `skip_easy` as SeqNet is trained.
    """

    def __init__(self, margin: float = 0.1, *, frames: int | None = None, skip_easy: bool = False) -> None:
        """Raises: ValueError for a negative margin."""
        super().__init__()
        if margin < 0:
            raise ValueError(f"margin must not be negative, got {margin}")
        self.margin = margin
        self.frames = frames
        self.skip_easy = skip_easy

    def forward(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """The loss, a scalar."""
        near = separation(query, positive, self.frames).unsqueeze(1)
        far = separation(query.unsqueeze(1), negatives, self.frames)
        hinge = F.relu(near - far + self.margin)
        if not self.skip_easy:
            return hinge.mean()
        counted = (hinge > 0).any(1).sum() * hinge.shape[1]
        return hinge.sum() / counted.clamp(min=1)

    @torch.no_grad()
    def notes(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """`(2,)`: the share of triplets with a loss, and the mean of min|q−n| − |q−p| over the queries."""
        near = separation(query, positive, self.frames).unsqueeze(1)
        far = separation(query.unsqueeze(1), negatives, self.frames)
        active = (near - far + self.margin > 0).float().mean()
        return torch.stack([active, (far.amin(1, keepdim=True) - near).mean()])
