"""Attention with relative positions, one table an axis, and the transformer blocks that use it.

Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place Recognition, sec.
III-A.2, eq. (6); the decomposition by axis follows Li et al., MViTv2, ICCV 2021, as that paper says.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.base import join, split
from train.models.encoders.cct import CHANNELS, HEADS, MLP, Attention, Block
from train.models.sta.windows import Windows

Position = Literal["none", "absolute", "relative"]
STD = 0.02  # of the truncated normal that learnt positions start from, as in ViT


class RelativePositions(nn.Module):
    """A learnt vector for each distance along time, rows and columns, added to attention as q·R.

    Tables `(2n − 1, d)` for n frames, rows and columns, shared by the heads. A distance beyond a table counts as its
    farthest, so that longer windows and larger grids than in training work.
    """

    def __init__(self, extents: tuple[int, int, int], channels: int) -> None:
        """Set up tables for `extents` (frames, rows, columns) of `channels` numbers a head.

        The one vector of an extent of 1 changes nothing, because it shifts all logits of a query alike.
        """
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(2 * extent - 1, channels)) for extent in extents)
        for table in self.tables:
            nn.init.trunc_normal_(table, std=STD)

    def forward(self, queries: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Compute the bias `(B, heads, N, N)` of queries `(B, heads, N, d)` over `shape` (frames, rows, columns)."""
        batch, heads, count, channels = queries.shape
        # N = frames·rows·columns in this order, as `Windows.cut` lays tokens out: one axis each again.
        grid = queries.reshape(batch, heads, *shape, channels)
        time, rows, columns = (_by_distance(table, extent) for table, extent in zip(self.tables, shape, strict=True))
        # Each term depends on the key's position along one axis only; broadcasting the three over a
        # (frames, rows, columns) of keys costs a sum of extents instead of their product in multiplications.
        by_time = torch.einsum("bzthwd,tsd->bzthws", grid, time)[..., :, None, None]
        by_row = torch.einsum("bzthwd,hsd->bzthws", grid, rows)[..., None, :, None]
        by_column = torch.einsum("bzthwd,wsd->bzthws", grid, columns)[..., None, None, :]
        return (by_time + by_row + by_column).reshape(batch, heads, count, count)


def _by_distance(table: Tensor, extent: int) -> Tensor:
    """The table's vector for each pair of positions on an axis: `(extent, extent, d)`, query position first."""
    reach = len(table) // 2
    position = torch.arange(extent, device=table.device)
    return table[(position[:, None] - position[None, :]).clamp(-reach, reach) + reach]


class PositionedAttention(Attention):
    """Self-attention over tokens `(B, N, C)` of a (frames, rows, columns) box, with optional relative positions.

    logits = q·k/√d + q·R, or (q·k + q·R)/√d with `scaled`: eq. (6) can be read as the second, practice does the first.
    """

    def __init__(
        self, channels: int, heads: int, relative: RelativePositions | None, scaled: bool, dropout: float = 0.0
    ) -> None:
        """Set the layers up; without `relative` this is plain attention."""
        super().__init__(channels, heads, dropout)
        self.relative = relative
        self.scaled = scaled

    def attend(self, tokens: Tensor, shape: tuple[int, int, int], inside: Tensor | None = None) -> Tensor:
        """Attend within boxes of tokens: `(B, N, C)` → `(B, N, C)`.

        Args:
            tokens: N tokens of each box, frame after frame, row by row.
            shape: (frames, rows, columns) of a box.
            inside: Bool `(B, N)`, which tokens may be attended to; None for all.
        """
        q, k, v = self.split_heads(tokens)
        mask = None if inside is None else torch.zeros_like(inside, dtype=q.dtype).masked_fill(~inside, float("-inf"))
        bias = None if mask is None else mask[:, None, None, :]
        if self.relative is not None:
            # torch's attention scales q·k but not what is added to it.
            relative = self.relative(q, shape) * (q.shape[-1] ** -0.5 if self.scaled else 1.0)
            bias = relative if bias is None else relative + bias
        return self.join_heads(self.mix(q, k, v, bias))


@dataclass(frozen=True)
class BlockSizes:
    """Sizes and rates of a block's layers.

    Attributes:
        channels: Channels C of a token.
        heads: Attention heads.
        mlp: Channels of the hidden layer.
        drop_path: Share of frames whose branch is left out in training.
        dropout: Share of attention weights that are left out in training.
    """

    channels: int = CHANNELS
    heads: int = HEADS
    mlp: int = MLP
    drop_path: float = 0.0
    dropout: float = 0.0


class STABlock(Block):
    """A CCT block whose attention runs over windows of m×m tokens across all frames.

    Windows are cut after the first LN, attended, merged by sum (or mean), and added. Without `windows` there is one
    over the grid; with `across_frames` False each frame is attended alone (the spatial branch).
    """

    def __init__(
        self,
        *,
        windows: Windows | None = None,
        across_frames: bool = True,
        relative: RelativePositions | None = None,
        scaled: bool = False,
        mean: bool = False,
        sizes: BlockSizes = BlockSizes(),
    ) -> None:
        """Set the layers up; parameters have the names of a CCT block, whose weights can be loaded.

        Args:
            windows: The windows of the grid that the block will see; None for one window over any grid. Laid once, as
                laying them computes what a compiled graph could not hold.
            across_frames: Whether a window spans all frames; else each frame is attended alone.
            relative: Relative positions, None for none.
            scaled: Whether they are divided by √d as q·k is.
            mean: Whether overlapping windows are averaged, not added.
            sizes: Sizes and rates of the layers.
        """
        super().__init__(sizes.channels, sizes.heads, sizes.mlp, sizes.drop_path)
        self.attention: PositionedAttention = PositionedAttention(
            sizes.channels, sizes.heads, relative, scaled, sizes.dropout
        )
        self.windows = windows
        self.across_frames = across_frames
        self.mean = mean

    def forward_grid(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run the block over tokens `(B, L, T, C)` of a grid (rows, columns): the same shape."""
        length = tokens.shape[1]
        mixed = self._attend(self.pre_norm(tokens), grid)
        # Stochastic depth leaves single frames out, not whole windows: `join` makes each a row.
        return split(self.feed(join(tokens) + self.drop_path(join(mixed))), length)

    def _attend(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attention over frames, the whole window or windows of the grid: `(B, L, T, C)` → the same shape."""
        batch, length = tokens.shape[:2]
        if not self.across_frames:
            # A frame is a box of its own: the batch of the attention is frames, not windows.
            return split(self.attention.attend(join(tokens), (1, *grid)), length)
        windows = self.windows
        if windows is None:
            # L and T become one axis of L·T tokens; the batch axis is left alone.
            return self.attention.attend(tokens.flatten(1, 2), (length, *grid)).view_as(tokens)
        cut = windows.cut(tokens)
        inside = None
        if windows.inside_positions is not None:
            # (W, m²) → (B·W, L·m²): the same positions are outside in every sequence and frame.
            inside = windows.inside.repeat(batch, length)
        # `join` here makes (B, W) one axis of B·W boxes, each attended alone.
        mixed = self.attention.attend(join(cut), (length, windows.side, windows.side), inside)
        return windows.merge(mixed.view_as(cut), length, self.mean)
