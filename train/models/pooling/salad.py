"""SALAD: tokens assigned to clusters by optimal transport, with a dustbin for those that say nothing of the place.

Izquierdo and Civera, Optimal Transport Aggregation for Visual Place Recognition, CVPR 2024, sec. 3, and the program of
its authors; docs/methods.md#salad.
"""

import math
from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from train.models.pooling.basic import Pooling, PoolingOptions

SINKHORN_ROUNDS = 3  # as in the paper


class SaladOptions(PoolingOptions):
    """Sizes and settings of SALAD; the defaults are those of its authors' program."""

    hidden: int | None = Field(default=512, ge=1)
    """Hidden numbers of its three maps. None: as many as a token has."""
    width: int = Field(default=128, ge=1)
    """Numbers of each cluster; 256 in MegaLoc."""
    global_width: int = Field(default=256, ge=1)
    """Numbers of the global vector."""
    global_from: Literal["cls", "mean"] = "cls"
    """What the global vector is made of: the encoder's CLS token, or the mean of the tokens, for encoders without."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of hidden numbers of tokens and scores that is dropped in training."""
    rows: Literal["width", "clusters"] = "width"
    """How the clusters' W×K numbers are laid out: W rows of K, as the authors' program, or K rows of W."""


EARLIER_SALAD = {"hidden": None, "global_from": "mean", "dropout": 0.0, "rows": "clusters"}
"""Options of models that were stored before these options existed."""


class Salad(Pooling):
    """Optimal-transport pooling of one frame's tokens.

    Scores of each token against K clusters and a learnt dustbin become a transport plan; tokens, mapped to W numbers,
    are summed by it; each cluster and a global vector of G numbers are brought to unit length, then the whole.

    Shape:
        `(N, 1 + T, C)`, the CLS token first, or `(N, T, C)` where the global vector is of the mean → `(N, G + K·W)` of
        unit length.

    Example:
        >>> layer = Salad(channels=8, clusters=4, options=SaladOptions(hidden=6, width=2, global_width=3))
        >>> layer(torch.ones(5, 1 + 9, 8)).shape
        torch.Size([5, 11])
    """

    def __init__(self, channels: int, clusters: int, options: SaladOptions | None = None, *, seed: int = 0) -> None:
        """Set the layers up, random from `seed`; `clusters` is K, `options.width` W, `options.global_width` G."""
        options = options or SaladOptions()
        super().__init__(options.global_width + clusters * options.width)
        self.options = options
        hidden = channels if options.hidden is None else options.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.score = _two_layers(channels, hidden, clusters, options.dropout)
            self.token = _two_layers(channels, hidden, options.width, options.dropout)
            self.whole = _two_layers(channels, hidden, options.global_width, 0.0)
        self.dustbin = nn.Parameter(torch.tensor(1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)`, or `(N, 1 + T, C)` with a CLS token → `(N, G + K·W)`."""
        has_class_token = self.options.global_from == "cls"
        of_frame, tokens = (tokens[:, 0], tokens[:, 1:]) if has_class_token else (tokens.mean(1), tokens)
        plan = transport(self.score(tokens).transpose(1, 2), self.dustbin)
        clusters = F.normalize(plan @ self.token(tokens), dim=-1)
        if self.options.rows == "width":
            clusters = clusters.transpose(1, 2)
        whole = F.normalize(self.whole(of_frame), dim=-1)
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


def _two_layers(channels: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """An MLP with one hidden layer."""
    # Named, so that models stored without dropout keep the names of their weights.
    layers = [("0", nn.Linear(channels, hidden)), ("1", nn.ReLU()), ("2", nn.Linear(hidden, out))]
    if dropout:
        # Behind the ReLU or before it, as in the authors' program, is the same.
        layers.insert(2, ("dropout", nn.Dropout(dropout)))
    return nn.Sequential(OrderedDict(layers))
