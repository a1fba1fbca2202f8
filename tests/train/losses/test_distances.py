"""Distances of descriptors against literal sums, and a loss that skips easy queries."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from train.loop.validation import search
from train.losses.distances import descriptor_distances, distance_matrix
from train.losses.triplet import TripletLoss


def randn(*shape: Any, seed: Any = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def literal(left: Any, right: Any, frames: Any) -> Any:
    size = len(left) // (frames or 1)
    gaps = [
        math.sqrt(sum((float(left[i]) - float(right[i])) ** 2 for i in range(t * size, t * size + size)))
        for t in range(frames or 1)
    ]
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("frames", [None, 1, 2, 3])
def test_distances_pair_by_pair_and_as_a_matrix(frames: Any) -> None:
    query, reference = randn(4, 6), randn(5, 6, seed=1)
    wanted = torch.tensor([[literal(q, r, frames) for r in reference] for q in query])
    torch.testing.assert_close(descriptor_distances(query[:, None], reference[None], frames), wanted)
    scores = distance_matrix(query, reference, frames)
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5)


def test_gradient_is_finite_where_descriptors_are_equal() -> None:
    same = randn(2, 6).requires_grad_()
    descriptor_distances(same, same.detach().clone(), 3).sum().backward()
    assert bool(same.grad.isfinite().all())


@pytest.mark.parametrize("frames", [None, 2])
def test_easy_queries_are_skipped(frames: Any) -> None:
    query, positive, negatives = randn(6, 4), randn(6, 4, seed=1), 2 * randn(6, 3, 4, seed=2)
    rows = []
    for q, p, n in zip(query, positive, negatives, strict=True):
        rows.append([max(0.0, literal(q, p, frames) - literal(q, x, frames) + 0.1) for x in n])
    hard = [row for row in rows if any(row)]
    assert 0 < len(hard) < 6
    mean = sum(map(sum, hard)) / (3 * len(hard))
    got = TripletLoss(0.1, frames=frames, skip_easy=True)(query, positive, negatives)
    assert float(got) == pytest.approx(mean, rel=1e-5)
    plain = TripletLoss(0.1, frames=frames)(query, positive, negatives)
    assert float(plain) == pytest.approx(sum(map(sum, rows)) / 18, rel=1e-5)
    easy = TripletLoss(0.0, skip_easy=True)(query[:1], query[:1], 100 * negatives[:1])
    assert float(easy) == 0.0


HARD: dict[str, Any] = {"a common offset": 1e4, "collapsed": None, "1e19": 1e19, "1e-25": 1e-25}


@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("kind", HARD)
def test_ranking_and_validation_of_hard_descriptors(kind: str, frames: int | None) -> None:
    """The nearest of descriptors that float32 products cannot tell apart, as differences in float64 have it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(230, 8))
    if kind == "collapsed":
        x = generator.normal(size=(1, 8)) + 1e-6 * x
    else:
        x = x + HARD[kind] if kind == "a common offset" else x * HARD[kind]
    vectors = x.astype(np.float32)
    database, query = vectors[:200], vectors[200:]
    difference = (query[:, None].astype(np.float64) - database).reshape(30, 200, frames or 1, -1)
    truth = np.sqrt((difference**2).sum(3)).mean(2)
    scores = distance_matrix(torch.from_numpy(query), torch.from_numpy(database), frames)
    np.testing.assert_array_equal(scores.argmin(1), truth.argmin(1))
    found = search(query, database, 5, frames=frames)[1]
    np.testing.assert_array_equal(found, np.argsort(truth, axis=1)[:, :5])
