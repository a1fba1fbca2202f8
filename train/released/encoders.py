"""Encoders inside released models: which backbone the tensors are, where it is cut, and their names in timm's model."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from train.models.encoders.cct import BLOCKS, CHANNELS, PUBLIC_FIRST, rename_public
from train.models.encoders.public_names import from_hugging_face
from train.models.presets import BACKBONES, PAPER_STARTS
from train.released.reading import Tensors, UnreadableWeightsError, above, count_of, rename

VIT_BLOCKS = 12
# The programs keep a ResNet's children in a row: conv1, bn1, ReLU, max-pool, layer1 …
_RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# By bottleneck blocks or not, and blocks of layer3.
# DINOv2 by the channels of its tokens: timm's name of its size, and its blocks.
_DINOV2 = {384: ("small", 12), 768: ("base", 12), 1024: ("large", 24)}
_DINOV2_SIDE = 322
"""Pixels of frames that the models of places behind DINOv2 are tested with by their authors."""
_RESNETS = {(False, 2): "resnet18", (False, 6): "resnet34", (True, 6): "resnet50", (True, 23): "resnet101"}


@dataclass(frozen=True)
class ReleasedEncoder:
    """An encoder of a released model.

    Attributes:
        backbone: Ending of the presets that have it, such as "cct384".
        options: Options of the encoder.
        channels: Numbers of a token.
        state: Tensors under `encoder.backbone.`.
        attention: SeqPool's attention, where the backbone has one.
        positions: Key of positions that the program resamples to another grid.
    """

    backbone: str
    options: dict[str, Any]
    channels: int
    state: dict[str, Tensor]
    attention: dict[str, Tensor]
    positions: str | None = None


def read_encoder(tensors: Tensors) -> ReleasedEncoder:
    """Find out which encoder tensors are.

    Args:
        tensors: Tensors by the names of the program's encoder.

    Raises:
        UnreadableWeightsError: For a backbone of another design.
    """
    if PUBLIC_FIRST in tensors:
        return _cct(tensors)
    if "embeddings.cls_token" in tensors:
        return _vit(tensors)
    first = tensors.get("0.weight")
    if first is not None and tuple(first.shape) == (64, 3, 7, 7):
        return _resnet(tensors)
    if first is not None and tuple(first.shape) == (64, 3, 3, 3):
        return _vgg(tensors)
    if first is not None and tuple(first.shape) == (64, 3, 11, 11):
        raise UnreadableWeightsError("its encoder is AlexNet, which has no model here; NetVLAD on VGG-16 is read")
    raise UnreadableWeightsError("its encoder is no CCT-14/7×2, ViT, ResNet or VGG-16 of the papers")


def read_dinov2(tensors: Tensors, *, final_norm: bool) -> ReleasedEncoder:
    """Read Meta's DINOv2.

    Args:
        tensors: Tensors by Meta's names, which are also timm's.
        final_norm: Whether the program applies the last LayerNorm.

    Raises:
        UnreadableWeightsError: For another size.
    """
    channels = tensors["cls_token"].shape[-1]
    if channels not in _DINOV2:
        raise UnreadableWeightsError(f"its DINOv2 has {channels} channels; {', '.join(map(str, _DINOV2))} are known")
    size, depth = _DINOV2[channels]
    blocks = count_of(tensors, r"blocks\.(\d+)\.")
    is_cut = blocks < depth or not final_norm
    side = (_DINOV2_SIDE, _DINOV2_SIDE)
    options = {
        "encoder": f"vit_{size}_patch14_dinov2",
        "cut": f"blocks.{blocks - 1}" if is_cut else None,
        "final_norm": is_cut and final_norm,
        "trainable": f"blocks.{max(0, blocks - 4)}",
        "size": side,
        "encoder_options": {"img_size": side},
    }
    unused = ("mask_token",) if final_norm else ("mask_token", "norm.weight", "norm.bias")
    state = {key: value for key, value in tensors.items() if key not in unused}
    state = above(state, "encoder.backbone.")
    return ReleasedEncoder(f"dinov2-{size[0]}", options, channels, state, {}, "encoder.backbone.pos_embed")


def _options(backbone: str, **more: Any) -> dict[str, Any]:
    """Options of a backbone as the papers start it, with what the file decides over them."""
    options = {**BACKBONES[backbone], **PAPER_STARTS.get(backbone, {}), **more}
    # Freezing is for training further: a stage that was cut off cannot be the first to train.
    if options.get("cut") is not None and _number(options["trainable"]) > _number(options["cut"]):
        options["trainable"] = "all"
    return options


def _number(stage: str) -> int:
    """The number in a stage's name, such as 7 of "blocks.7"; −1 for a name without one."""
    digits = "".join(character for character in stage if character.isdigit())
    return int(digits) if digits else -1


def _cct(tensors: Tensors) -> ReleasedEncoder:
    """CCT-14/7×2, cut or whole; behind the cut its final LayerNorm."""
    state = rename_public(dict(tensors))
    tokens, blocks = state["positions"].shape[1], count_of(state, r"blocks\.(\d+)\.")
    backbone = {576: "cct384", 196: "cct224"}.get(tokens)
    if backbone is None:
        raise UnreadableWeightsError(f"its CCT has {tokens} positions; 576 (384 pixels) and 196 (224 pixels) are known")
    attention = {key: state.pop(key) for key in list(state) if key.startswith("attention_pool.")}
    is_cut = blocks < BLOCKS
    options = _options(backbone, cut=f"blocks.{blocks - 1}" if is_cut else None, final_norm=is_cut)
    return ReleasedEncoder(backbone, options, CHANNELS, above(state, "encoder.backbone."), attention)


def _vit(tensors: Tensors) -> ReleasedEncoder:
    """Hugging Face's ViT-B/16, cut or whole."""
    state = from_hugging_face(tensors)
    blocks = count_of(state, r"blocks\.(\d+)\.")
    cut = {"cut": f"blocks.{blocks - 1}", "final_norm": True} if blocks < VIT_BLOCKS else {}
    channels = state["cls_token"].shape[-1]
    return ReleasedEncoder("vit", _options("vit", **cut), channels, above(state, "encoder.backbone."), {})


def _resnet(tensors: Tensors) -> ReleasedEncoder:
    """A ResNet whose children stand in a row."""
    return read_resnet(rename(tensors, [(rf"^{number}\.", f"{name}.") for number, name in _RESNET_CHILDREN.items()]))


def read_resnet(state: Tensors) -> ReleasedEncoder:
    """Read a ResNet that is cut after layer3 or layer4, by torchvision's names.

    Raises:
        UnreadableWeightsError: For one of other blocks.
    """
    form = "layer1.0.conv3.weight" in state, count_of(state, r"layer3\.(\d+)\.")
    if form not in _RESNETS:
        raise UnreadableWeightsError(f"its ResNet has {form[1]} blocks in layer3, as none of 18, 34, 50 or 101 layers")
    name, cut = _RESNETS[form], "layer4" if "layer4.0.conv1.weight" in state else "layer3"
    backbone = {"resnet18": "r18", "resnet50": "r50"}.get(name, name)
    options = _options("r50" if form[0] else "r18", encoder=f"{name}.tv_in1k", cut=cut)
    channels = state[f"{cut}.0.conv{3 if form[0] else 2}.weight"].shape[0]
    return ReleasedEncoder(backbone, options, channels, above(state, "encoder.backbone."), {})


def _vgg(tensors: Tensors) -> ReleasedEncoder:
    """VGG-16 through conv5_3."""
    last = count_of(tensors, r"(\d+)\.") - 1
    options = _options("vgg16", cut=f"features.{last}")
    channels = tensors[f"{last}.weight"].shape[0]
    return ReleasedEncoder("vgg16", options, channels, above(tensors, "encoder.backbone.features."), {})
