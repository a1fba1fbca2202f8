"""SALAD: tokens assigned to clusters by optimal transport, with a dustbin for those that say nothing of the place.

Izquierdo and Civera, Optimal Transport Aggregation for Visual Place Recognition, CVPR 2024, sec. 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.pooling.basic import Pooling

SINKHORN_ROUNDS = 3  # as in the paper


class Salad(Pooling):
    """Optimal-transport pooling of one frame's tokens.

    Scores of each token against K clusters and a learnt dustbin become a transport plan; tokens, mapped to W numbers,
    are summed by it; each cluster and a global vector of G numbers are brought to unit length, then the whole. The
    paper takes the global vector from the CLS token; here it comes from the tokens' mean, so that any encoder fits.

    Shape:
        `(N, T, C)` → `(N, G + K·W)` of unit length.
    """

    def __init__(self, channels: int, clusters: int, *, width: int = 128, whole: int = 256, seed: int = 0) -> None:
        """Set the layers up, random from `seed`: K `clusters`, W `width`, G `whole`."""
        super().__init__(whole + clusters * width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.score = _two_layers(channels, clusters)
            self.token = _two_layers(channels, width)
            self.whole = _two_layers(channels, whole)
        self.dustbin = nn.Parameter(torch.tensor(1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, G + K·W)`."""
        plan = transport(self.score(tokens).transpose(1, 2), self.dustbin)
        clusters = F.normalize(plan @ self.token(tokens), dim=-1)
        whole = F.normalize(self.whole(tokens.mean(1)), dim=-1)
        return F.normalize(torch.cat([whole, clusters.flatten(1)], dim=-1), dim=-1)


def transport(scores: Tensor, dustbin: Tensor, rounds: int = SINKHORN_ROUNDS) -> Tensor:
    """Compute the share of each token in each cluster by Sinkhorn's algorithm.

    Every cluster receives the mass of one token, the dustbin that of the T − K others, every token gives one; with
    K ≥ T the dustbin receives nothing that counts.

    Args:
        scores: `(N, K, T)`, how well tokens fit clusters.
        dustbin: A scalar, how well any token fits the dustbin.
        rounds: Rounds of the algorithm.

    Returns:
        Shares `(N, K, T)`; those of the dustbin are left out.
    """
    batch, clusters, count = scores.shape
    full = torch.cat([scores, dustbin.expand(batch, 1, count)], dim=1)
    received = full.new_zeros(clusters + 1)
    received[-1] = math.log(max(count - clusters, 1e-6))
    # In the log domain, because products of exponentials underflow in float32.
    rows, columns = full.new_zeros(batch, clusters + 1, 1), full.new_zeros(batch, 1, count)
    for _ in range(rounds):
        rows = received[:, None] - torch.logsumexp(full + columns, dim=2, keepdim=True)
        columns = -torch.logsumexp(full + rows, dim=1, keepdim=True)
    return (full + rows + columns).exp()[:, :-1]


def _two_layers(channels: int, out: int) -> nn.Sequential:
    """An MLP with one hidden layer of the tokens' own width."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out))
