"""The spatio-temporal attention descriptor (STA): two parallel encoders over the same tokens, then SeqVLAD.

Source: P2 sections III-B to III-D; the switches are those of its ablations.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import SequenceModel, join
from train.models.encoders.cct import HEADS, Cct, resize_positions
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, check_frames
from train.models.fusion.basic import VLADSum
from train.models.pooling.vlad import SeqVLAD
from train.models.sta.attention import STD, Position, RelativePositions, STABlock

Branches = Literal["both", "spatial", "temporal"]


class StaOptions(BaseModel):
    """Everything that decides an STA model.

    `encoder`: a CCT, whose tokenizer is taken (frozen) and whose first blocks both stacks start from, or any timm name
    cut at `cut`, with fresh stacks. `trainable`: of such an encoder. `size`: (height, width) pixels of the frames.
    `branches`; `blocks` a stack; `heads`. `window` tokens a side and `stride` of the temporal windows, `merge` of their
    overlaps; `length` frames that the time tables reach. `spatial_position`, `temporal_position`; `scaled` divides the
    relative term by √d too. `fresh` starts both stacks anew. `clusters`, `bias`: VLAD.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = "cct_14_7x2_384"
    cut: str | None = None
    trainable: str = "none"
    patch_normalised: bool = False
    patch: int = Field(default=8, ge=2)
    size: Size = (384, 384)
    branches: Branches = "both"
    blocks: int = Field(default=4, ge=1)
    heads: int = Field(default=HEADS, ge=1)
    window: int = Field(default=6, ge=1)
    stride: int = Field(default=3, ge=1)
    merge: Literal["sum", "mean"] = "sum"
    length: int = Field(default=5, ge=1)
    spatial_position: Position = "absolute"
    temporal_position: Position = "relative"
    scaled: bool = False
    fresh: bool = False
    clusters: int = Field(default=64, ge=1)
    bias: bool = False


PRESETS: dict[str, dict[str, Any]] = {
    "sta": {},
    "sta-spatial": {"branches": "spatial"},
    "sta-temporal": {"branches": "temporal"},
    "sta-small": {
        "encoder": "resnet18",
        "cut": "layer1",
        "trainable": "all",
        "patch_normalised": True,
        "size": (32, 64),
        "blocks": 1,
        "heads": 4,
        "window": 4,
        "stride": 2,
        "clusters": 32,
    },
}


class Stack(nn.Module):
    """One branch: positions, blocks, LN: tokens `(B, L, T, C)` → the same shape."""

    def __init__(self, blocks: list[STABlock], places: int, channels: int, length: int, absolute: bool) -> None:
        """With `absolute` each place of the grid, and each frame where `length` > 1, has a learnt vector."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)
        self.place = _learnt(1, 1, places, channels) if absolute else None
        self.time = _learnt(1, length, 1, channels) if absolute and length > 1 else None

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """`(B, L, T, C)` over a grid (rows, columns) → normalised `(B, L, T, C)`."""
        if self.place is not None:
            tokens = tokens + self.place
        if self.time is not None:
            known = torch.arange(tokens.shape[1], device=tokens.device).clamp(max=self.time.shape[1] - 1)
            tokens = tokens + self.time[:, known]
        for block in self.blocks:
            tokens = cast(STABlock, block).forward_grid(tokens, grid)
        out: Tensor = self.norm(tokens)
        return out


class Sta(SequenceModel):
    """Tokens of each frame; a spatial stack within a frame, a temporal stack over windows across all frames; their sum
    goes to SeqVLAD over all tokens of all frames.

    `encode_frames` gives `(N, 2, T, C)` (tokens, spatial output), `(N, T, C)` without the spatial branch, and
    SeqVLAD's sums `(N, K, C)` without the temporal one, which is then additive over frames.
    The stacks have no stochastic depth, though the CCT whose weights they start from was trained with it.
    """

    windows_at_once = 4

    def __init__(self, chosen: StaOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        encoder = _tokenizer(chosen, weights, seed)
        preprocess = Preprocess(
            encoder.mean, encoder.std, size=chosen.size, patch_normalised=chosen.patch_normalised, patch=chosen.patch
        )
        super().__init__(preprocess, config)
        cct = encoder.backbone if isinstance(encoder.backbone, Cct) else None
        self.encoder: nn.Module = encoder if cct is None else cct.tokenizer
        self.grid = self._find_grid(chosen.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.spatial = _spatial(chosen, encoder.channels, self.grid) if chosen.branches != "temporal" else None
            self.temporal = _temporal(chosen, encoder.channels, self.grid) if chosen.branches != "spatial" else None
        for stack in (self.spatial, self.temporal):
            if stack is not None and cct is not None and not chosen.fresh:
                _start_from(stack, cct, self.grid)
        self.pooling = SeqVLAD(chosen.clusters, encoder.channels, bias=chosen.bias, seed=seed)

    @property
    def vlad(self) -> SeqVLAD:
        """The VLAD layer."""
        return self.pooling

    def descriptor_size(self, length: int) -> int:
        """K·C for any length."""
        return self.pooling.size

    def encode_frames(self, frames: Tensor) -> Tensor:
        """`(N, 3, H, W)` → what the class says, by branches."""
        tokens = self._tokenize(frames)
        if self.spatial is None:
            return tokens
        spatial = self.spatial(tokens.unsqueeze(1), self.grid).squeeze(1)
        if self.temporal is None:
            return cast(Tensor, self.pooling(spatial))
        return torch.stack([tokens, spatial], dim=1)

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and window rows `(B, L)` int64 into them → `(B, K·C)`."""
        if self.temporal is None:
            return VLADSum().gather(features, rows)
        return SeqVLAD.finish(self.pooling(self._fused(features, rows).flatten(1, 2)))

    def tokens(self, frames: Tensor) -> Tensor:
        """What SeqVLAD gets of single frames, as windows of one: `(N, 3, H, W)` → `(N, T, C)`."""
        if self.temporal is None:
            spatial = cast(Stack, self.spatial)
            return cast(Tensor, spatial(self._tokenize(frames).unsqueeze(1), self.grid)).squeeze(1)
        rows = torch.arange(len(frames), device=frames.device).unsqueeze(1)
        return join(self._fused(self.encode_frames(frames), rows))

    def _fused(self, features: Tensor, rows: Tensor) -> Tensor:
        """Tokens of both branches added: `(B, L, T, C)`."""
        temporal = cast(Stack, self.temporal)
        if self.spatial is None:
            return cast(Tensor, temporal(features[rows], self.grid))
        return cast(Tensor, temporal(features[:, 0][rows], self.grid) + features[:, 1][rows])

    def _tokenize(self, frames: Tensor) -> Tensor:
        found: Tensor = self.encoder(self.preprocess(frames))
        return found.flatten(2).transpose(1, 2) if found.dim() == 4 else found

    @torch.no_grad()
    def _find_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for frames of `size`: their number by trying, their shape the frames'."""
        count = self._tokenize(torch.zeros(1, 3, *size)).shape[1]
        rows = max(1, round((count * size[0] / size[1]) ** 0.5))
        if count % rows:
            raise ContractError(f"frames of {size[0]}×{size[1]} give {count} tokens, which form no grid; change size")
        return rows, count // rows


def check(name: str, chosen: StaOptions) -> None:
    """Refuse combinations that cannot work. Raises: ContractError with the reason."""
    if chosen.stride > chosen.window:
        raise ContractError(f"model {name}: stride {chosen.stride} leaves gaps between windows of {chosen.window}")


def complete(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over a preset."""
    return {**preset, **options}


def build(chosen: StaOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> Sta:
    """The model of checked options. Raises: as `train.models.registry.create`."""
    return Sta(chosen, weights, seed, config)


def _tokenizer(chosen: StaOptions, weights: str | Path, seed: int) -> Encoder:
    encoder = Encoder(chosen.encoder, cut=chosen.cut, weights=weights, seed=seed, trainable=chosen.trainable)
    if encoder.channels % chosen.heads:
        raise ContractError(f"{encoder.channels} channels do not divide into {chosen.heads} heads; change heads")
    check_frames(encoder, chosen.size)
    encoder.pop_attention_pool()
    return encoder


def _spatial(chosen: StaOptions, channels: int, grid: tuple[int, int]) -> Stack:
    """Blocks over one frame's whole grid."""
    blocks = [
        STABlock(
            side=None,
            across_frames=False,
            relative=_relative(chosen.spatial_position, (1, *grid), channels, chosen.heads),
            scaled=chosen.scaled,
            channels=channels,
            heads=chosen.heads,
            mlp=3 * channels,
        )
        for _ in range(chosen.blocks)
    ]
    return Stack(blocks, grid[0] * grid[1], channels, 1, chosen.spatial_position == "absolute")


def _temporal(chosen: StaOptions, channels: int, grid: tuple[int, int]) -> Stack:
    """Blocks over windows of the grid across all frames."""
    extents = (chosen.length, chosen.window, chosen.window)
    blocks = [
        STABlock(
            side=chosen.window,
            stride=chosen.stride,
            relative=_relative(chosen.temporal_position, extents, channels, chosen.heads),
            scaled=chosen.scaled,
            mean=chosen.merge == "mean",
            channels=channels,
            heads=chosen.heads,
            mlp=3 * channels,
        )
        for _ in range(chosen.blocks)
    ]
    return Stack(blocks, grid[0] * grid[1], channels, chosen.length, chosen.temporal_position == "absolute")


def _relative(position: Position, extents: tuple[int, int, int], channels: int, heads: int) -> RelativePositions | None:
    return RelativePositions(extents, channels // heads) if position == "relative" else None


def _learnt(*shape: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(*shape))
    nn.init.trunc_normal_(parameter, std=STD)
    return parameter


@torch.no_grad()
def _start_from(stack: Stack, cct: Cct, grid: tuple[int, int]) -> None:
    """Give the stack the weights of the first CCT blocks, and their absolute positions. Source: P2 section IV-B."""
    if len(cct.blocks) < len(stack.blocks):
        raise ContractError(f"the encoder has {len(cct.blocks)} blocks, the stack {len(stack.blocks)}; lower blocks")
    for own, given in zip(stack.blocks, cct.blocks, strict=False):
        relative = {key: value for key, value in own.state_dict().items() if "relative" in key}
        own.load_state_dict({**given.state_dict(), **relative})
    if stack.place is not None:
        stack.place.copy_(resize_positions(cct.positions, cct.grid, grid).unsqueeze(1))
