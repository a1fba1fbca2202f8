"""Attention with relative positions, one table an axis, and the transformer blocks that use it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.base import join, split
from train.models.encoders.cct import CHANNELS, HEADS, MLP, Attention, Block
from train.models.sta.windows import windows_of

Position = Literal["none", "absolute", "relative"]
STD = 0.02


class RelativePositions(nn.Module):
    """A learnt vector for each distance along time, rows and columns, added to attention as q·R.

    Tables `(2n − 1, d)` for n frames, rows and columns, shared by the heads. A distance beyond a table counts as its
    farthest, so longer windows and larger grids than in training work.
    Source: P2 eq. (6); truncated normal, deviation 0.02.
    """

    def __init__(self, extents: tuple[int, int, int], channels: int) -> None:
        """`extents`: frames, rows and columns that the tables reach; an axis of 1 has no table of use."""
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(2 * extent - 1, channels)) for extent in extents)
        for table in self.tables:
            nn.init.trunc_normal_(table, std=STD)

    def forward(self, queries: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Queries `(B, heads, N, d)` over `shape` (frames, rows, columns) → bias `(B, heads, N, N)`."""
        batch, heads, count, channels = queries.shape
        grid = queries.reshape(batch, heads, *shape, channels)
        time, rows, columns = (_between(table, extent) for table, extent in zip(self.tables, shape, strict=True))
        by_time = torch.einsum("bzthwd,tsd->bzthws", grid, time)[..., :, None, None]
        by_row = torch.einsum("bzthwd,hsd->bzthws", grid, rows)[..., None, :, None]
        by_column = torch.einsum("bzthwd,wsd->bzthws", grid, columns)[..., None, None, :]
        return (by_time + by_row + by_column).reshape(batch, heads, count, count)


def _between(table: Tensor, extent: int) -> Tensor:
    """The table's vector for each pair of places on an axis: `(extent, extent, d)`, query place first."""
    reach = len(table) // 2
    place = torch.arange(extent, device=table.device)
    return table[(place[:, None] - place[None, :]).clamp(-reach, reach) + reach]


class PositionedAttention(Attention):
    """Self-attention over tokens `(B, N, C)` of a (frames, rows, columns) box, with optional relative positions.

    logits = q·k/√d + q·R, or (q·k + q·R)/√d with `scaled`. Source: P2 eq. (5)–(6); unscaled in practice.
    """

    def __init__(self, channels: int, heads: int, relative: RelativePositions | None, scaled: bool) -> None:
        super().__init__(channels, heads)
        self.relative = relative
        self.scaled = scaled

    def over(self, tokens: Tensor, shape: tuple[int, int, int], inside: Tensor | None = None) -> Tensor:
        """`(B, N, C)` → `(B, N, C)`; `inside` bool `(B, N)` tells which tokens may be attended to."""
        q, k, v = self.heads_of(tokens)
        mask = None if inside is None else torch.zeros_like(inside, dtype=q.dtype).masked_fill(~inside, float("-inf"))
        bias = None if mask is None else mask[:, None, None, :]
        if self.relative is not None:
            relative = self.relative(q, shape) * (q.shape[-1] ** -0.5 if self.scaled else 1.0)
            bias = relative if bias is None else relative + bias
        return self.join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


class STABlock(Block):
    """A CCT block whose attention runs over windows of m×m tokens across all frames.

    `(B, L, T, C)` → `(B, L, T, C)`: windows are cut after the first LN, attended, merged by sum (or mean), added.
    With `side` None one window covers the grid, frame by frame when `across_frames` is False (the spatial branch).
    """

    def __init__(
        self,
        *,
        side: int | None,
        stride: int = 1,
        across_frames: bool = True,
        relative: RelativePositions | None = None,
        scaled: bool = False,
        mean: bool = False,
        channels: int = CHANNELS,
        heads: int = HEADS,
        mlp: int = MLP,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(channels, heads, mlp, drop_path)
        self.attention: PositionedAttention = PositionedAttention(channels, heads, relative, scaled)
        self.side = side
        self.stride = stride
        self.across_frames = across_frames
        self.mean = mean

    def forward_grid(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """`(B, L, T, C)` over a grid (rows, columns) → the same shape."""
        mixed = self._attend(self.pre_norm(tokens), grid)
        return self.feed(tokens + self.drop_path(mixed))

    def _attend(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, length = tokens.shape[:2]
        if not self.across_frames:
            return split(self.attention.over(join(tokens), (1, *grid)), length)
        if self.side is None:
            return self.attention.over(tokens.flatten(1, 2), (length, *grid)).view_as(tokens)
        windows = windows_of(grid, self.side, self.stride)
        cut = windows.cut(tokens)
        inside = None
        if windows.held is not None:
            inside = windows.inside.to(tokens.device).repeat(batch, length)
        mixed = self.attention.over(cut.flatten(0, 1), (length, self.side, self.side), inside)
        return windows.merge(mixed.view_as(cut), length, self.mean)
