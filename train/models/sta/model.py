"""The spatio-temporal attention descriptor (STA): two parallel encoders over the same tokens, then SeqVLAD.

Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place Recognition, sec. III-A;
the switches are those of its ablations (Figs. 3 and 4). docs/methods.md#sta lists what the paper leaves open.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import Family, SequenceModel, join
from train.models.encoders.cct import HEADS, Cct, resize_positions
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, check_frames
from train.models.fusion.basic import VLADSum
from train.models.pooling.vlad import SeqVLAD
from train.models.presets import STA
from train.models.sta.attention import STD, BlockSizes, Position, RelativePositions, STABlock
from train.models.sta.windows import lay_windows


class StaOptions(BaseModel):
    """Everything that decides an STA model; defaults are those of Zhang et al., sec. IV-B."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    encoder: str = "cct_14_7x2_384"
    """A CCT, whose tokenizer is taken (frozen) and whose first blocks both stacks start from; or any timm name cut at
    `cut`, with fresh stacks."""
    cut: str | None = None
    """Stage after which an encoder that is no CCT ends."""
    trainable: str = "none"
    """What of the encoder is trained: "all", "none" or a stage."""
    patch_normalised: bool = False
    """Grey input with every block of `patch` pixels brought to zero mean and unit deviation."""
    patch: int = Field(default=8, ge=2)
    """Side of those blocks in pixels."""
    size: Size = (384, 384)
    """(height, width) in pixels of the frames."""
    branches: Literal["both", "spatial", "temporal"] = "both"
    """Which stacks there are (Fig. 3)."""
    blocks: int = Field(default=4, ge=1)
    """Blocks of each stack."""
    heads: int = Field(default=HEADS, ge=1)
    """Heads of each attention."""
    window: int = Field(default=6, ge=1)
    """Tokens a side of a temporal window (Fig. 4)."""
    stride: int = Field(default=3, ge=1)
    """Tokens between temporal windows (Fig. 4)."""
    merge: Literal["sum", "mean"] = "sum"
    """How overlapping windows are merged."""
    length: int = Field(default=5, ge=1)
    """Frames that the temporal tables reach; longer windows count as that far apart."""
    spatial_position: Position = "absolute"
    """Positions of the spatial stack (Fig. 3)."""
    temporal_position: Position = "relative"
    """Positions of the temporal stack (Fig. 3)."""
    scaled: bool = False
    """Divide the relative term by √d too, one reading of eq. (6)."""
    fresh: bool = False
    """Start both stacks from random weights though the encoder is a CCT."""
    clusters: int = Field(default=64, ge=1)
    """Clusters K of SeqVLAD."""
    bias: bool = False
    """A bias in SeqVLAD's assignment, as in eq. (8); off in practice."""
    freeze_ends: bool = False
    """Leave the stacks' final LayerNorms and absolute positions untrained where they start from the encoder's weights,
    as in practice; with `fresh` they do not, and are trained."""
    vlad_start: Literal["fused", "spatial"] = "fused"
    """Tokens that SeqVLAD's clusters start from: those it will see, or the spatial stack's alone, as in practice."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of attention weights in training."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Rate of stochastic depth of each stack's last block in training; it rises from 0."""
    normalise_after_pca: bool = False
    """Bring vectors to unit length again behind the PCA of an index; not in practice."""


class Stack(nn.Module):
    """One branch: positions, blocks, LN; tokens `(B, L, T, C)` → the same shape."""

    def __init__(self, blocks: list[STABlock], places: int, channels: int, length: int, absolute: bool) -> None:
        """Set the stack up; with `absolute` each token of the grid, and each of several frames, has a position."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)
        self.place = _learnt(1, 1, places, channels) if absolute else None
        self.time = _learnt(1, length, 1, channels) if absolute and length > 1 else None

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run the stack over tokens `(B, L, T, C)` of a grid (rows, columns): normalised, the same shape."""
        if self.place is not None:
            tokens = tokens + self.place
        if self.time is not None:
            # A window longer than in training repeats the last frame's position.
            frames = torch.arange(tokens.shape[1], device=tokens.device).clamp(max=self.time.shape[1] - 1)
            tokens = tokens + self.time[:, frames]
        for block in self.blocks:
            tokens = cast(STABlock, block).forward_grid(tokens, grid)
        out: Tensor = self.norm(tokens)
        return out


class Sta(SequenceModel):
    """A spatial stack within each frame and a temporal stack over windows across all frames, added, then SeqVLAD.

    `encode_frames` gives `(N, 2, T, C)` (tokens, spatial output), `(N, T, C)` without the spatial branch, and
    SeqVLAD's sums `(N, K, C)` without the temporal one, which is then additive over frames.
    """

    windows_at_once = 4  # a guess: attention over 49 windows of 180 tokens, six heads, in every layer

    def __init__(self, options: StaOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        encoder = _tokenizer(options, weights, seed)
        preprocess = Preprocess(
            encoder.mean, encoder.std, size=options.size, patch_normalised=options.patch_normalised, patch=options.patch
        )
        super().__init__(preprocess, config)
        cct = encoder.backbone if isinstance(encoder.backbone, Cct) else None
        self.encoder: nn.Module = encoder if cct is None else cct.tokenizer
        self.grid = self._find_grid(options.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.spatial = _spatial(options, encoder.channels, self.grid) if options.branches != "temporal" else None
            self.temporal = _temporal(options, encoder.channels, self.grid) if options.branches != "spatial" else None
        for stack in (self.spatial, self.temporal):
            if stack is not None and cct is not None and not options.fresh:
                _start_from(stack, cct, self.grid, freeze_ends=options.freeze_ends)
        # Seeded on its own, so that its start does not depend on which stacks were drawn before it.
        self.pooling = SeqVLAD(options.clusters, encoder.channels, bias=options.bias, seed=seed)
        self.vlad_start = options.vlad_start

    @property
    def vlad(self) -> SeqVLAD:
        """The VLAD layer."""
        return self.pooling

    def descriptor_size(self, length: int) -> int:
        """Return K·C, for any length."""
        return self.pooling.size

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode frames `(N, 3, H, W)` into what the class says, by branches."""
        tokens = self._tokenize(frames)
        if self.spatial is None:
            return tokens
        # The stack takes windows: each frame is one of length 1.
        spatial = self.spatial(tokens.unsqueeze(1), self.grid).squeeze(1)
        if self.temporal is None:
            return cast(Tensor, self.pooling(spatial))
        return torch.stack([tokens, spatial], dim=1)

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse features `(M, …)` of distinct frames by window rows `(B, L)` int64 into them: `(B, K·C)`."""
        if self.temporal is None:
            return VLADSum().gather(features, rows)
        # All tokens of all frames are one set for SeqVLAD: (B, L, T, C) → (B, L·T, C).
        return SeqVLAD.finish(self.pooling(self._fused(features, rows).flatten(1, 2)))

    def tokens(self, frames: Tensor) -> Tensor:
        """Compute what SeqVLAD's clusters start from of single frames, as windows of one: `(N, T, C)`."""
        if self.spatial is not None and (self.temporal is None or self.vlad_start == "spatial"):
            return cast(Tensor, self.spatial(self._tokenize(frames).unsqueeze(1), self.grid)).squeeze(1)
        rows = torch.arange(len(frames), device=frames.device).unsqueeze(1)
        return join(self._fused(self.encode_frames(frames), rows))

    def _fused(self, features: Tensor, rows: Tensor) -> Tensor:
        """Tokens of both branches added: `(B, L, T, C)`."""
        temporal = cast(Stack, self.temporal)
        if self.spatial is None:
            return cast(Tensor, temporal(features[rows], self.grid))
        return cast(Tensor, temporal(features[:, 0][rows], self.grid) + features[:, 1][rows])

    def _tokenize(self, frames: Tensor) -> Tensor:
        """Tokens of frames: `(N, 3, H, W)` → `(N, T, C)`; CCT's tokenizer gives maps, an encoder gives tokens."""
        features: Tensor = self.encoder(self.preprocess(frames))
        return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features

    @torch.no_grad()
    def _find_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for frames of `size`: their number by trying, their shape the frames'."""
        count = self._tokenize(torch.zeros(1, 3, *size)).shape[1]
        rows = max(1, round((count * size[0] / size[1]) ** 0.5))
        if count % rows:
            raise ContractError(f"frames of {size[0]}×{size[1]} give {count} tokens, which form no grid; change size")
        return rows, count // rows


def check(name: str, options: StaOptions) -> None:
    """Refuse combinations that cannot work. Raises: ContractError with the reason."""
    if options.stride > options.window:
        raise ContractError(f"model {name}: stride {options.stride} leaves gaps between windows of {options.window}")


def _tokenizer(options: StaOptions, weights: str | Path, seed: int) -> Encoder:
    """The encoder, or the CCT whose tokenizer and first blocks are used."""
    encoder = Encoder(options.encoder, cut=options.cut, weights=weights, seed=seed, trainable=options.trainable)
    if encoder.channels % options.heads:
        raise ContractError(f"{encoder.channels} channels do not divide into {options.heads} heads; change heads")
    check_frames(encoder, options.size)
    encoder.pop_attention_pool()
    return encoder


def _spatial(options: StaOptions, channels: int, grid: tuple[int, int]) -> Stack:
    """Blocks over one frame's whole grid."""
    blocks = [
        STABlock(
            across_frames=False,
            relative=_relative(options.spatial_position, (1, *grid), channels, options.heads),
            scaled=options.scaled,
            sizes=BlockSizes(channels, options.heads, 3 * channels, rate, options.attention_dropout),
        )
        for rate in _drop_paths(options)
    ]
    return Stack(blocks, grid[0] * grid[1], channels, 1, options.spatial_position == "absolute")


def _temporal(options: StaOptions, channels: int, grid: tuple[int, int]) -> Stack:
    """Blocks over windows of the grid across all frames."""
    extents = (options.length, options.window, options.window)
    # The same for all blocks, as the grid is.
    windows = lay_windows(grid, options.window, options.stride)
    blocks = [
        STABlock(
            windows=windows,
            relative=_relative(options.temporal_position, extents, channels, options.heads),
            scaled=options.scaled,
            mean=options.merge == "mean",
            sizes=BlockSizes(channels, options.heads, 3 * channels, rate, options.attention_dropout),
        )
        for rate in _drop_paths(options)
    ]
    return Stack(blocks, grid[0] * grid[1], channels, options.length, options.temporal_position == "absolute")


def _drop_paths(options: StaOptions) -> list[float]:
    """Rates of stochastic depth of a stack's blocks."""
    rates: list[float] = torch.linspace(0.0, options.drop_path, options.blocks).tolist()
    return rates


def _relative(position: Position, extents: tuple[int, int, int], channels: int, heads: int) -> RelativePositions | None:
    """Tables of one block: each block has its own."""
    return RelativePositions(extents, channels // heads) if position == "relative" else None


def _learnt(*shape: int) -> nn.Parameter:
    """A learnt position `shape`, which broadcasts over the axes of 1."""
    parameter = nn.Parameter(torch.empty(*shape))
    nn.init.trunc_normal_(parameter, std=STD)
    return parameter


@torch.no_grad()
def _start_from(stack: Stack, cct: Cct, grid: tuple[int, int], *, freeze_ends: bool) -> None:
    """Give the stack the weights of the first CCT blocks, positions and final LayerNorm (Zhang et al., sec. IV-B)."""
    if len(cct.blocks) < len(stack.blocks):
        raise ContractError(f"the encoder has {len(cct.blocks)} blocks, the stack {len(stack.blocks)}; lower blocks")
    for block, source in zip(stack.blocks, cct.blocks, strict=False):
        # CCT has no relative positions: theirs stay as they were drawn.
        relative = {key: value for key, value in block.state_dict().items() if "relative" in key}
        block.load_state_dict({**source.state_dict(), **relative})
    if isinstance(cct.norm, nn.LayerNorm):
        stack.norm.load_state_dict(cct.norm.state_dict())
        stack.norm.requires_grad_(not freeze_ends)
    if stack.place is not None:
        stack.place.copy_(resize_positions(cct.positions, cct.grid, grid).unsqueeze(1))
        stack.place.requires_grad_(not freeze_ends)


# Models stored before these options existed train all of their stacks, without dropout and stochastic depth.
ADDED = {"freeze_ends": False, "vlad_start": "fused", "attention_dropout": 0.0, "drop_path": 0.0}
FAMILY = Family(StaOptions, Sta, STA, check=check, added=ADDED)
