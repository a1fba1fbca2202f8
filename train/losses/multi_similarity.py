"""Multi-similarity loss over place batches, with its miner.

Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR 2019, as
`pytorch-metric-learning` implements it; pairs come from distances on the ground instead of labels.
"""

from typing import cast

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn


@torch.no_grad()
def pair_statistics(descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Compute what is logged beside a place batch's loss: each positive pair against the anchor's nearest negative.

    Args:
        descriptors: `(B, D)`, compared by angle as the losses do (L2 of unit vectors).
        positive: Bool `(B, B)`, the positive pairs.
        negative: Bool `(B, B)`, the negative pairs.

    Returns:
        `(2,)`, as `train.losses.triplet.TripletLoss.statistics` at margin 0; zeros without such a pair.
    """
    unit = F.normalize(descriptors, dim=-1)
    distances = torch.cdist(unit, unit)
    nearest = distances.masked_fill(~negative, torch.inf).amin(1, keepdim=True)
    # Sums of all pairs, the others being zero: to pick some the host would have to wait for their number.
    counted = positive & nearest.isfinite()
    lead = (nearest - distances).masked_fill(~counted, 0.0)
    return torch.stack([(lead < 0).sum(), lead.sum()]) / counted.sum().clamp(min=1)


class BandMiner(MultiSimilarityMiner):  # type: ignore[misc]  # the library is untyped
    """MultiSimilarityMiner over pair masks instead of labels, so that a pair can be neither positive nor negative.

    Mined are positives less similar than the hardest negative + epsilon, and negatives more similar than the hardest
    positive − epsilon. Pairs between the radii are in neither mask. Where the masks follow from labels the pairs are
    those of pytorch-metric-learning's own miner.
    """

    def __init__(self, positive: Tensor, negative: Tensor, epsilon: float = 0.1) -> None:
        """Set the masks, bool `(B, B)`, and the slack in cosine."""
        super().__init__(epsilon=epsilon)
        self.positive = positive
        self.negative = negative

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return indices (anchor, positive, anchor, negative); the labels are not read."""
        similarity = cast(Tensor, self.distance(embeddings, ref_emb))
        hardest_negative = similarity.masked_fill(~self.negative, -torch.inf).amax(1, keepdim=True)
        hardest_positive = similarity.masked_fill(~self.positive, torch.inf).amin(1, keepdim=True)
        # The comparison is with the hardest pair of the other kind, one a row: easy pairs teach nothing.
        anchor, positive = torch.where(self.positive & (similarity - self.epsilon < hardest_negative))
        other_anchor, negative = torch.where(self.negative & (similarity + self.epsilon > hardest_positive))
        return anchor, positive, other_anchor, negative


class PlaceLoss(nn.Module):
    """Multi-similarity loss of a place batch, on the pairs that `BandMiner` mines.

    Defaults are those of place-recognition practice: Ali-bey et al., GSV-Cities, Neurocomputing 2022.

    Shape:
        descriptors: `(B, D)`; positive, negative: bool `(B, B)`; output: a scalar.

    Example:
        >>> eye = torch.eye(2, dtype=torch.bool)
        >>> positive = torch.block_diag(~eye, ~eye).bool()
        >>> negative = ~torch.block_diag(~eye, ~eye).bool() & ~torch.eye(4, dtype=torch.bool)
        >>> PlaceLoss()(torch.ones(4, 2), positive, negative).isfinite()
        tensor(True)
    """

    def __init__(self, alpha: float = 1.0, beta: float = 50.0, base: float = 0.0, epsilon: float = 0.1) -> None:
        """Set the weights of positives and negatives, their common threshold and the miner's slack."""
        super().__init__()
        self.loss = MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)
        self.epsilon = epsilon

    def forward(self, descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute the loss, a scalar; zero where no pair is hard."""
        # The library asks for labels. One of its own for each row makes no pair, and the miner's pairs replace them.
        labels = torch.arange(len(descriptors), device=descriptors.device)
        pairs = BandMiner(positive, negative, self.epsilon)(descriptors, labels)
        return cast(Tensor, self.loss(descriptors, labels, pairs))
