"""Poolings by name: a new one is one module and one entry here.

What differs between poolings for others (which part of the encoder they read, whether a fusion must sum) stands in the
entry, so that `train.models.frame_model` names none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from torch import nn

from seqdata.contracts.records import describe_first
from seqdata.errors import UsageError
from train.models.pooling.basic import AveragePool, ClassToken, GeM, Pooling, PoolingOptions, SeqPool
from train.models.pooling.boq import Boq, BoqOptions
from train.models.pooling.mixvpr import MixOptions, MixVpr
from train.models.pooling.salad import EARLIER_SALAD, Salad, SaladOptions
from train.models.pooling.vlad import NetVLAD, SeqVLAD, VladOptions

Part = Literal["grid", "cls", "all"]
"""Tokens that a pooling reads of the encoder (see `train.models.encoders.encoder`)."""


@dataclass(frozen=True)
class PoolingSettings:
    """What a pooling may be made of.

    Attributes:
        channels: Numbers of a token.
        clusters: Clusters of VLAD and SALAD.
        bias: Whether VLAD's assignment has a bias.
        attention: The backbone's own attention pooling, `C → 1`, where it has one.
        seed: Seed of random starts.
        options: The pooling's own options.
        grid: (rows, columns) of the encoder's tokens, for poolings that are made for one; (0, 0) for others.
    """

    channels: int
    clusters: int
    bias: bool
    attention: nn.Linear | None
    seed: int
    options: Any
    grid: tuple[int, int]


def _grid(options: PoolingOptions) -> Part:
    """The tokens of the grid, whatever the options."""
    return "grid"


def _salad_part(options: SaladOptions) -> Part:
    """The grid, and the CLS token where the global vector is of that."""
    return "all" if options.global_from == "cls" else "grid"


@dataclass(frozen=True)
class PoolingEntry:
    """A pooling and what others need to know of it.

    Attributes:
        build: Makes it of settings.
        part: Tokens of the encoder that it reads, by its options.
        gives_sums: It gives unnormalised sums `(N, K, C)`, which only a fusion that adds them can take.
        has_bias: The option `bias` means something to it.
        needs_grid: It is made for one grid of tokens, so that frames must be resized to one size.
        options: The model of its own options.
        earlier: Own options of models that were stored before poolings had any.
    """

    build: Callable[[PoolingSettings], Pooling]
    part: Callable[[Any], Part] = _grid
    gives_sums: bool = False
    has_bias: bool = False
    needs_grid: bool = False
    options: type[PoolingOptions] = PoolingOptions
    earlier: Mapping[str, Any] = field(default_factory=dict)


def _vlad(kind: type[SeqVLAD]) -> Callable[[PoolingSettings], Pooling]:
    """Maker of a VLAD layer."""
    return lambda s: kind(s.clusters, s.channels, bias=s.bias, hard=s.options.hard, seed=s.seed)


# Functions, not classes: a pooling is made when a model names it, with that model's sizes.
POOLINGS: dict[str, PoolingEntry] = {
    "vlad": PoolingEntry(_vlad(SeqVLAD), gives_sums=True, has_bias=True, options=VladOptions),
    "netvlad": PoolingEntry(_vlad(NetVLAD), has_bias=True, options=VladOptions),
    "gem": PoolingEntry(lambda s: GeM(s.channels)),
    "avg": PoolingEntry(lambda s: AveragePool(s.channels)),
    "cls": PoolingEntry(lambda s: ClassToken(s.channels), part=lambda options: "cls"),
    "seqpool": PoolingEntry(lambda s: SeqPool(s.channels, s.attention)),
    "salad": PoolingEntry(
        lambda s: Salad(s.channels, s.clusters, s.options, seed=s.seed),
        part=_salad_part,
        options=SaladOptions,
        earlier=EARLIER_SALAD,
    ),
    "boq": PoolingEntry(lambda s: Boq(s.channels, s.grid, s.options), needs_grid=True, options=BoqOptions),
    "mixvpr": PoolingEntry(
        lambda s: MixVpr(s.channels, s.grid[0] * s.grid[1], s.options), needs_grid=True, options=MixOptions
    ),
}


def own_options(pooling: str, values: dict[str, Any] | None) -> PoolingOptions:
    """Check a pooling's own options.

    Args:
        pooling: Its name.
        values: The options; None for those of models that were stored before poolings had any.

    Raises:
        UsageError: Naming the one that is wrong, and those that there are.
    """
    entry = POOLINGS[pooling]
    values = dict(entry.earlier) if values is None else values
    unknown = sorted(set(values) - set(entry.options.model_fields))
    if unknown:
        names = ", ".join(entry.options.model_fields) or "none"
        raise UsageError(f"pooling '{pooling}' has no option '{unknown[0]}' (pooling_options); there are: {names}")
    try:
        return entry.options.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"pooling_options of '{pooling}': {describe_first(error)}") from error


def token_part(pooling: str, values: dict[str, Any] | None) -> Part:
    """Tell which tokens a pooling reads with these options (see `own_options`)."""
    return POOLINGS[pooling].part(own_options(pooling, values))
