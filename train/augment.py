"""Augmentation of training frames: small shifts, light, mirror, erased blocks; the same for frames of one drive-by."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How far training frames are changed; all zero changes nothing.

    `shift`: greatest shift as a share of width and half of it in height; edges repeat. `light`: contrast factor within
    1 ± light, brightness within ± light·64 grey levels. `mirror`: a batch is mirrored as a whole with chance one half,
    so that positives stay positives. `erase`: share of frames of which a block is painted over.
    Source: common practice; ours.
    """

    shift: float = 0.0
    light: float = 0.0
    mirror: bool = False
    erase: float = 0.0

    def __call__(self, frames: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """Frames `(N, 3, H, W)` in 0…255 and their group `(N,)` int64 → float32 of the same shape.

        Frames of one group (one stretch of one drive) get one shift and one light.
        """
        frames = frames.float()
        count = int(groups.max()) + 1 if len(groups) else 0
        draws = torch.rand(count, 4, generator=generator).mul_(2).sub_(1).to(frames.device)
        if self.shift > 0:
            frames = self._shift(frames, groups, draws[:, :2])
        if self.light > 0:
            gain = (1 + self.light * draws[:, 2])[groups].view(-1, 1, 1, 1)
            frames = frames * gain + (self.light * 64 * draws[:, 3])[groups].view(-1, 1, 1, 1)
        if self.mirror and float(torch.rand(1, generator=generator)) < 0.5:
            frames = frames.flip(-1)
        return self._erase(frames, generator) if self.erase > 0 else frames

    def _shift(self, frames: Tensor, groups: Tensor, draws: Tensor) -> Tensor:
        """Move each group by whole pixels, repeating the edge."""
        height, width = frames.shape[-2:]
        most = (max(1, round(self.shift * height / 2)), max(1, round(self.shift * width)))
        padded = F.pad(frames, (most[1], most[1], most[0], most[0]), mode="replicate")
        moved = torch.empty_like(frames)
        for group in range(len(draws)):
            dy, dx = (round(float(draws[group, axis]) * most[axis]) + most[axis] for axis in (0, 1))
            members = groups == group
            moved[members] = padded[members, :, dy : dy + height, dx : dx + width]
        return moved

    def _erase(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Paint one block of up to half the height and width of some frames in one grey."""
        height, width = frames.shape[-2:]
        draws = torch.rand(len(frames), 6, generator=generator)
        frames = frames.clone()
        for i in (draws[:, 0] < self.erase).nonzero().flatten().tolist():
            top, left = int(draws[i, 1] * height * 0.75), int(draws[i, 2] * width * 0.75)
            tall, wide = 1 + int(draws[i, 3] * height / 2), 1 + int(draws[i, 4] * width / 2)
            frames[i, :, top : top + tall, left : left + wide] = float(draws[i, 5] * 255)
        return frames
