"""Multi-similarity loss over place batches, with its choice of pairs.

Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR 2019, sec. 3.3; pairs come
from distances on the ground instead of labels.
"""

import torch
import torch.nn.functional as F
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


def hard_pairs(similarity: Tensor, positive: Tensor, negative: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Find the pairs that teach something: each is compared with the anchor's hardest pair of the other kind.

    Hard are positives less similar than the hardest negative + epsilon, and negatives more similar than the hardest
    positive − epsilon. Pairs between the radii are in neither mask.

    Args:
        similarity: Cosines `(B, B)`.
        positive: Bool `(B, B)`, the positive pairs.
        negative: Bool `(B, B)`, the negative pairs.
        epsilon: Slack in cosine.

    Returns:
        The hard ones among the positive and among the negative pairs, bool `(B, B)` each.
    """
    hardest_negative = similarity.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    hardest_positive = similarity.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    # With no pair of the other kind nothing is compared: -inf and inf let none through.
    is_hard_positive = positive & (similarity - epsilon < hardest_negative)
    return is_hard_positive, negative & (similarity + epsilon > hardest_positive)


class PlaceLoss(nn.Module):
    """Multi-similarity loss of a place batch, on its hard pairs (eq. (10) and (11) of the paper).

    For each window: log(1 + Σ_p exp(−α (s_p − λ))) / α + log(1 + Σ_n exp(β (s_n − λ))) / β over its hard positives p
    and negatives n, s being cosines; then the mean over windows. Masks, not lists of pairs: to list the hard ones the
    host would have to wait for their number. Defaults are those of place-recognition practice: Ali-bey et al.,
    GSV-Cities, Neurocomputing 2022.

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
        """Set the weights α of positives and β of negatives, their common threshold λ, and the slack in cosine."""
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def forward(self, descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute the loss, a scalar; zero where no pair is hard."""
        unit = F.normalize(descriptors, dim=-1)
        similarity = unit @ unit.T
        hard = hard_pairs(similarity.detach(), positive, negative, self.epsilon)
        excess = similarity - self.base
        terms = [
            _soft_count(-self.alpha * excess, hard[0]) / self.alpha,
            _soft_count(self.beta * excess, hard[1]) / self.beta,
        ]
        return (terms[0] + terms[1]).mean()


def _soft_count(exponents: Tensor, mask: Tensor) -> Tensor:
    """log(1 + Σ exp(x)) `(B,)` over the entries of each row `(B, B)` that a mask selects."""
    selected = exponents.masked_fill(~mask, -torch.inf)
    # The 1 is an exponent of zero: with it no row is empty, and no gradient undefined.
    return torch.cat([selected, selected.new_zeros(len(selected), 1)], dim=1).logsumexp(1)
