"""TimeSformer: divided space-time attention made from any timm ViT.

Source: P1 Table II and methods, "Backbones": temporal attention first, then the ViT's own spatial attention, CLS at the
end; time embeddings are interpolated when L changes.
"""

import copy
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import SequenceModel, join, split
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, check_frames

PRESETS: dict[str, dict[str, Any]] = {"timesformer": {}}
_PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")


class TimeSformerOptions(BaseModel):
    """`encoder`: a timm ViT of plain blocks; `size` (height, width) pixels; `length` frames of the time embedding;
    `trainable`: "all" or the first block to train; `normalize`: final L2 (raw in practice); `encoder_options` for timm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = "vit_base_patch16_224"
    trainable: str = "all"
    size: Size = (224, 224)
    length: int = Field(default=5, ge=1)
    normalize: bool = False
    encoder_options: dict[str, Any] = Field(default_factory=dict)


class DividedBlock(nn.Module):
    """A ViT block with attention over time before it.

    Time: each place of the grid attends over the L frames; its output map starts at zero, so at first the block does
    what the ViT's does, and in a frozen block it stays so. Space: each frame attends with the prefix tokens, whose
    results are averaged over the frames.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.time_norm = copy.deepcopy(block.norm1)
        self.time_attention = copy.deepcopy(block.attn)
        channels = cast(nn.LayerNorm, block.norm1).normalized_shape[0]
        self.time_map = nn.Linear(channels, channels)
        nn.init.zeros_(self.time_map.weight)
        nn.init.zeros_(self.time_map.bias)
        self.time_map.requires_grad_(next(block.parameters()).requires_grad)

    def forward(self, prefix: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix tokens `(B, P, C)` and places `(B, L, T, C)` → the same shapes."""
        grid = grid + self._over_time(grid)
        length, count = grid.shape[1], prefix.shape[1]
        each = torch.cat([prefix.unsqueeze(1).expand(-1, length, -1, -1), grid], dim=2)
        block = cast(Any, self.block)
        mixed = split(block.drop_path1(block.ls1(block.attn(block.norm1(join(each))))), length)
        prefix, grid = prefix + mixed[:, :, :count].mean(1), grid + mixed[:, :, count:]
        return self._feed(prefix), self._feed(grid)

    def _over_time(self, grid: Tensor) -> Tensor:
        """Attention of each place over the frames: `(B, L, T, C)` → the same shape."""
        by_place = grid.transpose(1, 2)
        attention, norm = cast(nn.Module, self.time_attention), cast(nn.Module, self.time_norm)
        mixed = split(attention(norm(join(by_place))), by_place.shape[1])
        out: Tensor = self.time_map(mixed.transpose(1, 2))
        return out

    def _feed(self, tokens: Tensor) -> Tensor:
        block = cast(Any, self.block)
        out: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        return out


class TimeSformer(SequenceModel):
    """`encode_frames` gives embedded tokens `(N, P+T, C)`; `fuse_rows` runs the blocks over whole windows."""

    windows_at_once = 8

    def __init__(self, chosen: TimeSformerOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        options = {"img_size": chosen.size, **chosen.encoder_options}
        encoder = Encoder(
            chosen.encoder, weights=weights, seed=seed, trainable=chosen.trainable, part="cls", options=options
        )
        check_frames(encoder, chosen.size)
        super().__init__(Preprocess(encoder.mean, encoder.std, size=chosen.size), config)
        self.vit = encoder.backbone
        blocks = list(cast(nn.Sequential, getattr(self.vit, "blocks", nn.Sequential())))
        if not blocks or not all(hasattr(block, part) for block in blocks for part in _PARTS):
            raise ContractError(f"encoder '{chosen.encoder}' has no plain ViT blocks; TimeSformer needs them")
        self.blocks = nn.ModuleList(DividedBlock(block) for block in blocks)
        del self.vit.blocks
        self.time = nn.Parameter(torch.zeros(1, chosen.length, encoder.channels))
        self.channels = encoder.channels
        self.normalize = chosen.normalize

    def descriptor_size(self, length: int) -> int:
        """C for any length."""
        return self.channels

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Patch and position embeddings with the prefix tokens: `(N, 3, H, W)` → `(N, P+T, C)`."""
        vit = cast(Any, self.vit)
        return cast(Tensor, vit.norm_pre(vit._pos_embed(vit.patch_embed(self.preprocess(frames)))))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Tokens `(M, P+T, C)` and rows `(B, L)` → the CLS token `(B, C)`."""
        count = int(cast(Any, self.vit).num_prefix_tokens)
        prefix = features[rows[:, 0], :count]
        grid = features[:, count:][rows] + self._time(rows.shape[1])[:, :, None]
        for block in self.blocks:
            prefix, grid = block(prefix, grid)
        found: Tensor = cast(nn.Module, self.vit.norm)(prefix)[:, 0]
        return F.normalize(found, dim=-1) if self.normalize else found

    def _time(self, length: int) -> Tensor:
        """Time embedding of `length` frames `(1, length, C)`, linearly interpolated where it was learnt for another."""
        if length == self.time.shape[1]:
            return self.time
        return F.interpolate(self.time.transpose(1, 2), size=length, mode="linear").transpose(1, 2)


def complete(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over a preset."""
    return {**preset, **options}


def check(name: str, chosen: TimeSformerOptions) -> None:
    """Nothing: what cannot work shows when the encoder is built."""


def build(chosen: TimeSformerOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> TimeSformer:
    """The model of checked options. Raises: as `train.models.registry.create`."""
    return TimeSformer(chosen, weights, seed, config)
