"""Names in public weight files of backbones, as timm's models have them.

Translated are torchvision's VGG, Hugging Face's ViT (google/vit-base-patch16-224-in21k), Meta's DINOv2 (mask token,
register tokens, positions for another grid) and the CCT of Compact-Transformers. torchvision's ResNets have timm's
names.
"""

import re
from collections.abc import Mapping

import torch
from timm.models import vgg, vision_transformer
from torch import Tensor, nn

from train.models.encoders import cct

# Hugging Face's names and timm's; the three maps of attention are joined apart from these.
_VIT_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"^encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^layernorm\.", "norm."),
)
_QUERY = re.compile(r"^encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)$")
_HUGGING_FACE = "embeddings.cls_token"


def to_timm(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a public file as a timm model has them, and fit positions to its grid.

    Args:
        model: The timm model that they are for.
        state: Tensors by key; keys that are none of a public program's stay.

    Returns:
        Tensors by timm's keys.
    """
    if isinstance(model, cct.Cct):
        return cct.rename_public(dict(state))
    if isinstance(model, vgg.VGG) and "classifier.0.weight" in state:
        return dict(vgg._filter_fn(dict(state)))
    if not isinstance(model, vision_transformer.VisionTransformer):
        return dict(state)
    state = from_hugging_face(state) if _HUGGING_FACE in state else dict(state)
    positions, own = state.get("pos_embed"), model.pos_embed
    is_other_grid = isinstance(positions, Tensor) and own is not None and positions.shape != own.shape
    if "patch_embed.proj.weight" not in state or not ("mask_token" in state or is_other_grid):
        return state
    try:
        # timm's own reader of DINOv2's names, which also interpolates positions (bicubic).
        return dict(vision_transformer.checkpoint_filter_fn(dict(state), model))
    except RuntimeError:
        return state  # of another model; what does not fit is named where it is loaded


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Hugging Face's ViT as timm's; its pooler, which is no part of the encoder, is left out."""
    renamed = {}
    for key, value in state.items():
        query = _QUERY.match(key)
        if query is not None:
            block, kind = query.groups()
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in state for part in parts):
                # timm computes all three in one product.
                renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([state[part] for part in parts])
        elif ".attention.attention." not in key and not key.startswith("pooler."):
            renamed[_renamed(key)] = value
    return renamed


def _renamed(key: str) -> str:
    """A key of Hugging Face's ViT as timm's."""
    for pattern, replacement in _VIT_NAMES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return key
