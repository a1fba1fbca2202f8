"""Losses on window descriptors: the papers' triplet, and place-batch losses over geometric pair masks."""

from typing import cast

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn

from train.distances import separation


class TripletLoss(nn.Module):
    """Hinge on plain L2 distances, averaged over the negatives and the batch.

    `query` and `positive` `(B, D)`, `negatives` `(B, M, D)` → scalar: mean of max(0, |q−p| − |q−n| + margin). `frames`:
    see `train.distances`. With `skip_easy` queries without a violating negative count for nothing, not for zero.
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
