"""Windows over a grid of tokens: cut out of it, with padding so that every token is covered, and merged back.

Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place Recognition, sec.
III-A.2, "sliding window". The padding is ours.

Convention:
    A grid is (rows, columns) of tokens, numbered row by row. A window is m×m tokens; the next one starts `stride`
    tokens on. A window of a sequence holds its m² tokens of all L frames, frame after frame.
"""

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """The windows of a grid, whose tables move with the model from device to device and are no part of its weights.

    Attributes:
        side: Rows and columns m of a window.
        tokens: Int64 `(W, m²)`, the token at each position of each window; 0 at positions outside the grid.
        inside: Bool `(W, m²)`, False at positions outside the grid.
        inside_positions: Int64 `(n,)`, the positions inside the grid, counted through all windows; None where all are.
        cover: Float32 `(T,)`, how many windows hold each token, at least one.
    """

    tokens: Tensor
    inside: Tensor
    inside_positions: Tensor | None
    cover: Tensor

    def __init__(self, side: int, tokens: Tensor, inside: Tensor, places: int) -> None:
        """Keep the windows of a grid of `places` tokens: see the attributes."""
        super().__init__()
        self.side = side
        is_whole = bool(inside.all())
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        positions = None if is_whole else inside.flatten().nonzero().flatten()
        self.register_buffer("inside_positions", positions, persistent=False)
        cover = torch.bincount(tokens[inside], minlength=places).float()
        self.register_buffer("cover", cover, persistent=False)

    def cut(self, maps: Tensor) -> Tensor:
        """Cut tokens of all frames `(B, L, T, C)` into windows `(B, W, L·m², C)`, frame after frame."""
        batch, length, _, channels = maps.shape
        windows, positions = self.tokens.shape
        # (B, L, W, m², C): a token that several windows hold is copied into each.
        cut = maps[:, :, self.tokens]
        # The window axis goes before the frames, so that the tokens of one window lie side by side for attention.
        return cut.permute(0, 2, 1, 3, 4).reshape(batch, windows, length * positions, channels)

    def merge(self, cut: Tensor, length: int, mean: bool) -> Tensor:
        """Undo `cut`: windows `(B, W, L·m², C)` → `(B, L, T, C)`, overlaps summed, or averaged with `mean`."""
        batch, windows, _, channels = cut.shape
        # Back to frames first, and all positions of all windows in one axis: (B, L, W·m², C).
        flat = cut.view(batch, windows, length, -1, channels).transpose(1, 2).flatten(2, 3)
        tokens = self.tokens.flatten()
        if self.inside_positions is not None:
            # Padded positions hold token 0, to which they must add nothing.
            flat, tokens = flat[:, :, self.inside_positions], tokens[self.inside_positions]
        merged = cut.new_zeros(batch, length, len(self.cover), channels)
        merged = merged.index_add(2, tokens, flat)
        return merged / self.cover.to(cut)[:, None] if mean else merged


def lay_windows(grid: tuple[int, int], side: int, stride: int) -> Windows:
    """Lay windows of `side`×`side` tokens at every `stride`-th token of a grid.

    Where they do not tile the grid it is padded at its lower and right edge, because a plain unfold would leave tokens
    without any window; padded positions are masked out of the attention. A window larger than the grid is padded too.

    Example:
        >>> windows = lay_windows((24, 24), side=6, stride=3)
        >>> windows.tokens.shape, bool(windows.inside.all())
        (torch.Size([49, 36]), True)
    """
    first_rows, first_columns = (_first_tokens(extent, side, stride) for extent in grid)
    offset = torch.arange(side)
    # Row and column of every position, (windows down, windows across, m, m), by broadcasting.
    shape = (len(first_rows), len(first_columns), side, side)
    rows = (first_rows[:, None, None, None] + offset[:, None]).expand(shape)
    columns = (first_columns[None, :, None, None] + offset).expand(shape)
    inside = ((rows < grid[0]) & (columns < grid[1])).flatten(0, 1).flatten(1)
    tokens = torch.where(inside, (rows * grid[1] + columns).flatten(0, 1).flatten(1), 0)
    return Windows(side, tokens, inside, grid[0] * grid[1])


def _first_tokens(extent: int, side: int, stride: int) -> Tensor:
    """First token of each window along one axis `(n,)`; the last window reaches the end."""
    count = max(0, -(-(extent - side) // stride)) + 1  # −(−a // b) rounds up
    return torch.arange(count) * stride
