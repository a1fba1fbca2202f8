"""SeqVLAD: soft-assigned residuals of the tokens of all frames of a window, pooled as one set."""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.pooling.basic import Pooling

RUNNER_UP_SHARE = 0.01


class SeqVLAD(Pooling):
    """The VLAD layer over tokens of a window; before normalisation it is a plain sum over frames.

    `frame_sums`: tokens `(N, T, C)` → residual sums `(N, K, C)` of single frames, not normalised.
    `finish`: sums over a window `(B, K, C)` → descriptor `(B, K·C)`, unit length.
    Source: P1 eq. (1)–(2); tokens L2-normalised, intra-normalisation by cluster and final L2 as in NetVLAD. b_k of
    eq. (2) is an option, off by default as in practice.
    """

    def __init__(self, clusters: int, channels: int, *, bias: bool = False, seed: int = 0) -> None:
        """Random unit centres (seeded); `initialise` replaces them by k-means. Raises: ValueError below one cluster."""
        super().__init__(clusters * channels)
        if clusters < 1:
            raise ValueError(f"SeqVLAD needs at least one cluster, got {clusters}")
        self.assignment = nn.Parameter(torch.empty(clusters, channels))
        self.centres = nn.Parameter(torch.empty(clusters, channels))
        self.bias = nn.Parameter(torch.zeros(clusters)) if bias else None
        centres = F.normalize(torch.randn(clusters, channels, generator=torch.Generator().manual_seed(seed)), dim=-1)
        self.initialise(centres, alpha=100.0)

    @torch.no_grad()
    def initialise(self, centres: Tensor, alpha: float) -> None:
        """Set centres `(K, C)`; assignment weights become `alpha` × unit centres, bias zero."""
        self.centres.copy_(centres)
        self.assignment.copy_(alpha * F.normalize(centres, dim=-1))
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool a frame's tokens: `frame_sums`, so that windows are sums of their frames."""
        return self.frame_sums(tokens)

    def frame_sums(self, tokens: Tensor) -> Tensor:
        """Residual sums of each frame: `(N, T, C)` → `(N, K, C)`.

        Computed as A·X − diag(ΣA)·C, so the N×K×C×T residuals never exist; in float32 under autocast too, because
        a window adds many of them.
        """
        with nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False):
            unit = F.normalize(tokens.to(self.centres.dtype), dim=-1)
            share = F.linear(unit, self.assignment, self.bias).softmax(-1).transpose(1, 2)
            return share @ unit - share.sum(-1, keepdim=True) * self.centres

    @staticmethod
    def finish(sums: Tensor) -> Tensor:
        """Intra-normalise each cluster, flatten, L2: `(B, K, C)` → `(B, K·C)`."""
        return F.normalize(F.normalize(sums, dim=-1).flatten(1), dim=-1)


class NetVLAD(SeqVLAD):
    """SeqVLAD of single frames, each finished on its own: tokens `(N, T, C)` → `(N, K·C)`, unit length.

    Source: P1 Table II, "NetVLAD + CAT"; equal to SeqVLAD at L = 1.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, K·C)`."""
        return self.finish(self.frame_sums(tokens))


def kmeans(points: Tensor, clusters: int, *, seed: int = 0, rounds: int = 50, tolerance: float = 1e-5) -> Tensor:
    """Centres of k-means++ and Lloyd's rounds: points `(n, C)` float32 → `(clusters, C)`.

    An emptied cluster restarts at the point farthest from its centre. Deterministic for a seed.
    Raises: ValueError with fewer points than clusters.
    """
    if len(points) < clusters:
        raise ValueError(f"k-means of {clusters} clusters needs as many points, got {len(points)}")
    points = points.float()
    centres = _spread_start(points, clusters, torch.Generator().manual_seed(seed))
    for _ in range(rounds):
        distance, owner = _squared(points, centres).min(1)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        counts = torch.bincount(owner, minlength=clusters).to(points.dtype)
        fresh = sums / counts.clamp(min=1).unsqueeze(1)
        empty = (counts == 0).nonzero().flatten()
        fresh[empty] = points[distance.topk(len(empty)).indices]
        moved = (fresh - centres).square().sum(1).max()
        centres = fresh
        if moved < tolerance**2:
            break
    return centres


def _spread_start(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is drawn with a chance proportional to its squared distance to the chosen ones."""
    pick = torch.randint(len(points), (1,), generator=generator)
    centres = points[pick]
    distance = _squared(points, centres).squeeze(1)
    while len(centres) < clusters:
        chance = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        pick = torch.multinomial(chance.cpu(), 1, generator=generator)
        centres = torch.cat([centres, points[pick]])
        distance = torch.minimum(distance, _squared(points, points[pick]).squeeze(1))
    return centres


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(n, k)`, never negative."""
    cross = points @ centres.T
    return (points.square().sum(1, keepdim=True) - 2 * cross + centres.square().sum(1)).clamp(min=0)


def sharpness(points: Tensor, centres: Tensor) -> float:
    """Alpha that leaves the runner-up about 1 % of the winner's soft weight.

    ln 100 over the mean gap between the two best cosines of unit points `(n, C)` and unit centres `(K, C)`; 1 with
    one cluster. Source: methods, "VLAD initialisation".
    """
    if len(centres) < 2:
        return 1.0
    best = (points @ F.normalize(centres, dim=-1).T).topk(2, dim=1).values
    gap = float((best[:, 0] - best[:, 1]).mean().detach())
    return -math.log(RUNNER_UP_SHARE) / max(gap, 1e-6)


@torch.no_grad()
def initialise_from_tokens(layer: SeqVLAD, tokens: Tensor, *, sample: int = 50_000, seed: int = 0) -> None:
    """k-means initialisation from tokens `(N, T, C)` of some frames: at most `sample` of them, L2-normalised.

    Source: methods, "VLAD initialisation" (K = 64 on 50,000 local features of about 500 frames).
    """
    points = F.normalize(tokens.flatten(0, 1).float(), dim=-1)
    if len(points) > sample:
        generator = torch.Generator().manual_seed(seed)
        points = points[torch.randperm(len(points), generator=generator)[:sample].to(points.device)]
    centres = kmeans(points, len(layer.centres), seed=seed)
    layer.initialise(centres, sharpness(points, centres))
