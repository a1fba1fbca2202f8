"""Names and shapes in the weight files that public programs release, written out, and files filled at random."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

CCT_BLOCK: Shapes = {
    "pre_norm.weight": (384,),
    "pre_norm.bias": (384,),
    "self_attn.qkv.weight": (1152, 384),
    "self_attn.proj.weight": (384, 384),
    "self_attn.proj.bias": (384,),
    "linear1.weight": (1152, 384),
    "linear1.bias": (1152,),
    "norm1.weight": (384,),
    "norm1.bias": (384,),
    "linear2.weight": (384, 1152),
    "linear2.bias": (384,),
}
TOKENIZER: Shapes = {
    "tokenizer.conv_layers.0.0.weight": (64, 3, 7, 7),
    "tokenizer.conv_layers.1.0.weight": (384, 64, 7, 7),
}
_VIT_LAYER: Shapes = {
    "attention.attention.query.weight": (768, 768),
    "attention.attention.query.bias": (768,),
    "attention.attention.key.weight": (768, 768),
    "attention.attention.key.bias": (768,),
    "attention.attention.value.weight": (768, 768),
    "attention.attention.value.bias": (768,),
    "attention.output.dense.weight": (768, 768),
    "attention.output.dense.bias": (768,),
    "intermediate.dense.weight": (3072, 768),
    "intermediate.dense.bias": (3072,),
    "output.dense.weight": (768, 3072),
    "output.dense.bias": (768,),
    "layernorm_before.weight": (768,),
    "layernorm_before.bias": (768,),
    "layernorm_after.weight": (768,),
    "layernorm_after.bias": (768,),
}
_DIVIDED_BLOCK: Shapes = {
    **{f"{norm}.{kind}": (768,) for norm in ("norm1", "temporal_norm1", "norm2") for kind in ("weight", "bias")},
    **{f"{attn}.qkv.weight": (2304, 768) for attn in ("attn", "temporal_attn")},
    **{f"{attn}.qkv.bias": (2304,) for attn in ("attn", "temporal_attn")},
    **{f"{attn}.proj.weight": (768, 768) for attn in ("attn", "temporal_attn")},
    **{f"{attn}.proj.bias": (768,) for attn in ("attn", "temporal_attn")},
    "temporal_fc.weight": (768, 768),
    "temporal_fc.bias": (768,),
    "mlp.fc1.weight": (3072, 768),
    "mlp.fc1.bias": (3072,),
    "mlp.fc2.weight": (768, 3072),
    "mlp.fc2.bias": (768,),
}
# Convolutions of VGG-16 through conv5_3: number in torchvision's `features`, channels in and out.
VGG_CONVOLUTIONS = (
    (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
    (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512),
)  # fmt: skip


def filled(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these shapes; variances are positive, and scales of norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        fan = max(1, value[0].numel()) if len(shape) > 1 else 1
        is_scale = key.endswith("weight") and len(shape) == 1
        if key.endswith("running_var"):
            tensors[key] = 1.0 + 0.1 * value.abs()
        elif key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(7)
        elif is_scale or key.endswith(".p"):
            tensors[key] = (3.0 if key.endswith(".p") else 1.0) + 0.1 * value
        else:
            tensors[key] = value * (fan**-0.5 if len(shape) > 1 else 0.05)
    return tensors


def below(prefix: str, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The same under a prefix."""
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


def cct(blocks: int, tokens: int, head: bool = False) -> Shapes:
    """Compact-Transformers' CCT-14/7×2, or what is left of it; `head` adds the classifier's last layer."""
    shapes = TOKENIZER | {"classifier.positional_emb": (1, tokens, 384)}
    shapes |= {"classifier.attention_pool.weight": (1, 384), "classifier.attention_pool.bias": (1,)}
    shapes |= {f"classifier.blocks.{i}.{key}": shape for i in range(blocks) for key, shape in CCT_BLOCK.items()}
    shapes |= {"classifier.norm.weight": (384,), "classifier.norm.bias": (384,)}
    return shapes | ({"classifier.fc.weight": (1000, 384), "classifier.fc.bias": (1000,)} if head else {})


def hugging_face_vit(layers: int = 12) -> Shapes:
    """google/vit-base-patch16-224-in21k, as transformers' ViTModel names it."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, 768),
        "embeddings.position_embeddings": (1, 197, 768),
        "embeddings.patch_embeddings.projection.weight": (768, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (768,),
    }
    shapes |= {f"encoder.layer.{i}.{key}": shape for i in range(layers) for key, shape in _VIT_LAYER.items()}
    shapes |= {"layernorm.weight": (768,), "layernorm.bias": (768,)}
    return shapes | {"pooler.dense.weight": (768, 768), "pooler.dense.bias": (768,)}


def timesformer(frames: int, blocks: int = 12, classes: int = 400) -> Shapes:
    """TimeSformer-B of divided attention at 224×224; without `classes` no head."""
    shapes: Shapes = {
        "cls_token": (1, 1, 768),
        "pos_embed": (1, 197, 768),
        "time_embed": (1, frames, 768),
        "patch_embed.proj.weight": (768, 3, 16, 16),
        "patch_embed.proj.bias": (768,),
    }
    shapes |= {f"blocks.{i}.{key}": shape for i in range(blocks) for key, shape in _DIVIDED_BLOCK.items()}
    shapes |= {"norm.weight": (768,), "norm.bias": (768,)}
    return shapes | ({"head.weight": (classes, 768), "head.bias": (classes,)} if classes else {})


def sta(blocks: int = 4, window: int = 6, length: int = 5, relative: bool = True) -> Shapes:
    """STA's checkpoint: a bare state dict."""
    spatial = cct(blocks, 576)
    temporal = {key.removeprefix("classifier."): shape for key, shape in spatial.items() if key not in TOKENIZER}
    tables = {"rel_pos_h": 2 * window - 1, "rel_pos_w": 2 * window - 1, "rel_pos_t": 2 * length - 1}
    for i in range(blocks if relative else 0):
        temporal |= {f"blocks.{i}.self_attn.{name}": (size, 64) for name, size in tables.items()}
    return below("encoder.spatial.", spatial) | below("encoder.temporal.", temporal) | vlad("aggregator.", 384, 1)


def vlad(prefix: str, channels: int, axes: int, clusters: int = 64) -> Shapes:
    """A VLAD layer whose assignment is a 1×1 convolution of one or two axes."""
    return {f"{prefix}conv.weight": (clusters, channels, *[1] * axes), f"{prefix}centroids": (clusters, channels)}


def vgg16(prefix: str = "encoder.") -> Shapes:
    """VGG-16 through conv5_3, numbered as torchvision's `features`."""
    shapes: Shapes = {}
    for number, inputs, outputs in VGG_CONVOLUTIONS:
        shapes |= {f"{prefix}{number}.weight": (outputs, inputs, 3, 3), f"{prefix}{number}.bias": (outputs,)}
    return shapes


def resnet18(prefix: str = "encoder.") -> Shapes:
    """ResNet-18 through layer3, its children numbered in a row: 0 conv1, 1 bn1, 4 layer1, 5 layer2, 6 layer3."""
    shapes: Shapes = {f"{prefix}0.weight": (64, 3, 7, 7), **_batch_norm(f"{prefix}1.", 64)}
    widths = {4: (64, 64), 5: (64, 128), 6: (128, 256)}
    for stage, (inputs, outputs) in widths.items():
        for block in (0, 1):
            name, first = f"{prefix}{stage}.{block}.", inputs if block == 0 else outputs
            shapes |= {f"{name}conv1.weight": (outputs, first, 3, 3), **_batch_norm(f"{name}bn1.", outputs)}
            shapes |= {f"{name}conv2.weight": (outputs, outputs, 3, 3), **_batch_norm(f"{name}bn2.", outputs)}
            if first != outputs:
                shapes |= {f"{name}downsample.0.weight": (outputs, first, 1, 1)}
                shapes |= _batch_norm(f"{name}downsample.1.", outputs)
    return shapes


def _batch_norm(prefix: str, channels: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{prefix}{name}": (channels,) for name in names}, f"{prefix}num_batches_tracked": ()}
