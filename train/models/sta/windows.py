"""Windows over a grid of tokens: cutting them out, with padding so that every token is covered, and merging them back.

Convention: a grid is (rows, columns) of tokens, numbered row by row; a window is m×m tokens, its neighbours lie
`stride` tokens on.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Where the windows of a grid lie.

    `tokens` int64 `(W, m²)`: the token in each place of each window; places outside the grid hold 0 and are False in
    `inside`, bool `(W, m²)`; `held` int64 `(n,)` numbers the others through all windows, None where that is all.
    `cover` float32 `(T,)`: how many windows hold each token, at least one.
    """

    tokens: Tensor
    inside: Tensor
    held: Tensor | None
    cover: Tensor

    def cut(self, maps: Tensor) -> Tensor:
        """Tokens of all frames `(B, L, T, C)` → windows `(B, W, L·m², C)`, frame after frame."""
        batch, length, _, channels = maps.shape
        windows, places = self.tokens.shape
        cut = maps[:, :, self.tokens.to(maps.device)]
        return cut.permute(0, 2, 1, 3, 4).reshape(batch, windows, length * places, channels)

    def merge(self, cut: Tensor, length: int, mean: bool) -> Tensor:
        """Undo `cut`: windows `(B, W, L·m², C)` → `(B, L, T, C)`, overlaps summed, or averaged with `mean`."""
        batch, windows, _, channels = cut.shape
        flat = cut.view(batch, windows, length, -1, channels).transpose(1, 2).flatten(2, 3)
        tokens = self.tokens.flatten()
        if self.held is not None:
            flat, tokens = flat[:, :, self.held.to(cut.device)], tokens[self.held]
        merged = cut.new_zeros(batch, length, len(self.cover), channels)
        merged = merged.index_add(2, tokens.to(cut.device), flat)
        return merged / self.cover.to(cut)[:, None] if mean else merged


@lru_cache(maxsize=32)
def windows_of(grid: tuple[int, int], side: int, stride: int) -> Windows:
    """The windows of `side`×`side` tokens at every `stride`-th token of a grid.

    Where they do not tile the grid it is padded at its lower and right edge, because a plain unfold would leave tokens
    without any window; padded places are masked out of the attention. A window larger than the grid is padded too.
    Source: P2 section III-C; the padding is ours.
    """
    down, across = (_starts(extent, side, stride) for extent in grid)
    offset = torch.arange(side)
    rows = (down[:, None, None, None] + offset[:, None]).expand(len(down), len(across), side, side)
    columns = (across[None, :, None, None] + offset).expand(len(down), len(across), side, side)
    inside = ((rows < grid[0]) & (columns < grid[1])).flatten(0, 1).flatten(1)
    tokens = torch.where(inside, (rows * grid[1] + columns).flatten(0, 1).flatten(1), 0)
    cover = torch.bincount(tokens[inside], minlength=grid[0] * grid[1]).float()
    held = None if bool(inside.all()) else inside.flatten().nonzero().flatten()
    return Windows(tokens, inside, held, cover)


def _starts(extent: int, side: int, stride: int) -> Tensor:
    """First token of each window along one axis; the last window reaches the end."""
    count = max(0, -(-(extent - side) // stride)) + 1
    return torch.arange(count) * stride
