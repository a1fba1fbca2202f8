"""Augmentation of training frames: small shifts, light, mirror, erased blocks; the same for frames of one drive-by."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Changes:
    """What is drawn for a batch.

    Attributes:
        groups: Shift down and right, contrast and brightness of each group (G, 4), in −1…1.
        mirrored: Whether the whole batch is mirrored.
        blocks: Of each frame (M, 6), in 0…1: whether it is erased, top, left, height, width and grey of its block; no
            rows when nothing is erased.
    """

    groups: Tensor
    mirrored: bool
    blocks: Tensor

    def of_frames(self, frames: Tensor) -> "Changes":
        """Select the changes of some frames (m,) int64 of the batch."""
        return Changes(self.groups, self.mirrored, self.blocks[frames] if len(self.blocks) else self.blocks)


@dataclass(frozen=True)
class Augment:
    """How far training frames are changed; all zero changes nothing. Common practice, the amounts are ours.

    Attributes:
        shift: Greatest shift as a share of the width, and half of it of the height; edges repeat.
        light: Contrast factor within 1 ± light, brightness within ± light·64 grey levels.
        mirror: A batch is mirrored as a whole with chance one half, so that positives stay positives.
        erase: Share of frames of which a block is painted over.
    """

    shift: float = 0.0
    light: float = 0.0
    mirror: bool = False
    erase: float = 0.0

    def draw(self, groups: Tensor, generator: torch.Generator) -> Changes:
        """Draw the changes of a batch whose frames belong to `groups` (M,) int64."""
        count = int(groups.max()) + 1 if len(groups) else 0
        draws = torch.rand(count, 4, generator=generator).mul_(2).sub_(1)
        mirrored = self.mirror and float(torch.rand(1, generator=generator)) < 0.5
        blocks = torch.rand(len(groups) if self.erase > 0 else 0, 6, generator=generator)
        return Changes(draws, mirrored, blocks)

    def apply(self, frames: Tensor, groups: Tensor, changes: Changes) -> Tensor:
        """Change frames; those of one group (one stretch of one drive) get one shift and one light.

        Args:
            frames: Pixels (N, 3, H, W) in 0…255.
            groups: Group of each frame (N,).
            changes: What was drawn for them.

        Returns:
            float32 (N, 3, H, W).
        """
        frames = frames.float()
        draws = changes.groups.to(frames.device)
        if self.shift > 0:
            frames = self._shift(frames, groups, draws[:, :2])
        if self.light > 0:
            gain = (1 + self.light * draws[:, 2])[groups].view(-1, 1, 1, 1)
            frames = frames * gain + (self.light * 64 * draws[:, 3])[groups].view(-1, 1, 1, 1)
        if changes.mirrored:
            frames = frames.flip(-1)
        return self._erase(frames, changes.blocks) if self.erase > 0 else frames

    def __call__(self, frames: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """Draw changes and apply them."""
        return self.apply(frames, groups, self.draw(groups, generator))

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

    def _erase(self, frames: Tensor, blocks: Tensor) -> Tensor:
        """Paint one block of up to half the height and width of some frames in one grey."""
        height, width = frames.shape[-2:]
        frames = frames.clone()
        for i in (blocks[:, 0] < self.erase).nonzero().flatten().tolist():
            top, left = int(blocks[i, 1] * height * 0.75), int(blocks[i, 2] * width * 0.75)
            tall, wide = 1 + int(blocks[i, 3] * height / 2), 1 + int(blocks[i, 4] * width / 2)
            frames[i, :, top : top + tall, left : left + wide] = float(blocks[i, 5] * 255)
        return frames
