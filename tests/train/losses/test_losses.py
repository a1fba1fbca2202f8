"""Losses against literal loops and the library, and the ignore band."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner

from train.losses.contrastive import ContrastiveLoss
from train.losses.multi_similarity import PlaceLoss, hard_pairs
from train.losses.triplet import TripletLoss


def test_triplet_equals_loops() -> None:
    query, positive, negatives = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 5, 6)
    expected = 0.0
    for b in range(4):
        for n in range(5):
            near = (query[b] - positive[b]).norm()
            far = (query[b] - negatives[b, n]).norm()
            expected += max(0.0, float(near - far + 0.1))
    assert float(TripletLoss(0.1)(query, positive, negatives)) == pytest.approx(expected / 20, rel=1e-5)


def test_all_negatives_of_a_hard_query_stay_in_the_mean() -> None:
    """One negative violates by .05, the other lies far off: half of .05, neither .05 nor nothing."""
    query, positive = torch.zeros(2, 2), torch.tensor([[0.3, 0.0], [0.0, 0.0]])
    negatives = torch.tensor([[[0.0, 0.35], [5.0, 0.0]], [[5.0, 0.0], [5.0, 0.0]]])
    loss = TripletLoss(0.1, skip_easy=True)(query, positive, negatives)
    assert float(loss) == pytest.approx(0.025, abs=1e-6)
    # Both negatives of one query violate: its two count, not two for each of the two columns.
    negatives[0, 1] = torch.tensor([0.0, 0.35])
    assert float(TripletLoss(0.1, skip_easy=True)(query, positive, negatives)) == pytest.approx(0.05, abs=1e-6)
    negatives[0, 1] = torch.tensor([5.0, 0.0])
    one_violates = TripletLoss(0.1, violating_only=True)(query, positive, negatives)
    assert float(one_violates) == pytest.approx(0.05, abs=1e-6)


def test_violating_negatives_alone_equal_loops() -> None:
    """The mean of the programs of SeqNet and SeqMatchNet: a sum over violating triplets, by their number."""
    generator = torch.Generator().manual_seed(0)
    query, positive = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    negatives = torch.randn(4, 10, 6, generator=generator)
    margin, total, count = 0.1**0.5, 0.0, 0
    for b in range(4):
        for n in range(10):
            near, far = (query[b] - positive[b]).norm(), (query[b] - negatives[b, n]).norm()
            if far < near + margin:
                total, count = total + float(near - far) + margin, count + 1
    assert 0 < count < 40
    loss = TripletLoss(margin, violating_only=True)
    assert float(loss(query, positive, negatives)) == pytest.approx(total / count, rel=1e-5)
    assert float(loss(query, query, query[:, None] + 9.0)) == 0.0


def test_triplet_of_equal_vectors_has_a_finite_gradient() -> None:
    same = torch.ones(1, 3, requires_grad=True)
    TripletLoss()(same, same, same.unsqueeze(1)).backward()
    assert same.grad.isfinite().all()


def masks(labels: Any) -> Any:
    same = labels[:, None] == labels[None, :]
    return same & ~torch.eye(len(labels), dtype=torch.bool), ~same


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_multi_similarity_is_the_librarys_on_labels(spread: float) -> None:
    """Pairs, loss and gradient, for places from alike to far apart; a window without a positive counts in the mean."""
    labels = torch.cat([torch.arange(6).repeat_interleave(3), torch.tensor([9])])
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(10, 8, generator=generator)[labels]
    vectors = (spread * places + torch.randn(19, 8, generator=generator)).requires_grad_()
    pairs = MultiSimilarityMiner(0.1)(vectors, labels)
    unit = F.normalize(vectors.detach(), dim=-1)
    positive, negative = masks(labels)
    hard = hard_pairs(unit @ unit.T, positive, negative, 0.1)
    for mask, (anchor, other) in zip(hard, (pairs[:2], pairs[2:]), strict=True):
        assert set(map(tuple, mask.nonzero().tolist())) == set(zip(anchor.tolist(), other.tolist(), strict=True))
    results = []
    for loss in (
        PlaceLoss()(vectors, *masks(labels)),
        MultiSimilarityLoss(alpha=1.0, beta=50, base=0.0)(vectors, labels, pairs),
    ):
        (gradient,) = torch.autograd.grad(loss, vectors)
        results.append((loss.detach(), gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [PlaceLoss(), ContrastiveLoss()])
def test_pairs_in_the_band_are_neither(loss: Any) -> None:
    """Windows 0 and 2 are alike: as negatives they would be hard; in the band they are in no pair."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    vectors = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    vectors[2] = F.normalize(vectors[0] + 0.05, dim=-1)
    positive, negative = masks(labels)
    as_negative = loss(vectors, positive, negative)
    negative[0, 2] = negative[2, 0] = False
    for mask in hard_pairs(vectors @ vectors.T, positive, negative, 0.1):
        assert mask.any() and not mask[0, 2] and not mask[2, 0]
    assert loss(vectors, positive, negative) < as_negative


def test_contrastive_equals_loops() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    positive, negative = masks(labels)
    negative[0, 3] = False
    vectors = F.normalize(torch.randn(7, 5), dim=-1)
    terms = []
    for i in range(7):
        far = sum(torch.exp(vectors[i] @ vectors[n] / 0.1) for n in range(7) if negative[i, n])
        for p in range(7):
            if positive[i, p]:
                near = torch.exp(vectors[i] @ vectors[p] / 0.1)
                terms.append(-torch.log(near / (near + far)))
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(ContrastiveLoss(0.1)(vectors, positive, negative), expected)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        ContrastiveLoss(0.0)
    with pytest.raises(ValueError, match="margin"):
        TripletLoss(-1.0)


def test_without_positives_the_loss_is_zero() -> None:
    vectors = torch.randn(4, 3, requires_grad=True)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    for loss in (PlaceLoss(), ContrastiveLoss()):
        assert loss(vectors, nothing, ~nothing & ~torch.eye(4, dtype=torch.bool)).item() == 0.0
