"""Learnt positions on another grid of tokens, as Meta's program of DINOv2 resamples them."""

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSET = 0.1  # Meta's program adds it to both sides against rounding; it also moves where positions are read


def resample_positions(learnt: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample the positions of a square grid, bicubic and without antialiasing; timm's own way differs in both.

    Args:
        learnt: `(1, 1 + M², C)`, the CLS token's first.
        grid: (rows, columns) of the other grid.

    Returns:
        `(1, 1 + rows·columns, C)`.

    Example:
        >>> resample_positions(torch.zeros(1, 1 + 37**2, 8), (23, 23)).shape
        torch.Size([1, 530, 8])
    """
    # Frames of the size that positions were learnt at take them as they are, as in that program.
    side = round((learnt.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return learnt
    maps = learnt[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    scale = ((grid[0] + OFFSET) / side, (grid[1] + OFFSET) / side)
    resampled = F.interpolate(maps, scale_factor=scale, mode="bicubic")
    return torch.cat([learnt[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
