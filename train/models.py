"""Models by name: presets, their options, and `create`.

A new model is one encoder, pooling or fusion module and one entry in `PRESETS`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from seqdata.errors import ContractError
from seqdata.protocols import describe_first
from train.encoders import Encoder
from train.fusion import Concatenate, Fusion, Mean, VLADSum
from train.pooling import AveragePool, GeM
from train.preprocess import Preprocess
from train.sequence_model import SequenceModel
from train.vlad import SeqVLAD

__all__ = ["PRESETS", "ModelOptions", "SequenceModel", "create", "names"]


class ModelOptions(BaseModel):
    """Everything that decides a model's architecture; every field can be overridden by name in `create`.

    `encoder`: any timm name. `cut`: stage after which it ends (None = all of it). `pooling`: "vlad", "gem", "avg".
    `fusion`: "sum" (vlad only), "cat", "mean". `clusters`, `bias`: VLAD. `size`: (height, width) pixels or None.
    `patch_normalised`, `patch`: grey block-normalised input. `bn`: "eval" or "train". `trainable`: "all", "none" or
    the first encoder stage to train. `normalize`: final L2 of cat / mean (None: cat no, mean yes; vlad always).
    `encoder_options`: keyword arguments for timm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = "resnet18"
    cut: str | None = None
    pooling: Literal["vlad", "gem", "avg"] = "vlad"
    fusion: Literal["sum", "cat", "mean"] = "sum"
    clusters: int = Field(default=64, ge=1)
    bias: bool = False
    size: tuple[int, int] | None = None
    patch_normalised: bool = False
    patch: int = Field(default=8, ge=2)
    bn: Literal["eval", "train"] = "eval"
    trainable: str = "all"
    normalize: bool | None = None
    encoder_options: dict[str, Any] = Field(default_factory=dict)


PRESETS: dict[str, dict[str, Any]] = {
    "seqvlad-r18": {"encoder": "resnet18", "cut": "layer3", "trainable": "layer3", "size": (480, 640)},
    "seqvlad-r50": {"encoder": "resnet50", "cut": "layer3", "trainable": "layer3", "size": (480, 640)},
    "seqvlad-mobilenetv2": {"encoder": "mobilenetv2_100", "cut": "blocks.4", "size": (240, 320)},
    "seqvlad-vit": {"encoder": "vit_base_patch16_224", "trainable": "blocks.8", "size": (224, 224)},
    "seqvlad-small": {"encoder": "resnet18", "cut": "layer1", "clusters": 32, "patch_normalised": True},
    "gem-cat-r18": {
        "encoder": "resnet18",
        "cut": "layer3",
        "trainable": "layer3",
        "pooling": "gem",
        "fusion": "cat",
        "size": (480, 640),
    },
    "gem-cat-r50": {
        "encoder": "resnet50",
        "cut": "layer3",
        "trainable": "layer3",
        "pooling": "gem",
        "fusion": "cat",
        "size": (480, 640),
    },
    "gem-cat-small": {
        "encoder": "resnet18",
        "cut": "layer2",
        "pooling": "gem",
        "fusion": "cat",
        "patch_normalised": True,
    },
    "avg-cat-mobilenetv2": {
        "encoder": "mobilenetv2_100",
        "pooling": "avg",
        "fusion": "cat",
        "trainable": "none",
        "size": (224, 224),
    },
    "avg-mean-mobilenetv2": {
        "encoder": "mobilenetv2_100",
        "pooling": "avg",
        "fusion": "mean",
        "trainable": "none",
        "size": (224, 224),
    },
}


OF_THE_ENCODER = ("cut", "trainable", "encoder_options")


def names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(PRESETS)


def create(name: str, *, weights: str | Path = "random", seed: int = 0, **options: Any) -> SequenceModel:
    """The model of preset `name` with `options` over it, in eval mode on the CPU.

    `weights`: "random" (drawn from `seed`), "pretrained" (timm's download) or a file of the backbone's weights.
    Raises: ContractError for an unknown name, option, stage or a combination that cannot work, InputError and
    MissingDependencyError for weights that are not there.
    """
    chosen = resolve(name, options)
    encoder = Encoder(
        chosen.encoder,
        cut=chosen.cut,
        weights=weights,
        seed=seed,
        bn=chosen.bn,
        trainable=chosen.trainable,
        options=chosen.encoder_options,
    )
    preprocess = Preprocess(
        encoder.mean, encoder.std, size=chosen.size, patch_normalised=chosen.patch_normalised, patch=chosen.patch
    )
    config = {"name": name, "weights": str(weights), "seed": seed, **chosen.model_dump(mode="json")}
    pooling = _pooling(chosen, encoder.channels, seed)
    return SequenceModel(preprocess, encoder, pooling, _fusion(chosen), config).eval()


def resolve(name: str, options: dict[str, Any]) -> ModelOptions:
    """The options of preset `name` with `options` over them; with another encoder its own stages are forgotten.

    Raises: ContractError naming what is valid.
    """
    if name not in PRESETS:
        raise ContractError(f"no model '{name}'; choose one of {', '.join(names())}")
    unknown = sorted(set(options) - set(ModelOptions.model_fields))
    if unknown:
        raise ContractError(f"model {name}: no option '{unknown[0]}'; there are {', '.join(ModelOptions.model_fields)}")
    preset = PRESETS[name]
    if options.get("encoder", preset["encoder"]) != preset["encoder"]:
        preset = {key: value for key, value in preset.items() if key not in OF_THE_ENCODER}
    try:
        chosen = ModelOptions.model_validate({**preset, **options})
    except ValidationError as error:
        raise ContractError(f"model {name}: {describe_first(error)}") from error
    _check(name, chosen)
    return chosen


def _check(name: str, chosen: ModelOptions) -> None:
    """Refuse combinations that cannot work, with the reason."""
    if (chosen.pooling == "vlad") != (chosen.fusion == "sum"):
        raise ContractError(
            f"model {name}: pooling '{chosen.pooling}' and fusion '{chosen.fusion}' do not fit: vlad sums residuals "
            "over frames (fusion sum); gem and avg give one vector a frame (fusion cat or mean)"
        )
    if chosen.normalize is False and chosen.pooling == "vlad":
        raise ContractError(f"model {name}: SeqVLAD always ends in L2; leave normalize unset")
    if chosen.bias and chosen.pooling != "vlad":
        raise ContractError(f"model {name}: bias belongs to VLAD's assignment; pooling is '{chosen.pooling}'")


def _pooling(chosen: ModelOptions, channels: int, seed: int) -> nn.Module:
    if chosen.pooling == "vlad":
        return SeqVLAD(chosen.clusters, channels, bias=chosen.bias, seed=seed)
    return GeM() if chosen.pooling == "gem" else AveragePool()


def _fusion(chosen: ModelOptions) -> Fusion:
    if chosen.fusion == "sum":
        return VLADSum()
    if chosen.fusion == "cat":
        return Concatenate(normalize=bool(chosen.normalize))
    return Mean(normalize=chosen.normalize is not False)
