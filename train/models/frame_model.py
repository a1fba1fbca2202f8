"""Late and intermediate fusion: models that are a function of per-frame features, and their options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import Family, SequenceModel
from train.models.encoders.encoder import Encoder, Output
from train.models.encoders.facets import Facet
from train.models.encoders.preprocess import Preprocess, Statistics
from train.models.encoders.sizes import Size, bound_size, check_frames, encode, grid_of
from train.models.fusion.basic import Fusion
from train.models.fusion.registry import FUSIONS, FusionSettings
from train.models.fusion.temporal import DeltaForm
from train.models.pooling.basic import Pooling
from train.models.pooling.registry import POOLINGS, PoolingSettings, own_options
from train.models.pooling.vlad import NetVLAD, SeqVLAD
from train.models.presets import PAPER_PAIRS, frame_presets


class FrameModel(SequenceModel):
    """A model that fuses features of single frames.

    Encoder, pooling, fusion, and between the last two an optional projection of each frame's vector: a linear map, such
    as a fitted PCA, then L2.
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
        """Put the model together; length and distance are the fusion's."""
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
        """Return D for windows of `length` frames.

        Raises:
            ContractError: For a length that the fusion cannot take.
        """
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
        """Compute local features of frames: `(N, 3, H, W)` → `(N, T, C)`."""
        return encode(self.encoder, self.preprocess(frames))

    def pool(self, tokens: Tensor) -> Tensor:
        """Pool tokens `(N, T, C)` into frame features `(N, F)`, or `(N, K, C)` unnormalised sums for SeqVLAD."""
        pooled = self.pooling(tokens)
        return cast(Tensor, pooled if self.projection is None else F.normalize(self.projection(pooled), dim=-1))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Compute what fusion needs of each frame: `(N, 3, H, W)` → `(N, F)`, or `(N, K, C)` for SeqVLAD."""
        return self.pool(self.tokens(frames))

    def fuse_rows(self, features: Tensor, rows: Tensor) -> Tensor:
        """Fuse features `(M, …)` of distinct frames by window rows `(B, L)` int64 into them: `(B, D)`."""
        self.check_length(rows.shape[1])
        return self.fusion.gather(features, rows)


def _name_from(entries: Mapping[str, Any]) -> AfterValidator:
    """A validator that takes the names of a registry only."""

    def check_name(name: str) -> str:
        if name not in entries:
            raise PydanticCustomError("name", "choose one of {names}", {"names": ", ".join(entries)})
        return name

    return AfterValidator(check_name)


# Options that belong to a preset's own encoder, and mean nothing to another one.
ENCODER_OPTIONS = ("cut", "final_norm", "facet", "freeze_ends", "trainable", "encoder_options", "mean", "std")


class FrameOptions(BaseModel):
    """Everything that decides a late or intermediate fusion model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    encoder: str = "resnet18"
    """Any timm name, or a CCT of `train.models.encoders.cct`."""
    cut: str | None = None
    """Stage after which the encoder ends; None: all of it."""
    final_norm: bool = False
    """Apply the encoder's last LayerNorm behind the cut too; frozen unless all of the encoder is trained."""
    facet: Facet = "token"
    """What stands for a place of the last block: its output, or the queries, keys or values of its attention (ViTs)."""
    trainable: str = "all"
    """"all", "none", or the first encoder stage to train."""
    freeze_ends: bool = False
    """Where not all of the encoder is trained, leave its last LayerNorm and SeqPool's attention untrained too, as the
    papers' programs do."""
    bn: Literal["eval", "train"] = "eval"
    """Mode of BatchNorm in training; in "train" a descriptor depends on the other windows of its batch."""
    encoder_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for timm's model."""
    size: Size | None = None
    """(height, width) in pixels that frames are resized to. None: the encoder's where it is bound to one, else the
    frames' own."""
    patch_normalised: bool = False
    """Grey input with every block of `patch` pixels brought to zero mean and unit deviation."""
    patch: int = Field(default=8, ge=2)
    """Side of those blocks in pixels."""
    mean: Statistics | None = None
    """Mean of R, G, B in 0…1 that frames are normalised by; None: that of timm's data for the encoder."""
    std: Statistics | None = None
    """Standard deviation of R, G, B in 0…1, as `mean`."""
    pooling: Annotated[str, _name_from(POOLINGS)] = "vlad"
    """Name in `train.models.pooling.registry.POOLINGS`."""
    clusters: int = Field(default=64, ge=1)
    """Clusters K of VLAD and SALAD; 64 in Mereu et al. 2022."""
    pooling_options: dict[str, Any] | None = Field(default_factory=dict)
    """Options of the pooling alone, which its module in `train.models.pooling` describes. None: those of models that
    were stored before poolings had any."""
    bias: bool = False
    """A bias in VLAD's assignment, as in the papers' equations; off in practice."""
    projection: int | None = Field(default=None, ge=1)
    """Numbers that each frame's vector is mapped to, such as by a fitted PCA, then L2. None: no map."""
    projection_trained: bool = False
    """Train that map too; a PCA stays as it was fitted."""
    fusion: Annotated[str, _name_from(FUSIONS)] = "sum"
    """Name in `train.models.fusion.registry.FUSIONS`."""
    width: int = Field(default=4096, ge=1)
    """Numbers that FC, SeqNet, LSTM and SeqMatchNet give."""
    kernel: int = Field(default=3, ge=1)
    """Frames that SeqNet's convolution sees."""
    length: int = Field(default=5, ge=1)
    """Frames of the windows that FC takes."""
    delta: DeltaForm = "halves"
    """Form of Delta descriptors."""
    normalize: bool | None = None
    """Final L2 of cat, fc, mean, gem and lstm. None: cat and fc no, the others yes; all other fusions always."""
    normalise_after_pca: bool | None = None
    """Bring vectors to unit length again behind the PCA of an index. None: not for the papers' pairs of pooling and
    fusion, as in practice; the others yes."""


def complete(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Put options over a preset; with another architecture or pooling what belonged to the preset's is dropped."""
    of_pooling = options.get("pooling_options")
    if options.get("pooling", preset.get("pooling")) != preset.get("pooling"):
        preset = {key: value for key, value in preset.items() if key != "pooling_options"}
    elif of_pooling:
        options = {**options, "pooling_options": {**preset.get("pooling_options", {}), **of_pooling}}
    if _architecture(options.get("encoder", preset.get("encoder"))) != _architecture(preset.get("encoder")):
        preset = {key: value for key, value in preset.items() if key not in ENCODER_OPTIONS}
    return {**preset, **options}


def _architecture(encoder: Any) -> str:
    """A timm name without the tag of its weights, such as "resnet18" of "resnet18.tv_in1k"."""
    return str(encoder).partition(".")[0]


def check(name: str, options: FrameOptions) -> None:
    """Refuse combinations that cannot work.

    Raises:
        ContractError: With the reason.
    """
    pooling, fusion = POOLINGS[options.pooling], FUSIONS[options.fusion]
    if pooling.gives_sums != fusion.takes_sums:
        raise ContractError(
            f"model {name}: pooling '{options.pooling}' and fusion '{options.fusion}' do not fit: vlad sums residuals "
            "over frames (fusion sum); every other pooling gives one vector a frame (fusion cat, mean, gem, …)"
        )
    if pooling.gives_sums and options.projection is not None:
        raise ContractError(f"model {name}: SeqVLAD sums residuals, not vectors; leave projection unset")
    if options.normalize is False and fusion.always_normalizes:
        raise ContractError(f"model {name}: fusion '{options.fusion}' always ends in L2; leave normalize unset")
    if options.bias and not pooling.has_bias:
        raise ContractError(f"model {name}: bias belongs to VLAD's assignment; pooling is '{options.pooling}'")
    if pooling.needs_grid and options.size is None:
        raise ContractError(f"model {name}: pooling '{options.pooling}' is made for one grid; set size=[HEIGHT,WIDTH]")
    own_options(options.pooling, options.pooling_options)


def build(options: FrameOptions, weights: str | Path, seed: int, config: dict[str, Any]) -> FrameModel:
    """Make the model of checked options.

    Errors are those of `train.models.registry.create`.
    """
    entry, pooling_options = POOLINGS[options.pooling], own_options(options.pooling, options.pooling_options)
    encoder = Encoder(
        options.encoder,
        cut=options.cut,
        final_norm=options.final_norm,
        freeze_ends=options.freeze_ends,
        weights=weights,
        seed=seed,
        bn=options.bn,
        trainable=options.trainable,
        output=Output(entry.part(pooling_options), options.facet),
        options=options.encoder_options,
    )
    size = bound_size(encoder) if options.size is None else options.size
    if size is not None:
        check_frames(encoder, size)
    preprocess = Preprocess(
        options.mean or encoder.mean,
        options.std or encoder.std,
        size=size,
        patch_normalised=options.patch_normalised,
        patch=options.patch,
    )
    # Layers draw their start from torch's global generator: seeded here, and put back for everybody else.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooling = entry.build(
            PoolingSettings(
                encoder.channels,
                options.clusters,
                options.bias,
                encoder.pop_attention_pool(),
                seed,
                pooling_options,
                grid_of(encoder, size) if entry.needs_grid and size is not None else (0, 0),
            )
        )
        projection = _projection(options, pooling.size)
        fusion = _fusion(options, options.projection or pooling.size)
    # These may have come from elsewhere; what is stored recreates the model without asking again.
    stored_config = {
        **config,
        "size": None if size is None else list(size),
        "normalise_after_pca": _normalise_after_pca(options),
        "pooling_options": None if options.pooling_options is None else pooling_options.model_dump(mode="json"),
    }
    return FrameModel(preprocess, encoder, pooling, projection, fusion, stored_config)


def _normalise_after_pca(options: FrameOptions) -> bool:
    """Whether an index normalises the model's vectors behind its PCA, where the user does not decide."""
    if options.normalise_after_pca is not None:
        return options.normalise_after_pca
    return (options.pooling, options.fusion) not in PAPER_PAIRS


def _fusion(options: FrameOptions, features: int) -> Fusion:
    """The fusion of frame vectors of `features` numbers."""
    entry = FUSIONS[options.fusion]
    normalize = entry.normalizes if options.normalize is None else options.normalize
    return entry.build(
        FusionSettings(features, options.length, options.width, options.kernel, options.delta, normalize)
    )


def _projection(options: FrameOptions, features: int) -> nn.Linear | None:
    """The linear map behind the pooling, where there is one; random until a PCA or a trained one is put in."""
    if options.projection is None:
        return None
    return nn.Linear(features, options.projection).requires_grad_(options.projection_trained)


# Models stored before these options existed end at their cut without a norm, train all from their first trained stage
# on, take timm's pixel statistics, and have their pooling's earlier options.
ADDED = {
    **{"final_norm": False, "freeze_ends": False, "mean": None, "std": None},
    **{"facet": "token", "pooling_options": None, "projection_trained": False},
}
# The preset `frames` is an empty one, for encoder, pooling and fusion of one's own choice.
FAMILY = Family(FrameOptions, build, {**frame_presets(), "frames": {}}, complete, check, added=ADDED)
