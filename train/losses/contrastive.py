"""Contrastive loss over place batches.

InfoNCE: van den Oord et al., Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748, 2018,
eq. (4), with several positives a row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContrastiveLoss(nn.Module):
    """InfoNCE within a batch over cosine similarities, with pairs that count for neither side.

    For every positive pair (i, p): −log( exp(s_ip/τ) / (exp(s_ip/τ) + Σ_n exp(s_in/τ)) ), n over the negatives of i;
    then the mean over pairs. A pair in neither mask lies between the radii and is in no sum.

    Shape:
        descriptors: `(B, D)`, brought to unit length here; positive, negative: bool `(B, B)`; output: a scalar.

    Example:
        >>> descriptors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> positive = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
        >>> negative = torch.tensor([[False, False, True], [False, False, True], [True, True, False]])
        >>> ContrastiveLoss(temperature=1.0)(descriptors, positive, negative)  # log(1 + e⁰ / e¹)
        tensor(0.3133)
    """

    def __init__(self, temperature: float = 0.05) -> None:
        """Set the temperature τ that cosines are divided by.

        Raises:
            ValueError: Where it is not positive.
        """
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute the loss, a scalar; zero without a positive pair."""
        unit = F.normalize(descriptors, dim=-1)
        logits = unit @ unit.T / self.temperature
        negatives = logits.masked_fill(~negative, -torch.inf).logsumexp(1)
        # −log(e^p / (e^p + e^n)) = softplus(n − p), which overflows for no temperature. It is taken of all pairs, and
        # zeroed where they are not positive: to pick the positive ones the host would have to wait for their number.
        losses = F.softplus(negatives[:, None] - logits).masked_fill(~positive, 0.0)
        return losses.sum() / positive.sum().clamp(min=1)
