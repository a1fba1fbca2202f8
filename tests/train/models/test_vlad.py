"""SeqVLAD against its literal equations, its invariants, and its initialisation."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seqdata.errors import NotEnoughDataError
from train.models.fusion.basic import VLADSum
from train.models.pooling import vlad as vlad_module
from train.models.pooling.vlad import SeqVLAD, initialise_from_tokens, kmeans, sharpness


def literal(tokens: Any, layer: Any) -> Any:
    """P1 eq. (1)-(2) for one window, tokens (L, T, C): loops over clusters, frames and features."""
    clusters, channels = layer.centres.shape
    result = torch.zeros(clusters, channels)
    for k in range(clusters):
        for frame in tokens:
            for feature in frame:
                x = feature / feature.norm()
                b = layer.bias if layer.bias is not None else torch.zeros(clusters)
                scores = [torch.exp(layer.assignment[j] @ x + b[j]) for j in range(clusters)]
                result[k] += scores[k] / sum(scores) * (x - layer.centres[k])
    result = result / result.norm(dim=1, keepdim=True)
    return result.flatten() / result.norm()


def window(layer: Any, tokens: Any) -> Any:
    """Descriptor of one window, tokens (L, T, C)."""
    return VLADSum()(layer.frame_sums(tokens).unsqueeze(0))[0]


def layer_of(clusters: Any = 5, channels: Any = 7, bias: Any = False) -> Any:
    layer = SeqVLAD(clusters, channels, bias=bias, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        layer.assignment.copy_(torch.randn(clusters, channels, generator=generator) * 3)
        layer.centres.copy_(torch.randn(clusters, channels, generator=generator))
        if bias:
            layer.bias.copy_(torch.randn(clusters, generator=generator))
    return layer


@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_literal_equations(bias: Any) -> None:
    layer = layer_of(bias=bias)
    tokens = torch.randn(3, 6, 7)
    torch.testing.assert_close(window(layer, tokens), literal(tokens, layer), atol=1e-5, rtol=1e-5)


def test_frame_order_changes_nothing() -> None:
    layer, tokens = layer_of(), torch.randn(5, 6, 7)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        torch.testing.assert_close(window(layer, tokens), window(layer, tokens[order]), atol=1e-6, rtol=1e-5)


def test_one_frame_is_netvlad() -> None:
    """NetVLAD of one image: residuals of every token, by broadcasting over N x K x T x C."""
    layer, tokens = layer_of(), torch.randn(4, 6, 7)
    x = F.normalize(tokens, dim=-1)
    share = torch.softmax(x @ layer.assignment.T, -1)
    residuals = (share.unsqueeze(-1) * (x.unsqueeze(2) - layer.centres)).sum(1)
    expected = F.normalize(F.normalize(residuals, dim=-1).flatten(1), dim=-1)
    got = VLADSum()(layer.frame_sums(tokens).unsqueeze(1))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_pooling_frames_is_pooling_all_their_tokens() -> None:
    layer, tokens = layer_of(), torch.randn(5, 6, 7)
    as_one = window(layer, tokens.reshape(1, 30, 7))
    torch.testing.assert_close(window(layer, tokens), as_one, atol=1e-6, rtol=1e-5)


def test_gradients_are_right() -> None:
    layer = layer_of(3, 4, bias=True).double()
    tokens = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    names = ("assignment", "centres", "bias")

    def of(tokens: Any, *parameters: Any) -> Any:
        state = dict(zip(names, parameters, strict=True))
        sums = torch.func.functional_call(Sums(layer), {f"layer.{k}": v for k, v in state.items()}, (tokens,))
        return SeqVLAD.finish(sums.sum(0, keepdim=True))

    assert torch.autograd.gradcheck(of, (tokens, *(getattr(layer, name) for name in names)))


class Sums(torch.nn.Module):
    """`frame_sums` as a module's forward, for functional calls."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Any) -> Any:
        return self.layer.frame_sums(tokens)


def randn_points(count: int, channels: int) -> Any:
    """Random points `(count, channels)`."""
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(0))


def planted(clusters: Any = 6, channels: Any = 12, each: Any = 40) -> Any:
    """Tokens (frames, T, C) around unit directions, and these directions."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(clusters, channels, generator=generator), dim=-1)
    points = directions.repeat(each, 1) + 0.02 * torch.randn(clusters * each, channels, generator=generator)
    return points.view(each, clusters, channels), directions


def test_kmeans_finds_planted_clusters_on_the_channel_axis() -> None:
    """A reshape that mixes tokens with channels finds none of the planted directions."""
    tokens, directions = planted()
    layer = SeqVLAD(6, 12)
    initialise_from_tokens(layer, tokens)
    cosines = F.normalize(layer.centres, dim=-1) @ directions.T
    assert cosines.max(0).values.min() > 0.99
    scrambled = SeqVLAD(6, 12)
    initialise_from_tokens(scrambled, tokens.transpose(1, 2).reshape(tokens.shape))
    assert (F.normalize(scrambled.centres, dim=-1) @ directions.T).max(0).values.min() < 0.9


def test_runner_up_gets_about_one_percent() -> None:
    tokens, _ = planted()
    layer = SeqVLAD(6, 12)
    initialise_from_tokens(layer, tokens)
    points = F.normalize(tokens.flatten(0, 1), dim=-1)
    alpha = layer.assignment.norm(dim=1)
    torch.testing.assert_close(alpha, torch.full((6,), sharpness(points, layer.centres)), rtol=1e-4, atol=1e-4)
    best = (points @ layer.assignment.T).topk(2, dim=1).values
    assert (best[:, 0] - best[:, 1]).mean().item() == pytest.approx(math.log(100), rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(0)), "10 local features of 12 .* 10 distinct"),
        (torch.zeros(1, 500, 32), "500 local features of 12 training frames hold 0 distinct"),
        (torch.ones(1, 500, 32), "hold 1 distinct"),
        (torch.eye(32)[:5].repeat(200, 1).unsqueeze(0), "hold 5 distinct"),
    ],
    ids=["few", "black", "one colour", "five values"],
)
def test_too_few_distinct_features_are_refused(tokens: Any, words: str) -> None:
    layer = SeqVLAD(16, 32)
    before = layer.centres.clone()
    with pytest.raises(NotEnoughDataError, match=words):
        initialise_from_tokens(layer, tokens, frames=12)
    assert torch.equal(layer.centres, before)


def test_equal_features_beside_enough_distinct_ones_are_no_fault() -> None:
    spread = torch.randn(30, 32, generator=torch.Generator().manual_seed(0))
    layer = SeqVLAD(16, 32)
    initialise_from_tokens(layer, torch.cat([torch.ones(2000, 32), spread]).unsqueeze(0))
    assert len(layer.centres.unique(dim=0)) == 16 and float(layer.assignment.detach().abs().max()) < 1e4


def test_kmeans_of_as_many_points_as_clusters_is_the_points() -> None:
    points = randn_points(5, 4)
    centres = kmeans(points, 5)
    torch.testing.assert_close(centres.sort(0).values, points.sort(0).values)


def test_an_emptied_cluster_restarts_at_the_farthest_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two centres start on one spot, so the second is left without points; the outlier is where it goes."""
    points = torch.tensor([[0.0], [0.1], [0.2], [9.0]])
    monkeypatch.setattr(vlad_module, "_spread_start", lambda *_: torch.tensor([[0.1], [0.1]]))
    centres = kmeans(points, 2, rounds=1)
    assert sorted(centres.flatten().tolist())[1] == pytest.approx(9.0)


def test_kmeans_is_seeded_and_survives_copies() -> None:
    points = torch.randn(200, 4)
    assert torch.equal(kmeans(points, 5, seed=3), kmeans(points, 5, seed=3))
    assert kmeans(torch.ones(10, 4), 3).isfinite().all()
    with pytest.raises(ValueError, match="as many points"):
        kmeans(points[:2], 5)
