"""From decoded frames to network input: resize, then channel normalisation or patch normalisation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GREY = (0.299, 0.587, 0.114)


class Preprocess(nn.Module):
    """RGB frames `(N, 3, H, W)`, uint8 or float in 0…255 → float32 `(N, 3, H', W')`, resized and normalised.

    Convention: `size` is (height, width) in pixels, a stretch (aspect ratio is not kept), bilinear with antialiasing;
    None keeps the size. With `patch_normalised` the frames become grey, each `patch`×`patch` pixel block is brought to
    zero mean and unit deviation, and the result is repeated on three channels.
    Source: mean and std from timm's data of the backbone; patch normalisation as in SeqSLAM.
    """

    mean: Tensor
    std: Tensor
    grey: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        patch_normalised: bool = False,
        patch: int = 8,
    ) -> None:
        super().__init__()
        self.size = size
        self.patch_normalised = patch_normalised
        self.patch = patch
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("grey", torch.tensor(GREY).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames, float32. Raises: ValueError when the input is not `(N, 3, H, W)`."""
        if frames.dim() != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be (N, 3, H, W), got {tuple(frames.shape)}")
        frames = frames.float()
        if self.size is not None and tuple(frames.shape[-2:]) != self.size:
            frames = F.interpolate(frames, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        if self.patch_normalised:
            grey = (frames * self.grey).sum(1, keepdim=True)
            return patch_normalise(grey, self.patch).expand(-1, 3, -1, -1)
        return (frames / 255.0 - self.mean) / self.std


def patch_normalise(grey: Tensor, patch: int, floor: float = 1.0) -> Tensor:
    """Z-score of each `patch`×`patch` block: `(N, 1, H, W)` in 0…255 → the same shape, mean 0, deviation ≤ 1.

    Blocks at the lower and right edge may be smaller. `floor` (grey levels) is added to the deviation, so that a flat
    block stays near zero instead of amplifying noise.
    Source: SeqSLAM's local contrast step; the floor is ours.
    """
    height, width = grey.shape[-2:]
    pool = {"kernel_size": patch, "stride": patch, "ceil_mode": True, "count_include_pad": False}
    mean = F.avg_pool2d(grey, **pool)  # type: ignore[arg-type]
    mean = _spread(mean, patch, height, width)
    variance = F.avg_pool2d((grey - mean).square(), **pool)  # type: ignore[arg-type]
    return (grey - mean) / (_spread(variance, patch, height, width).sqrt() + floor)


def _spread(blocks: Tensor, patch: int, height: int, width: int) -> Tensor:
    """One value a block → one value a pixel."""
    pixels = blocks.repeat_interleave(patch, -2).repeat_interleave(patch, -1)
    return pixels[..., :height, :width]
