"""Options of late and intermediate fusion models, and how a model is put together from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import SequenceModel
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess
from train.models.encoders.sizes import Size, bound_size, check_frames, encode
from train.models.fusion.basic import CentreFrame, Concatenate, Fusion, Mean, SeqGeM, VLADSum
from train.models.fusion.temporal import AlignedFrames, Delta, FullyConnected, LastState, SeqNet
from train.models.pooling.basic import AveragePool, ClassToken, GeM, Pooling, SeqPool
from train.models.pooling.salad import Salad
from train.models.pooling.vlad import NetVLAD, SeqVLAD


class FrameModel(SequenceModel):
    """A model that is a function of per-frame features.

    `projection`: a linear map of each frame's vector, such as a fitted PCA, then L2; or None.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        encoder: Encoder,
        pooling: Pooling,
        projection: nn.Linear | None,
        fusion: Fusion,
        config: dict[str, Any],
    ) -> None:
        super().__init__(preprocess, config)
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.fusion = fusion
        self.length = fusion.length
        self.distance = fusion.distance

    @property
    def feature_size(self) -> int:
        """Numbers that stand for one frame when windows are fused."""
        return self.pooling.size if self.projection is None else self.projection.out_features

    def descriptor_size(self, length: int) -> int:
        """D for windows of `length` frames. Raises: ContractError for a length that the fusion cannot take."""
        self.check_length(length)
        return self.fusion.descriptor_size(self.feature_size, length)

    @property
    def vlad_sums(self) -> bool:
        """Whether a frame stands for itself as unnormalised VLAD sums `(K, C)` rather than as a vector."""
        return isinstance(self.pooling, SeqVLAD) and not isinstance(self.pooling, NetVLAD)

    @property
    def vlad(self) -> SeqVLAD | None:
        """The VLAD layer, of SeqVLAD or NetVLAD, None for another pooling."""
        return self.pooling if isinstance(self.pooling, SeqVLAD) else None

    def tokens(self, frames: Tensor) -> Tensor:
        """Local features of frames: `(N, 3, H, W)` → `(N, T, C)`."""
        return encode(self.encoder, self.preprocess(frames))

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens `(N, T, C)` → frame features `(N, F)`, or `(N, K, C)` unnormalised sums for SeqVLAD."""
        pooled = self.pooling(tokens)
        return cast(Tensor, pooled if self.projection is None else F.normalize(self.projection(pooled), dim=-1))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """What fusion needs of each frame: `(N, 3, H, W)` → `(N, F)`, or `(N, K, C)` for SeqVLAD."""
        return self.pool(self.tokens(frames))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Features `(M, ...)` of distinct frames and window rows `(B, L)` int64 into them → descriptors `(B, D)`."""
        self.check_length(rows.shape[1])
        return self.fusion.gather(features, rows)


OF_THE_ENCODER = ("cut", "trainable", "encoder_options")


class FrameOptions(BaseModel):
    """Everything that decides a late or intermediate fusion model; every field can be overridden in `create`.

    `encoder`: any timm name, or one of ours. `cut`: stage after which it ends (None = all of it). `trainable`: "all",
    "none" or the first encoder stage to train. `bn`: "eval" or "train". `encoder_options`: keyword arguments for timm.
    `size`: (height, width) pixels; None is the encoder's where it is bound to one, else the frames' own.
    `patch_normalised`, `patch`: grey block-normalised input.
    `pooling`, `clusters`, `bias`: see `train.models.pooling.basic`, `train.models.pooling.vlad`,
    `train.models.pooling.salad`. `projection`: size of a linear map
    of each frame's vector, such as a fitted PCA; it is not trained. `fusion`: see `train.models.fusion.basic` and
    `train.models.fusion.temporal`;
    `width` of FC, SeqNet, LSTM and SeqMatchNet, `kernel` of SeqNet in frames, `length` of FC in frames, `delta` form.
    `normalize`: final L2 of cat, fc, mean, gem and lstm (None: cat and fc no, the others yes; the rest always).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = "resnet18"
    cut: str | None = None
    trainable: str = "all"
    bn: Literal["eval", "train"] = "eval"
    encoder_options: dict[str, Any] = Field(default_factory=dict)
    size: Size | None = None
    patch_normalised: bool = False
    patch: int = Field(default=8, ge=2)
    pooling: Literal["vlad", "netvlad", "gem", "avg", "cls", "seqpool", "salad"] = "vlad"
    clusters: int = Field(default=64, ge=1)
    bias: bool = False
    projection: int | None = Field(default=None, ge=1)
    fusion: Literal["sum", "cat", "mean", "gem", "centre", "fc", "seqnet", "lstm", "delta", "aligned"] = "sum"
    width: int = Field(default=4096, ge=1)
    kernel: int = Field(default=3, ge=1)
    length: int = Field(default=5, ge=1)
    delta: Literal["halves", "seqnet"] = "halves"
    normalize: bool | None = None


def complete(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over a preset; with another encoder the preset's own stages are forgotten."""
    if options.get("encoder", preset.get("encoder")) != preset.get("encoder"):
        preset = {key: value for key, value in preset.items() if key not in OF_THE_ENCODER}
    return {**preset, **options}


def check(name: str, chosen: FrameOptions) -> None:
    """Refuse combinations that cannot work. Raises: ContractError with the reason."""
    if (chosen.pooling == "vlad") != (chosen.fusion == "sum"):
        raise ContractError(
            f"model {name}: pooling '{chosen.pooling}' and fusion '{chosen.fusion}' do not fit: vlad sums residuals "
            "over frames (fusion sum); every other pooling gives one vector a frame (fusion cat, mean, gem, …)"
        )
    if chosen.pooling == "vlad" and chosen.projection is not None:
        raise ContractError(f"model {name}: SeqVLAD sums residuals, not vectors; leave projection unset")
    if chosen.normalize is False and chosen.fusion in ("sum", "seqnet", "delta", "aligned"):
        raise ContractError(f"model {name}: fusion '{chosen.fusion}' always ends in L2; leave normalize unset")
    if chosen.bias and chosen.pooling not in ("vlad", "netvlad"):
        raise ContractError(f"model {name}: bias belongs to VLAD's assignment; pooling is '{chosen.pooling}'")


def build(chosen: FrameOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> FrameModel:
    """The model of checked options. Raises: as `train.models.registry.create`."""
    encoder = Encoder(
        chosen.encoder,
        cut=chosen.cut,
        weights=weights,
        seed=seed,
        bn=chosen.bn,
        trainable=chosen.trainable,
        part="cls" if chosen.pooling == "cls" else "grid",
        options=chosen.encoder_options,
    )
    size = bound_size(encoder) if chosen.size is None else chosen.size
    if size is not None:
        check_frames(encoder, size)
    preprocess = Preprocess(
        encoder.mean, encoder.std, size=size, patch_normalised=chosen.patch_normalised, patch=chosen.patch
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooling = _pooling(chosen, encoder.channels, encoder.pop_attention_pool(), seed)
        projection = None if chosen.projection is None else _projection(pooling.size, chosen.projection)
        fusion = _fusion(chosen, chosen.projection or pooling.size)
    settled = {**config, "size": None if size is None else list(size)}
    return FrameModel(preprocess, encoder, pooling, projection, fusion, settled)


def _pooling(chosen: FrameOptions, channels: int, attention: nn.Linear | None, seed: int) -> Pooling:
    kinds: dict[str, Callable[[], Pooling]] = {
        "vlad": lambda: SeqVLAD(chosen.clusters, channels, bias=chosen.bias, seed=seed),
        "netvlad": lambda: NetVLAD(chosen.clusters, channels, bias=chosen.bias, seed=seed),
        "gem": lambda: GeM(channels),
        "avg": lambda: AveragePool(channels),
        "cls": lambda: ClassToken(channels),
        "seqpool": lambda: SeqPool(channels, attention),
        "salad": lambda: Salad(channels, chosen.clusters, seed=seed),
    }
    return kinds[chosen.pooling]()


def _projection(features: int, size: int) -> nn.Linear:
    """A linear map that no optimiser touches; random until a PCA is put in."""
    projection = nn.Linear(features, size)
    for parameter in projection.parameters():
        parameter.requires_grad_(False)
    return projection


def _fusion(chosen: FrameOptions, features: int) -> Fusion:
    kinds: dict[str, Callable[[], Fusion]] = {
        "sum": VLADSum,
        "cat": lambda: Concatenate(normalize=bool(chosen.normalize)),
        "mean": lambda: Mean(normalize=chosen.normalize is not False),
        "gem": lambda: SeqGeM(normalize=chosen.normalize is not False),
        "centre": CentreFrame,
        "fc": lambda: FullyConnected(features, chosen.length, chosen.width, normalize=bool(chosen.normalize)),
        "seqnet": lambda: SeqNet(features, chosen.width, chosen.kernel),
        "lstm": lambda: LastState(features, chosen.width, normalize=chosen.normalize is not False),
        "delta": lambda: Delta(chosen.delta),
        "aligned": lambda: AlignedFrames(features, chosen.width),
    }
    return kinds[chosen.fusion]()
