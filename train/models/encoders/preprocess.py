"""From decoded frames to network input: resize, then channel normalisation or patch normalisation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = tuple[float, float, float]
"""One number for each of R, G, B, of pixels in 0…1."""

GREY = (0.299, 0.587, 0.114)  # weights of R, G, B in luma, ITU-R BT.601


class Preprocess(nn.Module):
    """Resize and normalise frames; docs/methods.md#preprocessing.

    Convention:
        `size` is (height, width) in pixels, a stretch (aspect ratio is not kept), bilinear with antialiasing.

    Shape:
        RGB `(N, 3, H, W)`, uint8 or float in 0…255 → float32 `(N, 3, H', W')`.

    Example:
        >>> step = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=(2, 2))
        >>> step(torch.full((1, 3, 4, 4), 0, dtype=torch.uint8)).unique()
        tensor([-1.])
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
        """Set the steps.

        Args:
            mean: Mean of each channel, in 0…1.
            std: Standard deviation of each channel, in 0…1.
            size: (height, width) to resize to, None for the frames' own.
            patch_normalised: Make frames grey, bring each block to zero mean and unit deviation (see
                `patch_normalise`), and repeat the result on three channels, instead of `mean` and `std`.
            patch: Side of a block in pixels.
        """
        super().__init__()
        self.size = size
        self.patch_normalised = patch_normalised
        self.patch = patch
        # Not in the state dict: weights stay those of the backbone, and the statistics come from its data.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("grey", torch.tensor(GREY).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Prepare frames.

        Raises:
            ValueError: When the input is not `(N, 3, H, W)`.
        """
        if frames.dim() != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be (N, 3, H, W), got {tuple(frames.shape)}")
        # Resized in float and not rounded back to grey levels, as timm's own pipeline on tensors does.
        frames = frames.float()
        if self.size is not None and tuple(frames.shape[-2:]) != self.size:
            frames = F.interpolate(frames, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        if self.patch_normalised:
            grey = (frames * self.grey).sum(1, keepdim=True)
            return patch_normalise(grey, self.patch).expand(-1, 3, -1, -1)
        return (frames / 255.0 - self.mean) / self.std


def patch_normalise(grey: Tensor, patch: int, floor: float = 1.0) -> Tensor:
    """Bring each block of grey frames to mean 0 and deviation ≤ 1; blocks at the lower and right edge may be smaller.

    After the patch normalisation of Milford and Wyeth, SeqSLAM, ICRA 2012, sec. III; the floor is ours.

    Args:
        grey: `(N, 1, H, W)` in 0…255.
        patch: Side of a block in pixels.
        floor: Grey levels added to the deviation, so that a flat block stays near zero instead of amplifying noise.

    Returns:
        The same shape.
    """
    height, width = grey.shape[-2:]
    # With ceil_mode an incomplete block at the edge is a block of its own, averaged over the pixels that it has.
    pool = {"kernel_size": patch, "stride": patch, "ceil_mode": True, "count_include_pad": False}
    mean = F.avg_pool2d(grey, **pool)  # type: ignore[arg-type]
    mean = _spread(mean, patch, height, width)
    variance = F.avg_pool2d((grey - mean).square(), **pool)  # type: ignore[arg-type]
    return (grey - mean) / (_spread(variance, patch, height, width).sqrt() + floor)


def _spread(blocks: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Repeat one value a block `(N, 1, h, w)` for each of its pixels `(N, 1, height, width)`."""
    pixels = blocks.repeat_interleave(patch, -2).repeat_interleave(patch, -1)
    return pixels[..., :height, :width]
