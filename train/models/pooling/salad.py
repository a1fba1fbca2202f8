"""SALAD: tokens assigned to clusters by optimal transport, with a dustbin for what tells no place apart."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.pooling.basic import Pooling

SINKHORN_ROUNDS = 3


class Salad(Pooling):
    """Optimal-transport pooling of one frame's tokens: `(N, T, C)` → `(N, G + K·W)`, unit length.

    Scores of each token against K clusters and a learnt dustbin become a transport plan (Sinkhorn, in the log domain);
    tokens, mapped to W numbers, are summed by it; each cluster and a global vector of G numbers are brought to unit
    length, then the whole. The global vector comes from the tokens' mean, so any encoder fits.
    Source: SALAD (Izquierdo and Civera, CVPR 2024), which takes the global vector from the CLS token.
    """

    def __init__(self, channels: int, clusters: int, *, width: int = 128, whole: int = 256, seed: int = 0) -> None:
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
    """Share of each token in each cluster: scores `(N, K, T)` and a dustbin score → `(N, K, T)`.

    Every cluster receives the mass of one token, the dustbin that of the T − K others, every token gives one; with
    K ≥ T the dustbin receives nothing that counts.
    Source: Sinkhorn's algorithm, as in SuperGlue and SALAD.
    """
    batch, clusters, count = scores.shape
    full = torch.cat([scores, dustbin.expand(batch, 1, count)], dim=1)
    received = full.new_zeros(clusters + 1)
    received[-1] = math.log(max(count - clusters, 1e-6))
    rows, columns = full.new_zeros(batch, clusters + 1, 1), full.new_zeros(batch, 1, count)
    for _ in range(rounds):
        rows = received[:, None] - torch.logsumexp(full + columns, dim=2, keepdim=True)
        columns = -torch.logsumexp(full + rows, dim=1, keepdim=True)
    return (full + rows + columns).exp()[:, :-1]


def _two_layers(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out))
