"""CCT-14/7×2, the compact convolutional transformer, registered with timm under `cct_14_7x2_224` and `cct_14_7x2_384`.

Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, arXiv 2104.05704, 2021. timm has no CCT, so
this is the one backbone written here; everything that works on a timm model works on it.
"""

import re
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

# CCT-14/7×2: 14 blocks; a tokenizer of two rounds with 7×7 convolutions, each of stride 2 and pooled by 2.
CHANNELS, HEADS, BLOCKS, MLP = 384, 6, 14, 1152
STRIDE = 16
_PUBLIC = "https://shi-labs.com/projects/cct/checkpoints/"


class Tokenizer(nn.Sequential):
    """Two rounds of 7×7 convolution (stride 2, no bias), ReLU, 3×3 max-pool (stride 2): `(N, 3, H, W)` → 1/16 of it.

    Output `(N, 384, ⌈H/16⌉, ⌈W/16⌉)` for sides that 16 divides.
    """

    def __init__(self) -> None:
        convolutions = [nn.Conv2d(a, b, 7, stride=2, padding=3, bias=False) for a, b in ((3, 64), (64, CHANNELS))]
        super().__init__(*(nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(3, 2, 1)) for layer in convolutions))
        for layer in convolutions:
            nn.init.kaiming_normal_(layer.weight)


class Attention(nn.Module):
    """Multi-head self-attention over tokens `(B, T, C)`; `qkv` has no bias."""

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        """Set the layers up; `heads` divides `channels`, `dropout` is of attention weights in training."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def split_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values of tokens `(B, T, C)`: `(B, heads, T, C/heads)` each."""
        batch, count, channels = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, count, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def join_heads(self, mixed: Tensor) -> Tensor:
        """Put the heads `(B, heads, T, C/heads)` side by side and map them: `(B, T, C)`."""
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend within each row of tokens: `(B, T, C)` → `(B, T, C)`."""
        return self.join_heads(self.mix(*self.split_heads(tokens)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix values `(B, heads, T, d)` by softmax(q·k/√d + bias), with dropout of the weights in training."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0)


class Block(nn.Module):
    """x ← x + attention(LN x); x ← LN x; x ← x + MLP(x).

    Unlike in ViT the second residual starts from the normalised value, as in the public program whose weights are read.
    """

    def __init__(
        self,
        channels: int = CHANNELS,
        heads: int = HEADS,
        mlp: int = MLP,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """Set the layers up; in training `drop_path` is the rate of stochastic depth, `dropout` of attention."""
        super().__init__()
        self.pre_norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, dropout)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, mlp), nn.GELU(), nn.Linear(mlp, channels))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Run the block over tokens: `(B, T, C)` → `(B, T, C)`."""
        return self.feed(tokens + self.drop_path(self.attention(self.pre_norm(tokens))))

    def feed(self, tokens: Tensor) -> Tensor:
        """Run the block's second half, norm and MLP: `(…, C)` → `(…, C)`."""
        tokens = self.norm(tokens)
        out: Tensor = tokens + self.drop_path(self.mlp(tokens))
        return out


class Cct(nn.Module):
    """The backbone: frames `(N, 3, H, W)` → tokens `(N, T, 384)`, T over the grid row by row.

    Positions are learnt for `image` pixels a side and interpolated (bicubic) for another grid. `attention_pool` is what
    SeqPool starts from; it takes no part in `forward_features`. Names and signatures of the methods are timm's, whose
    feature extraction calls them.
    """

    num_prefix_tokens = 0
    num_features = CHANNELS

    def __init__(
        self,
        image: int = 224,
        drop_path_rate: float = 0.1,
        attn_drop_rate: float = 0.0,
        num_classes: int = 0,
        **_: Any,
    ) -> None:
        """Set up random weights for square images of `image` pixels; other options of timm are not used."""
        super().__init__()
        self.tokenizer = Tokenizer()
        self.grid = image // STRIDE
        self.positions = nn.Parameter(torch.empty(1, self.grid**2, CHANNELS))
        nn.init.trunc_normal_(self.positions, std=0.2)
        rates = torch.linspace(0, drop_path_rate, BLOCKS).tolist()
        self.blocks = nn.ModuleList([Block(drop_path=rate, dropout=attn_drop_rate) for rate in rates])
        self.norm: nn.Module = nn.LayerNorm(CHANNELS)
        self.attention_pool = nn.Linear(CHANNELS, 1)
        self.feature_info = [{"num_chs": CHANNELS, "reduction": STRIDE, "module": f"blocks.{i}"} for i in range(BLOCKS)]

    def embed(self, frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Compute tokens with positions `(N, T, C)`, and the grid (rows, columns)."""
        maps = self.tokenizer(frames)
        grid = (maps.shape[-2], maps.shape[-1])
        return maps.flatten(2).transpose(1, 2) + resize_positions(self.positions, self.grid, grid), grid

    def forward_features(self, frames: Tensor) -> Tensor:
        """Compute the normalised tokens `(N, T, C)` of the last block from frames `(N, 3, H, W)`."""
        tokens, _ = self.embed(frames)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def forward(self, frames: Tensor) -> Tensor:
        """Run `forward_features`."""
        return self.forward_features(frames)

    def forward_intermediates(
        self,
        frames: Tensor,
        indices: list[int],
        norm: bool = False,
        stop_early: bool = True,
        intermediates_only: bool = True,
        output_fmt: Literal["NCHW"] = "NCHW",
    ) -> list[Tensor]:
        """Compute maps `(N, C, rows, columns)` after the blocks `indices`, with `norm` through the final LayerNorm.

        The arguments are those of timm's models; only one output format is needed here.
        """
        tokens, grid = self.embed(frames)
        maps = []
        for index, block in enumerate(self.blocks[: max(indices) + 1]):
            tokens = block(tokens)
            if index in indices:
                out = self.norm(tokens) if norm else tokens
                maps.append(out.transpose(1, 2).reshape(len(out), -1, *grid))
        return maps

    def prune_intermediate_layers(self, indices: list[int], prune_norm: bool = True, prune_head: bool = True) -> None:
        """Drop the blocks behind the last of `indices`, and the final LayerNorm with `prune_norm` (timm's method)."""
        self.blocks = self.blocks[: max(indices) + 1]
        if prune_norm:
            self.norm = nn.Identity()


def resize_positions(positions: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Interpolate positions `(1, side², C)` for another grid (rows, columns): `(1, rows·columns, C)`, bicubic."""
    # Interpolation to the same grid would round the stored positions.
    if grid == (side, side):
        return positions
    maps = positions.transpose(1, 2).reshape(1, -1, side, side)
    return F.interpolate(maps, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


PUBLIC_FIRST = "tokenizer.conv_layers.0.0.weight"
"""First key of the public checkpoints."""

# Patterns of the public names and what they are here; the first that matches is applied.
_NAMES = (
    (r"^tokenizer\.conv_layers\.(\d)\.0\.", r"tokenizer.\1.0."),
    (r"^classifier\.positional_emb$", "positions"),
    (r"^classifier\.blocks\.(\d+)\.self_attn\.", r"blocks.\1.attention."),
    (r"^classifier\.blocks\.(\d+)\.norm1\.", r"blocks.\1.norm."),
    (r"^classifier\.blocks\.(\d+)\.linear1\.", r"blocks.\1.mlp.0."),
    (r"^classifier\.blocks\.(\d+)\.linear2\.", r"blocks.\1.mlp.2."),
    (r"^classifier\.", ""),
)


def rename_public(state: dict[str, Tensor], model: nn.Module | None = None) -> dict[str, Tensor]:
    """Rename the keys of the public checkpoints (`classifier.*`, `tokenizer.*`), without the classifier's last layer.

    A state dict with our names comes back as it is. `model` is timm's second argument, not needed.
    """
    renamed = {}
    for key, value in state.items():
        new = key
        for pattern, replacement in _NAMES:
            new, matches = re.subn(pattern, replacement, new)
            if matches:
                break
        if not new.startswith("fc."):
            renamed[new] = value
    return renamed


def _config(file: str, side: int) -> dict[str, Any]:
    """Data for timm of a checkpoint for square images of `side` pixels."""
    return {
        "url": _PUBLIC + file,
        "num_classes": 0,
        "input_size": (3, side, side),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "first_conv": "tokenizer.0.0",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs(
    {
        "cct_14_7x2_224": _config("pretrained/cct_14_7x2_224_imagenet.pth", 224),
        "cct_14_7x2_384": _config("finetuned/cct_14_7x2_384_imagenet.pth", 384),
    }
)


def _create(name: str, image: int, pretrained: bool, options: dict[str, Any]) -> Any:
    """The model through timm's own builder, which reads weights and options as for timm's models."""
    return build_model_with_cfg(
        Cct, name, pretrained, pretrained_filter_fn=rename_public, image=image, feature_cfg={}, **options
    )


@register_model
def cct_14_7x2_224(pretrained: bool = False, **options: Any) -> Any:
    """Make CCT-14/7×2 for 224×224 pixels: 196 tokens of 384 channels."""
    return _create("cct_14_7x2_224", 224, pretrained, options)


@register_model
def cct_14_7x2_384(pretrained: bool = False, **options: Any) -> Any:
    """Make CCT-14/7×2 for 384×384 pixels: 576 tokens of 384 channels."""
    return _create("cct_14_7x2_384", 384, pretrained, options)
