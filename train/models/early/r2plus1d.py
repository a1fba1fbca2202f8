"""ResNet (2+1)D: a timm ResNet whose residual blocks mix neighbouring frames by a convolution over time.

Source: P1 Table II, "ResNet-50 (2+1)D", which the paper does not specify: 1,024 numbers point to a ResNet-50 cut after
layer3 with global pooling, and that is what is built here. Each block gets a 3-frame convolution, BatchNorm and ReLU
after its 3×3 convolution; it starts as the identity, so that pretrained 2D weights hold.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import SequenceModel, join, split
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, check_frames, encode

_RESNET50 = {"encoder": "resnet50", "cut": "layer3", "size": (480, 640)}
PRESETS: dict[str, dict[str, Any]] = {
    "r2plus1d-r50": _RESNET50,
    "r2plus1d-r18": {**_RESNET50, "encoder": "resnet18"},
    "r2plus1d-small": {"encoder": "resnet18", "cut": "layer2", "patch_normalised": True},
}


class R2Plus1DOptions(BaseModel):
    """`encoder`: a timm ResNet, `cut`, `trainable` as for other encoders; `normalize`: final L2 (raw in practice)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = "resnet50"
    cut: str | None = None
    trainable: str = "all"
    bn: Literal["eval", "train"] = "eval"
    size: Size | None = None
    patch_normalised: bool = False
    patch: int = Field(default=8, ge=2)
    normalize: bool = False


class TimeConvolution(nn.Module):
    """A 3-frame convolution of each place, BatchNorm, ReLU: frames of windows joined `(B·L, C, h, w)` → the same shape.

    `length` is L and is set before each pass, because a timm block hands on nothing but maps. Starts as the identity
    on maps that are not negative.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.length = 1
        self.convolution = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        nn.init.dirac_(self.convolution.weight)
        self.norm = nn.BatchNorm3d(channels)
        nn.init.constant_(self.norm.weight, (1.0 + self.norm.eps) ** 0.5)  # undoes eps at a variance of one

    def forward(self, maps: Tensor) -> Tensor:
        """`(B·L, C, h, w)` → the same shape."""
        windows = split(maps, self.length).transpose(1, 2)
        mixed: Tensor = self.norm(self.convolution(windows))
        return join(mixed.relu().transpose(1, 2).contiguous())


class R2Plus1D(SequenceModel):
    """`encode_frames` prepares pixels only: everything after sees whole windows."""

    windows_at_once = 4

    def __init__(self, chosen: R2Plus1DOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        encoder = Encoder(
            chosen.encoder, cut=chosen.cut, weights=weights, seed=seed, bn=chosen.bn, trainable=chosen.trainable
        )
        preprocess = Preprocess(
            encoder.mean, encoder.std, size=chosen.size, patch_normalised=chosen.patch_normalised, patch=chosen.patch
        )
        super().__init__(preprocess, config)
        self.time = _insert(encoder.backbone)
        if not self.time:
            raise ContractError(f"encoder '{chosen.encoder}' has no residual blocks; (2+1)D needs a ResNet of timm")
        self.encoder = encoder.train(encoder.training)
        if chosen.size is not None:
            check_frames(encoder, chosen.size)
        self.normalize = chosen.normalize

    def descriptor_size(self, length: int) -> int:
        """C for any length."""
        return self.encoder.channels

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Prepared pixels: `(N, 3, H, W)` → `(N, 3, H', W')`."""
        return cast(Tensor, self.preprocess(frames))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Pixels `(M, 3, H', W')` and rows `(B, L)` → the mean over places and frames, `(B, C)`."""
        length = rows.shape[1]
        for layer in self.time:
            layer.length = length
        tokens = encode(self.encoder, join(features[rows]))
        pooled = split(tokens, length).mean((1, 2))
        return F.normalize(pooled, dim=-1) if self.normalize else pooled


def _insert(backbone: nn.Module) -> list[TimeConvolution]:
    """Put a convolution over time before the last convolution of each residual block; returns them."""
    layers = []
    for block in backbone.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            last = "conv3" if isinstance(block, Bottleneck) else "conv2"
            convolution = cast(nn.Conv2d, getattr(block, last))
            layers.append(TimeConvolution(convolution.in_channels))
            setattr(block, last, nn.Sequential(layers[-1], convolution))
    return layers


def complete(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over a preset."""
    return {**preset, **options}


def check(name: str, chosen: R2Plus1DOptions) -> None:
    """Nothing: what cannot work shows when the encoder is built."""


def build(chosen: R2Plus1DOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> R2Plus1D:
    """The model of checked options. Raises: as `train.models.registry.create`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return R2Plus1D(chosen, weights, seed, config)
