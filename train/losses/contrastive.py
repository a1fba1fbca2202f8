"""Contrastive loss over place batches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContrastiveLoss(nn.Module):
    """In-batch InfoNCE over cosine similarities with an ignore band.

    For every positive pair (i, p): −log of exp(s_ip/τ) over exp(s_ip/τ) + Σ_n exp(s_in/τ), n the negatives of i;
    averaged over pairs. Descriptors `(B, D)` (L2-normalised here), masks bool `(B, B)` → scalar.
    Source: InfoNCE / NT-Xent with several positives; band pairs are in no sum.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        """Raises: ValueError for a temperature that is not positive."""
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, descriptors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss, a scalar; zero without a positive pair."""
        unit = F.normalize(descriptors, dim=-1)
        logits = unit @ unit.T / self.temperature
        far = logits.masked_fill(~negative, -torch.inf).logsumexp(1)
        anchor, other = torch.where(positive)
        if len(anchor) == 0:
            return descriptors.sum() * 0.0
        return F.softplus(far[anchor] - logits[anchor, other]).mean()
