"""Multi-similarity loss over place batches, with its miner."""

from typing import cast

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn


@torch.no_grad()
def pair_notes(descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """`TripletLoss.notes` of a place batch at margin 0: each positive pair against the anchor's nearest negative.

    Descriptors `(B, D)` (compared by angle, as the losses do: L2 of unit vectors), masks bool `(B, B)` → `(2,)`;
    zeros without such a pair.
    """
    unit = F.normalize(descriptors, dim=-1)
    gap = torch.cdist(unit, unit)
    nearest = gap.masked_fill(~negative, torch.inf).amin(1, keepdim=True)
    beyond = (nearest - gap)[positive & nearest.isfinite()]
    if len(beyond) == 0:
        return descriptors.new_zeros(2)
    return torch.stack([(beyond < 0).float().mean(), beyond.mean()])


class BandMiner(MultiSimilarityMiner):  # type: ignore[misc]  # the library is untyped
    """MultiSimilarityMiner over given pair masks instead of labels, so that a pair can be neither.

    `positive`, `negative` bool `(B, B)`: pairs in the band between the radii are in neither mask and are never mined.
    Kept are positives less similar than the hardest negative + epsilon, and negatives more similar than the hardest
    positive − epsilon. Source: pytorch-metric-learning's miner, which it equals where masks follow from labels.
    """

    def __init__(self, positive: Tensor, negative: Tensor, epsilon: float = 0.1) -> None:
        super().__init__(epsilon=epsilon)
        self.positive = positive
        self.negative = negative

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Indices (anchor, positive, anchor, negative); labels are not looked at."""
        similarity = cast(Tensor, self.distance(embeddings, ref_emb))
        hardest_negative = similarity.masked_fill(~self.negative, -torch.inf).amax(1, keepdim=True)
        hardest_positive = similarity.masked_fill(~self.positive, torch.inf).amin(1, keepdim=True)
        near = self.positive & (similarity - self.epsilon < hardest_negative)
        far = self.negative & (similarity + self.epsilon > hardest_positive)
        (anchor, other), (again, wrong) = torch.where(near), torch.where(far)
        return anchor, other, again, wrong


class PlaceLoss(nn.Module):
    """MultiSimilarity over a place batch with an ignore band.

    Descriptors `(B, D)`, masks bool `(B, B)` → scalar.
    Source: pytorch-metric-learning's MultiSimilarityLoss (alpha 1, beta 50, base 0 as in place-recognition practice)
    and its miner (epsilon 0.1), on pairs chosen by distance rather than labels.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 50.0, base: float = 0.0, epsilon: float = 0.1) -> None:
        super().__init__()
        self.loss = MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)
        self.epsilon = epsilon

    def forward(self, descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss, a scalar; zero where nothing is hard."""
        labels = torch.arange(len(descriptors), device=descriptors.device)
        pairs = BandMiner(positive, negative, self.epsilon)(descriptors, labels)
        return cast(Tensor, self.loss(descriptors, labels, pairs))
