"""ResNet (2+1)D: a timm ResNet whose residual blocks mix neighbouring frames by a convolution over time.

Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018, as a row of Mereu et al.,
Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, Table II. That paper does not
specify it: 1,024 numbers point to a ResNet-50 cut after layer3 with global pooling, and that is built here. Each block
gets a 3-frame convolution, BatchNorm and ReLU after its 3×3 convolution; it starts as the identity, so that pretrained
weights of single images hold.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import Family, SequenceModel, join, split
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, check_frames, encode
from train.models.presets import R2PLUS1D


class R2Plus1DOptions(BaseModel):
    """Everything that decides a ResNet (2+1)D."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    encoder: str = "resnet50"
    """A timm ResNet."""
    cut: str | None = None
    """Stage after which it ends; None: all of it."""
    trainable: str = "all"
    """"all", "none", or the first stage to train."""
    bn: Literal["eval", "train"] = "eval"
    """Mode of BatchNorm in training."""
    size: Size | None = None
    """(height, width) in pixels that frames are resized to; None: their own."""
    patch_normalised: bool = False
    """Grey input with every block of `patch` pixels brought to zero mean and unit deviation."""
    patch: int = Field(default=8, ge=2)
    """Side of those blocks in pixels."""
    normalize: bool = False
    """Final L2; raw in practice."""
    normalise_after_pca: bool = False
    """Bring vectors to unit length again behind the PCA of an index; not in practice."""


class TimeConvolution(nn.Module):
    """A 3-frame convolution of each position, BatchNorm, ReLU; frames of windows joined, `(B·L, C, h, w)`.

    `length` is L and is set before each pass, because a timm block hands on nothing but maps. Starts as the identity
    on maps that are not negative, which those behind a ReLU are not.
    """

    def __init__(self, channels: int) -> None:
        """Set up a convolution that passes its middle frame on."""
        super().__init__()
        self.length = 1
        self.convolution = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        nn.init.dirac_(self.convolution.weight)
        self.norm = nn.BatchNorm3d(channels)
        nn.init.constant_(self.norm.weight, (1.0 + self.norm.eps) ** 0.5)  # undoes eps at a variance of one

    def forward(self, maps: Tensor) -> Tensor:
        """Mix neighbouring frames of each window: `(B·L, C, h, w)` → the same shape."""
        # conv3d wants (B, C, L, h, w).
        windows = split(maps, self.length).transpose(1, 2)
        mixed: Tensor = self.norm(self.convolution(windows))
        # Joined where they lie: maps with channels last stay so, and the next convolution need not turn them.
        return join(mixed.relu().transpose(1, 2))


class R2Plus1D(SequenceModel):
    """A ResNet over whole windows; `encode_frames` prepares pixels only."""

    windows_at_once = 4  # a guess

    def __init__(self, options: R2Plus1DOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> None:
        """Make the model of checked options.

        Errors are those of `train.models.registry.create`.
        """
        encoder = Encoder(
            options.encoder, cut=options.cut, weights=weights, seed=seed, bn=options.bn, trainable=options.trainable
        )
        preprocess = Preprocess(
            encoder.mean, encoder.std, size=options.size, patch_normalised=options.patch_normalised, patch=options.patch
        )
        super().__init__(preprocess, config)
        self.time = _insert(encoder.backbone)
        if not self.time:
            raise ContractError(f"encoder '{options.encoder}' has no residual blocks; (2+1)D needs a ResNet of timm")
        self.encoder = encoder.train(encoder.training)
        if options.size is not None:
            check_frames(encoder, options.size)
        self.normalize = options.normalize

    def descriptor_size(self, length: int) -> int:
        """Return C, for any length."""
        return self.encoder.channels

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Prepare pixels: `(N, 3, H, W)` → `(N, 3, H', W')`."""
        return cast(Tensor, self.preprocess(frames))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse pixels `(M, 3, H', W')` by rows `(B, L)` into them: the mean over positions and frames, `(B, C)`."""
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


def build(options: R2Plus1DOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> R2Plus1D:
    """Make the model of checked options.

    Errors are those of `train.models.registry.create`.
    """
    # Encoders seed their own weights; this is for layers that draw theirs here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return R2Plus1D(options, weights, seed, config)


FAMILY = Family(R2Plus1DOptions, build, R2PLUS1D)
