"""MixVPR: MLPs over the places of a feature map, channel by channel.

Ali-bey, Chaib-draa and Giguère, MixVPR: Feature Mixing for Visual Place Recognition, WACV 2023, sec. 3, and the program
of its authors; docs/methods.md#mixvpr.
"""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from train.models.pooling.basic import Pooling, PoolingOptions


class MixOptions(PoolingOptions):
    """Sizes of MixVPR; the defaults are those of its 4,096 numbers."""

    depth: int = Field(default=4, ge=1)
    """Mixing layers."""
    ratio: float = Field(default=1.0, gt=0)
    """Hidden numbers of a layer, as a multiple of the tokens."""
    channels: int = Field(default=1024, ge=1)
    """Channels that the mixed map is brought to."""
    rows: int = Field(default=4, ge=1)
    """Numbers that the tokens of a channel are brought to."""


class MixVpr(Pooling):
    """Feature mixing of one frame's grid of tokens; for the one grid that it was made for.

    In each layer a channel's T numbers go through a LayerNorm and an MLP, and are added. A linear map over channels and
    one over tokens follow.

    Shape:
        `(N, T, C)` → `(N, channels·rows)` of unit length.

    Example:
        >>> import torch
        >>> layer = MixVpr(channels=8, tokens=6, options=MixOptions(depth=1, channels=4, rows=2))
        >>> layer(torch.ones(5, 6, 8)).shape
        torch.Size([5, 8])
    """

    def __init__(self, channels: int, tokens: int, options: MixOptions | None = None) -> None:
        """Set the layers up for T `tokens` of C `channels`, random from torch's generator."""
        options = options or MixOptions()
        super().__init__(options.channels * options.rows)
        hidden = int(tokens * options.ratio)
        self.mix = nn.ModuleList(_mixer(tokens, hidden) for _ in range(options.depth))
        self.channels = nn.Linear(channels, options.channels)
        self.rows = nn.Linear(tokens, options.rows)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, channels·rows)`."""
        # The MLPs run over the places of a channel, so that each layer has weights for one number of places.
        maps = tokens.transpose(1, 2)
        for layer in self.mix:
            maps = maps + layer(maps)
        maps = self.channels(maps.transpose(1, 2)).transpose(1, 2)
        return F.normalize(self.rows(maps).flatten(1), dim=-1)


def _mixer(tokens: int, hidden: int) -> nn.Sequential:
    """LayerNorm and MLP over the tokens of a channel."""
    return nn.Sequential(nn.LayerNorm(tokens), nn.Linear(tokens, hidden), nn.ReLU(), nn.Linear(hidden, tokens))
