"""Poolings by name: a new one is one module and one entry here.

What differs between poolings for others (which part of the encoder they read, whether a fusion must sum) stands in the
entry, so that `train.models.frame_model` names none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from train.models.pooling.basic import AveragePool, ClassToken, GeM, Pooling, SeqPool
from train.models.pooling.salad import Salad
from train.models.pooling.vlad import NetVLAD, SeqVLAD


@dataclass(frozen=True)
class PoolingSettings:
    """What a pooling may be made of.

    Attributes:
        channels: Numbers of a token.
        clusters: Clusters of VLAD and SALAD.
        bias: Whether VLAD's assignment has a bias.
        attention: The backbone's own attention pooling, `C → 1`, where it has one.
        seed: Seed of random starts.
    """

    channels: int
    clusters: int
    bias: bool
    attention: nn.Linear | None
    seed: int


@dataclass(frozen=True)
class PoolingEntry:
    """A pooling and what others need to know of it.

    Attributes:
        build: Makes it of settings.
        reads_class_token: It reads the encoder's CLS token instead of the tokens of the grid.
        gives_sums: It gives unnormalised sums `(N, K, C)`, which only a fusion that adds them can take.
        has_bias: The option `bias` means something to it.
    """

    build: Callable[[PoolingSettings], Pooling]
    reads_class_token: bool = False
    gives_sums: bool = False
    has_bias: bool = False


# Functions, not classes: a pooling is made when a model names it, with that model's sizes.
POOLINGS: dict[str, PoolingEntry] = {
    "vlad": PoolingEntry(
        lambda s: SeqVLAD(s.clusters, s.channels, bias=s.bias, seed=s.seed), gives_sums=True, has_bias=True
    ),
    "netvlad": PoolingEntry(lambda s: NetVLAD(s.clusters, s.channels, bias=s.bias, seed=s.seed), has_bias=True),
    "gem": PoolingEntry(lambda s: GeM(s.channels)),
    "avg": PoolingEntry(lambda s: AveragePool(s.channels)),
    "cls": PoolingEntry(lambda s: ClassToken(s.channels), reads_class_token=True),
    "seqpool": PoolingEntry(lambda s: SeqPool(s.channels, s.attention)),
    "salad": PoolingEntry(lambda s: Salad(s.channels, s.clusters, seed=s.seed)),
}
