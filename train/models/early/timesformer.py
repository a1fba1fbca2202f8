"""TimeSformer: divided space-time attention made from any timm ViT.

Bertasius et al., Is Space-Time Attention All You Need for Video Understanding?, ICML 2021; Mereu et al., Learning
Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. III-B.2: attention over time first,
then the ViT's own attention over space, the CLS token at the end. Time embeddings are resized when L changes.
"""

import copy
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import Family, SequenceModel, join, split
from train.models.encoders.encoder import Encoder, Output
from train.models.encoders.preprocess import Preprocess, Statistics
from train.models.encoders.sizes import Size, check_frames
from train.models.presets import TIMESFORMER

# What `DividedBlock` calls of a timm ViT block; blocks of other designs lack some.
_PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")


class TimeSformerOptions(BaseModel):
    """Everything that decides a TimeSformer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    encoder: str = "vit_base_patch16_224"
    """A timm ViT of plain blocks."""
    trainable: str = "all"
    """"all", or the first block to train."""
    size: Size = (224, 224)
    """(height, width) in pixels of the frames."""
    length: int = Field(default=5, ge=1)
    """Frames of the time embedding."""
    time_resize: Literal["linear", "nearest"] = "linear"
    """How the time embedding is resized to windows of another length; the official program takes the nearest."""
    mean: Statistics | None = None
    """Mean of R, G, B in 0…1 that frames are normalised by; None: that of timm's data for the encoder."""
    std: Statistics | None = None
    """Standard deviation of R, G, B in 0…1, as `mean`."""
    normalize: bool = False
    """Final L2; raw in practice."""
    normalise_after_pca: bool = False
    """Bring vectors to unit length again behind the PCA of an index; not in practice."""
    encoder_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for timm's model."""


class DividedBlock(nn.Module):
    """A ViT block with attention over time before it.

    Time: each position of the grid attends over the L frames; its output map starts at zero, so that at first the block
    does what the ViT's does, and in a frozen block it stays so. Space: each frame attends with the prefix tokens, whose
    results are averaged over the frames.
    """

    def __init__(self, block: nn.Module) -> None:
        """Wrap a timm ViT block; attention over time starts from the weights of its attention over space."""
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
        """Run the block over prefix tokens `(B, P, C)` and the grid `(B, L, T, C)`: the same shapes."""
        grid = grid + self._over_time(grid)
        length, count = grid.shape[1], prefix.shape[1]
        # One prefix for the window, a copy of it in every frame: (B, L, P+T, C).
        frames = torch.cat([prefix.unsqueeze(1).expand(-1, length, -1, -1), grid], dim=2)
        block = cast(Any, self.block)
        mixed = split(block.drop_path1(block.ls1(block.attn(block.norm1(join(frames))))), length)
        prefix, grid = prefix + mixed[:, :, :count].mean(1), grid + mixed[:, :, count:]
        if not self.training:
            return self._feed(prefix), self._feed(grid)
        # Stochastic depth leaves whole windows out, prefix and grid alike, so both go through as one row of tokens.
        tokens = self._feed(torch.cat([prefix, grid.flatten(1, 2)], dim=1))
        return tokens[:, :count], tokens[:, count:].view_as(grid)

    def _over_time(self, grid: Tensor) -> Tensor:
        """Attention of each position over the frames: `(B, L, T, C)` → the same shape."""
        # (B, T, L, C), so that `join` makes every position of every window a row of L frames.
        by_position = grid.transpose(1, 2)
        attention, norm = cast(nn.Module, self.time_attention), cast(nn.Module, self.time_norm)
        dropped = cast(Any, self.block).drop_path1(attention(norm(join(by_position))))
        mixed = split(dropped, by_position.shape[1])
        out: Tensor = self.time_map(mixed.transpose(1, 2))
        return out

    def _feed(self, tokens: Tensor) -> Tensor:
        """The block's second half: `(…, C)` → the same shape."""
        block = cast(Any, self.block)
        out: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        return out


class TimeSformer(SequenceModel):
    """`encode_frames` gives embedded tokens `(N, P+T, C)`; `fuse_rows` runs the blocks over whole windows."""

    windows_at_once = 8  # a guess

    def __init__(self, options: TimeSformerOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        """Make the model of checked options.

        Errors are those of `train.models.registry.create`.
        """
        timm_options = {"img_size": options.size, **options.encoder_options}
        encoder = Encoder(
            options.encoder,
            weights=weights,
            seed=seed,
            trainable=options.trainable,
            output=Output("cls"),
            options=timm_options,
        )
        check_frames(encoder, options.size)
        mean, std = options.mean or encoder.mean, options.std or encoder.std
        super().__init__(Preprocess(mean, std, size=options.size), config)
        self.vit = encoder.backbone
        blocks = list(cast(nn.Sequential, getattr(self.vit, "blocks", nn.Sequential())))
        if not blocks or not all(hasattr(block, part) for block in blocks for part in _PARTS):
            raise ContractError(f"encoder '{options.encoder}' has no plain ViT blocks; TimeSformer needs them")
        self.blocks = nn.ModuleList(DividedBlock(block) for block in blocks)
        del self.vit.blocks
        self.time = nn.Parameter(torch.zeros(1, options.length, encoder.channels))
        self.channels = encoder.channels
        self.time_resize = options.time_resize
        self.normalize = options.normalize

    def descriptor_size(self, length: int) -> int:
        """Return C, for any length."""
        return self.channels

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embed patches and positions, with the prefix tokens: `(N, 3, H, W)` → `(N, P+T, C)`."""
        vit = cast(Any, self.vit)
        return cast(Tensor, vit.norm_pre(vit._pos_embed(vit.patch_embed(self.preprocess(frames)))))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse tokens `(M, P+T, C)` by rows `(B, L)` int64 into them: the CLS token `(B, C)`."""
        count = int(cast(Any, self.vit).num_prefix_tokens)
        # The prefix tokens are the same in all frames before the first block; the first frame's stand for the window.
        prefix = features[rows[:, 0], :count]
        grid = features[:, count:][rows] + self._time(rows.shape[1])[:, :, None]
        for block in self.blocks:
            prefix, grid = block(prefix, grid)
        token: Tensor = cast(nn.Module, self.vit.norm)(prefix)[:, 0]
        return F.normalize(token, dim=-1) if self.normalize else token

    def _time(self, length: int) -> Tensor:
        """Time embedding of `length` frames `(1, length, C)`, resized where it was learnt for another length."""
        if length == self.time.shape[1]:
            return self.time
        return F.interpolate(self.time.transpose(1, 2), size=length, mode=self.time_resize).transpose(1, 2)


# Models stored before these options existed interpolate linearly, and take timm's pixel statistics.
ADDED = {"time_resize": "linear", "mean": None, "std": None}
FAMILY = Family(TimeSformerOptions, TimeSformer, TIMESFORMER, added=ADDED)
