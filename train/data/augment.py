"""Augmentation of training frames: small shifts, light, mirror, erased blocks; the same for frames of one drive-by."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.devices import to_device


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

    def select(self, frames: Tensor) -> "Changes":
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
            groups: Group of each frame (N,), on the CPU as all that is drawn: reading it from a card would wait for it.
            changes: What was drawn for them.

        Returns:
            float32 (N, 3, H, W).
        """
        # Moved as they come: uint8 pixels are a quarter of float32's bytes.
        frames = (self._shift(frames, groups, changes.groups[:, :2]) if self.shift > 0 else frames).float()
        if self.light > 0:
            gain, offset = 1 + self.light * changes.groups[:, 2], self.light * 64 * changes.groups[:, 3]
            gain, offset = (value[groups].view(-1, 1, 1, 1) for value in (gain, offset))
            frames = frames * to_device(gain, frames.device) + to_device(offset, frames.device)
        if changes.mirrored:
            frames = frames.flip(-1)
        return self._erase(frames, changes.blocks) if self.erase > 0 else frames

    def __call__(self, frames: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """Draw changes and apply them."""
        return self.apply(frames, groups, self.draw(groups, generator))

    def _shift(self, frames: Tensor, groups: Tensor, draws: Tensor) -> Tensor:
        """Move each group by whole pixels, repeating the edge."""
        height, width = frames.shape[-2:]
        most = torch.tensor([max(1, round(self.shift * height / 2)), max(1, round(self.shift * width))])
        offsets = (draws.double() * most).round().long()[groups]
        # Rows and columns that each frame takes, (N, H, 1) and (N, 1, W): outside ones are the edge's.
        offsets = to_device(offsets, frames.device)
        rows = (torch.arange(height, device=frames.device) + offsets[:, :1]).clamp(0, height - 1)[:, :, None]
        columns = (torch.arange(width, device=frames.device) + offsets[:, 1:]).clamp(0, width - 1)[:, None]
        numbers = torch.arange(len(frames), device=frames.device)[:, None, None]
        # Channels last and back: indices then move whole pixels, in one gather for all groups.
        return frames.permute(0, 2, 3, 1)[numbers, rows, columns].permute(0, 3, 1, 2)

    def _erase(self, frames: Tensor, blocks: Tensor) -> Tensor:
        """Paint one block of up to half the height and width of some frames in one grey."""
        height, width = frames.shape[-2:]
        frames = frames.clone()
        for i in (blocks[:, 0] < self.erase).nonzero().flatten().tolist():
            top, left = int(blocks[i, 1] * height * 0.75), int(blocks[i, 2] * width * 0.75)
            tall, wide = 1 + int(blocks[i, 3] * height / 2), 1 + int(blocks[i, 4] * width / 2)
            frames[i, :, top : top + tall, left : left + wide] = float(blocks[i, 5] * 255)
        return frames
