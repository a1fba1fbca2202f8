"""SeqVLAD and NetVLAD, and where their clusters start from.

Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. III-B.3, eq.
(1) and (2); Arandjelović et al., NetVLAD: CNN Architecture for Weakly Supervised Place Recognition, CVPR 2016.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqdata.errors import NotEnoughDataError
from train.models.pooling.basic import Pooling, PoolingOptions

RUNNER_UP_SHARE = 0.01  # of the winner's soft weight, as the start of NetVLAD's public program sets it

DISTINCT = 1e-5  # greatest difference of channels below which unit features count as equal; a guess


class VladOptions(PoolingOptions):
    """Options of SeqVLAD and NetVLAD."""

    hard: bool = False
    """Give each token to the one centre of the greatest cosine, and cluster by cosine, as AnyLoc does."""


class SeqVLAD(Pooling):
    """Soft-assigned residuals of the tokens of all frames of a window, pooled as one set.

    Before normalisation this is a plain sum over frames: `frame_sums` gives the sums of single frames, their sum over a
    window goes through `finish`. Tokens are L2-normalised first; each cluster, then the whole, is brought to unit
    length at the end. b_k of eq. (2) is an option, off by default as in practice. With `hard` each token belongs to one
    cluster, as in Keetha et al., AnyLoc: Towards Universal Visual Place Recognition, RA-L 2024, sec. III-B.

    Shape:
        tokens `(N, T, C)` → sums `(N, K, C)`; sums over a window `(B, K, C)` → descriptors `(B, K·C)` of unit length.

    Example:
        >>> layer = SeqVLAD(clusters=2, channels=3)
        >>> sums = layer(torch.ones(5, 4, 3))  # five frames of four tokens
        >>> layer.finish(sums.sum(0, keepdim=True)).shape
        torch.Size([1, 6])
    """

    def __init__(self, clusters: int, channels: int, *, bias: bool = False, hard: bool = False, seed: int = 0) -> None:
        """Set random unit centres (seeded), which `initialise` replaces.

        Raises:
            ValueError: Below one cluster.
        """
        super().__init__(clusters * channels)
        if clusters < 1:
            raise ValueError(f"SeqVLAD needs at least one cluster, got {clusters}")
        self.assignment = nn.Parameter(torch.empty(clusters, channels))
        self.centres = nn.Parameter(torch.empty(clusters, channels))
        self.bias = nn.Parameter(torch.zeros(clusters)) if bias else None
        self.hard = hard
        # The nearest centre has no gradient; a parameter without one would stop processes that train together.
        self.assignment.requires_grad_(not hard)
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
        """Pool tokens of frames `(N, T, C)` into `frame_sums`, so that windows are sums of their frames."""
        return self.frame_sums(tokens)

    def frame_sums(self, tokens: Tensor) -> Tensor:
        """Sum the residuals of each frame, not normalised: tokens `(N, T, C)` → `(N, K, C)`."""
        # Float32 under autocast too: a window adds many of these sums. torch has no autocast for the meta device.
        with nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False):
            unit = F.normalize(tokens.to(self.centres.dtype), dim=-1)
            scores = F.linear(unit, self.assignment, self.bias)
            share = F.one_hot(scores.argmax(-1), len(self.centres)).to(unit) if self.hard else scores.softmax(-1)
            share = share.transpose(1, 2)
            # Σ a (x − c) = A·X − (Σ a)·c, so that the N×K×C×T residuals never exist: measured 11 times faster, forward
            # and backward, in a fifth of the memory.
            return share @ unit - share.sum(-1, keepdim=True) * self.centres

    @staticmethod
    def finish(sums: Tensor) -> Tensor:
        """Bring each cluster of sums `(B, K, C)`, then the whole, to unit length: `(B, K·C)`."""
        return F.normalize(F.normalize(sums, dim=-1).flatten(1), dim=-1)


class NetVLAD(SeqVLAD):
    """SeqVLAD of single frames, each normalised on its own; equal to SeqVLAD at L = 1.

    Shape:
        tokens `(N, T, C)` → `(N, K·C)` of unit length.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, K·C)`."""
        return self.finish(self.frame_sums(tokens))


def kmeans(
    points: Tensor, clusters: int, *, seed: int = 0, rounds: int = 50, tolerance: float = 1e-5, by_cosine: bool = False
) -> Tensor:
    """Find cluster centres by k-means++ and Lloyd's algorithm, deterministically for a seed.

    Args:
        points: `(n, C)`, computed with in float32.
        clusters: How many centres.
        seed: Seed of the start.
        rounds: Most rounds of Lloyd's algorithm.
        tolerance: A round that moves no centre farther than this is the last.
        by_cosine: Give a point to the centre of the greatest cosine instead of the nearest; points are of unit length.

    Returns:
        Centres `(clusters, C)`.

    Raises:
        ValueError: With fewer points than clusters.
    """
    if len(points) < clusters:
        raise ValueError(f"k-means of {clusters} clusters needs as many points, got {len(points)}")
    points = points.float()
    centres = _spread_start(points, clusters, torch.Generator().manual_seed(seed))
    for _ in range(rounds):
        distances, owner = _squared(points, F.normalize(centres, dim=-1) if by_cosine else centres).min(1)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        counts = torch.bincount(owner, minlength=clusters).to(points.dtype)
        moved = sums / counts.clamp(min=1).unsqueeze(1)
        # A cluster that lost all its points restarts at the points farthest from their centres.
        empty = (counts == 0).nonzero().flatten()
        moved[empty] = points[distances.topk(len(empty)).indices]
        greatest_move = (moved - centres).square().sum(1).max()
        centres = moved
        if greatest_move < tolerance**2:
            break
    return centres


def _spread_start(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Start of k-means++: each next centre is drawn with a chance as its squared distance to the others."""
    row = torch.randint(len(points), (1,), generator=generator)
    centres = points[row]
    distances = _squared(points, centres).squeeze(1)
    while len(centres) < clusters:
        # With fewer distinct points than clusters all distances end at zero; any point will do then.
        chances = distances if float(distances.sum()) > 0 else torch.ones_like(distances)
        row = torch.multinomial(chances.cpu(), 1, generator=generator)
        centres = torch.cat([centres, points[row]])
        distances = torch.minimum(distances, _squared(points, points[row]).squeeze(1))
    return centres


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(n, k)` of points `(n, C)` to centres `(k, C)`, never negative."""
    # The product form needs no (n, k, C) differences; its rounding can fall below zero.
    products = points @ centres.T
    return (points.square().sum(1, keepdim=True) - 2 * products + centres.square().sum(1)).clamp(min=0)


def sharpness(points: Tensor, centres: Tensor) -> float:
    """Compute the alpha that leaves the runner-up about 1 % of the winner's soft weight.

    That is ln 100 over the mean difference between the two best cosines of unit points `(n, C)` and centres `(K, C)`;
    1 with one cluster.
    """
    if len(centres) < 2:
        return 1.0
    best = (points @ F.normalize(centres, dim=-1).T).topk(2, dim=1).values
    difference = float((best[:, 0] - best[:, 1]).mean().detach())
    return -math.log(RUNNER_UP_SHARE) / max(difference, 1e-6)


@torch.no_grad()
def initialise_from_tokens(
    layer: SeqVLAD, tokens: Tensor, *, sample: int = 50_000, seed: int = 0, frames: int | None = None
) -> None:
    """Start a VLAD layer from k-means over tokens of some frames; docs/methods.md#seqvlad.

    Args:
        layer: The layer, whose centres and assignment are set.
        tokens: `(N, T, C)` of N frames, L2-normalised here.
        sample: Most tokens that k-means runs on, drawn at random.
        seed: Seed of the draw and of k-means.
        frames: Training frames that the tokens come from, for messages; None: N.

    Raises:
        NotEnoughDataError: With fewer distinct tokens than clusters, or where they differ too little: frames of one
            colour would give equal centres and assignment weights near a million.
    """
    points = F.normalize(tokens.flatten(0, 1).float(), dim=-1)
    if len(points) > sample:
        generator = torch.Generator().manual_seed(seed)
        points = points[torch.randperm(len(points), generator=generator)[:sample].to(points.device)]
    clusters = len(layer.centres)
    distinct = _count_distinct(points, clusters)
    if distinct < clusters:
        raise NotEnoughDataError(
            f"k-means of {clusters} VLAD clusters: the {len(points):,} local features of {frames or len(tokens):,} "
            f"training frames hold {distinct} distinct ones, too few (frames of one colour have one, black ones none); "
            f"lower the option clusters, raise kmeans_features, or set kmeans_frames=0 for a random start"
        )
    centres = kmeans(points, clusters, seed=seed, by_cosine=layer.hard)
    layer.initialise(centres, sharpness(points, centres))


def _count_distinct(points: Tensor, enough: int) -> int:
    """How many of the unit points `(n, C)` differ, counted up to `enough`; zero vectors (black frames) do not count."""
    # Features of real frames all differ, so that a small part settles it; only then is every point looked at.
    part = points[:: max(1, len(points) // (8 * enough))]
    if len(part) < len(points) and _count_distinct(part, enough) == enough:
        return enough
    rest = points[points.any(1)]
    distinct = 0
    while len(rest) and distinct < enough:
        # Farther than rounding of equal features that were computed in different batches.
        rest = rest[(rest - rest[0]).abs().amax(1) > DISTINCT]
        distinct += 1
    return distinct
