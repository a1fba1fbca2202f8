"""Presets: every row of the papers' tables by name, and small models for a CPU. It is plain data, without PyTorch.

A name of late or intermediate fusion is method-backbone, such as "seqvlad-r18"; the options are those of
`train.models.frame_model.FrameOptions`. STA's and early fusion's stand below, with the options of their modules.
"""

from typing import Any

from train.models.place_models import PLACE_MODELS, dinov2

Options = dict[str, Any]

# Dropout of attention in training, as in the public program; its stochastic depth is the encoder's default.
_CCT: Options = {"encoder_options": {"attn_drop_rate": 0.1}, "freeze_ends": True}
_CCT384: Options = {"encoder": "cct_14_7x2_384", "size": (384, 384), "final_norm": True, **_CCT}


BACKBONES: dict[str, Options] = {
    "r18": {"encoder": "resnet18", "cut": "layer3", "trainable": "layer3", "size": (480, 640)},
    "r50": {"encoder": "resnet50", "cut": "layer3", "trainable": "layer3", "size": (480, 640)},
    # features.28 is conv5_3, its ReLU (29) and pool (30) left out; features.24 is conv5_1.
    "vgg16": {"encoder": "vgg16", "cut": "features.28", "trainable": "features.24", "size": (480, 640)},
    "vit": {
        "encoder": "vit_base_patch16_224",
        "trainable": "blocks.8",
        "size": (224, 224),
        "encoder_options": {"dynamic_img_size": True},
    },
    "cct224": {"encoder": "cct_14_7x2_224", "trainable": "blocks.2", "size": (224, 224), **_CCT},
    # 8 of 14 blocks; tokenizer, positions, blocks 0 and 1 and the final LayerNorm are frozen.
    "cct384": {"cut": "blocks.7", "trainable": "blocks.2", **_CCT384},
    # The SeqVLAD that Zhang et al. compare with: 4 blocks, all trained; the rest is frozen.
    "cct384-four": {"cut": "blocks.3", "trainable": "blocks.0", **_CCT384},
    # Frozen encoders of a CPU's size, whose weights come with timm's names; ours.
    "mobilenetv2": {"encoder": "mobilenetv2_100", "trainable": "none", "size": (224, 224)},
    "efficientnet": {"encoder": "tf_efficientnet_lite0", "trainable": "none", "size": (224, 224)},
    # The older name of dinov2-b.
    "dinov2": dinov2("base", "blocks.8"),
    "dinov2-s": dinov2("small", "blocks.8"),
    "dinov2-b": dinov2("base", "blocks.8"),
    "dinov2-l": dinov2("large", "blocks.20"),
    "dinov3-s": {"encoder": "vit_small_patch16_dinov3", "trainable": "blocks.8", "size": (224, 224)},
    "dinov3-b": {"encoder": "vit_base_patch16_dinov3", "trainable": "blocks.8", "size": (224, 224)},
    "dinov3-l": {"encoder": "vit_large_patch16_dinov3", "trainable": "blocks.20", "size": (224, 224)},
    "small": {"encoder": "resnet18", "cut": "layer2", "patch_normalised": True},
}
"""Encoder, cut, first trained stage and image size of each backbone; docs/methods.md#encoders."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Pixel statistics by which Mereu et al. normalise every backbone, their ViT too; timm's data give .5 and .5 for it."""

PAPER_STARTS: dict[str, Options] = {
    # torchvision's files, which the papers' programs load. timm's untagged names mean newer training of its own.
    "r18": {"encoder": "resnet18.tv_in1k"},
    "r50": {"encoder": "resnet50.tv_in1k"},
    "vgg16": {"encoder": "vgg16.tv_in1k"},
    # The weights behind google/vit-base-patch16-224-in21k.
    "vit": {"encoder": "vit_base_patch16_224.orig_in21k", "freeze_ends": True, **IMAGENET},
}
"""Start weights and pixel statistics of the papers' own methods; methods of ours take what timm takes."""

PAPER_METHODS: dict[str, Options] = {
    "seqvlad": {"pooling": "vlad", "fusion": "sum"},
    "netvlad": {"pooling": "netvlad", "fusion": "centre"},
    "netvlad-cat": {"pooling": "netvlad", "fusion": "cat"},
    "netvlad-fc": {"pooling": "netvlad", "fusion": "fc"},
    "gem-cat": {"pooling": "gem", "fusion": "cat"},
    "cls-cat": {"pooling": "cls", "fusion": "cat"},
    "cls-fc": {"pooling": "cls", "fusion": "fc"},
    "seqpool-cat": {"pooling": "seqpool", "fusion": "cat"},
    "seqnet": {"pooling": "netvlad", "projection": 4096, "fusion": "seqnet"},
    "seqmatchnet": {"pooling": "netvlad", "projection": 4096, "fusion": "aligned"},
    # Delta has nothing to learn, and training its encoder through it is no method of the papers.
    "delta": {"pooling": "netvlad", "projection": 4096, "fusion": "delta", "trainable": "none"},
    # Named in sec. II of Mereu et al. without settings; docs/methods.md#beyond.
    "lstm": {"pooling": "gem", "fusion": "lstm", "width": 512},
}
"""Pooling and fusion of each method that the papers name."""

PAPER_WHOLE_MODELS = ("sta", "timesformer", "r2plus1d")
"""Models of the papers that are no pooling and fusion; their presets stand in their own modules."""

METHODS: dict[str, Options] = {
    **PAPER_METHODS,
    # From here on ours; docs/methods.md#beyond.
    "mean": {"pooling": "avg", "fusion": "mean"},
    "avg-mean": {"pooling": "avg", "fusion": "mean"},
    "seqgem": {"pooling": "avg", "fusion": "gem"},
    "avg-cat": {"pooling": "avg", "fusion": "cat"},
    "salad-mean": {"pooling": "salad", "fusion": "mean"},
    "boq-mean": {"pooling": "boq", "fusion": "mean"},
}
"""Pooling and fusion of each method."""

DINO = ("dinov2-s", "dinov2-b", "dinov2-l", "dinov3-s", "dinov3-b", "dinov3-l")
"""Self-supervised ViTs, small, base and large."""

ROWS: dict[str, tuple[str, ...]] = {
    "seqvlad": (
        *("r18", "r50", "vgg16", "vit", "cct224", "cct384", "cct384-four"),
        *("mobilenetv2", "efficientnet", "dinov2", *DINO, "small"),
    ),
    "netvlad": ("r18", "r50", "vgg16", "mobilenetv2", "small"),
    "netvlad-cat": ("r18", "r50", "mobilenetv2", "small"),
    "netvlad-fc": ("r18", "r50", "small"),
    "gem-cat": ("r18", "r50", "mobilenetv2", "small"),
    "cls-cat": ("vit", "dinov2", *DINO),
    "cls-fc": ("vit",),
    "seqpool-cat": ("cct224", "cct384"),
    "seqnet": ("vgg16", "r18", "r50", "cct224", "cct384", "small"),
    "seqmatchnet": ("vgg16", "r18", "r50", "small"),
    "delta": ("vgg16", "r18", "r50", "small"),
    "lstm": ("r18", "small"),
    "mean": ("r18", "vit", "mobilenetv2", "efficientnet", "dinov2", *DINO, "small"),
    "seqgem": ("r18", "mobilenetv2", "efficientnet", "dinov2", *DINO, "small"),
    "avg-mean": ("mobilenetv2",),
    "avg-cat": ("mobilenetv2", "efficientnet", "dinov2", *DINO),
    "salad-mean": ("dinov2", *DINO, "small"),
    "boq-mean": DINO,
}
"""Backbones that a method is offered with by name; any other combination that fits is named with --option."""

ALIASES = {"delta": "delta-vgg16", "netvlad": "netvlad-vgg16", "seqmatchnet": "seqmatchnet-vgg16"}
"""Methods by their bare name, with the backbone of their papers."""

EXCEPTIONS: dict[str, Options] = {
    "seqvlad-mobilenetv2": {"cut": "blocks.4", "trainable": "all", "size": (240, 320)},
    "seqvlad-small": {"cut": "layer1", "clusters": 32},
    "netvlad-small": {"clusters": 16},
    "netvlad-cat-small": {"clusters": 16},
    "netvlad-fc-small": {"clusters": 16, "width": 512},
    "seqnet-small": {"clusters": 16, "projection": 256, "width": 256},
    "seqmatchnet-small": {"clusters": 16, "projection": 256, "width": 256},
    "delta-small": {"clusters": 16, "projection": 256},
    "lstm-small": {"width": 256},
    "salad-mean-small": {"clusters": 16, "pooling_options": {"global_from": "mean"}},
}
"""What differs from method and backbone put together."""

PAPER_PAIRS = {(method["pooling"], method["fusion"]) for method in PAPER_METHODS.values()}
"""Poolings and fusions whose vectors the papers' programs compare as PCA leaves them."""

# What the paper's program does beyond its text. Its stacks are the first 4 of CCT's 14 blocks, whose stochastic depth
# rises from 0 to .1.
_STA_PRACTICE = {"freeze_ends": True, "vlad_start": "spatial", "attention_dropout": 0.1, "drop_path": 0.1 * 3 / 13}
STA: dict[str, Options] = {
    "sta": _STA_PRACTICE,
    "sta-spatial": {"branches": "spatial", **_STA_PRACTICE},
    "sta-temporal": {"branches": "temporal", **_STA_PRACTICE},
    "sta-small": {
        "encoder": "resnet18",
        "cut": "layer1",
        "trainable": "all",
        "patch_normalised": True,
        "size": (32, 64),
        "blocks": 1,
        "heads": 4,
        "window": 4,
        "stride": 2,
        "clusters": 32,
    },
}
"""Presets of STA."""

# The official program starts from this file, timm's "jx"; Mereu et al. normalise by ImageNet's statistics.
TIMESFORMER: dict[str, Options] = {
    "timesformer": {
        "encoder": "vit_base_patch16_224.orig_in21k_ft_in1k",
        "encoder_options": {"drop_path_rate": 0.1},  # of the last block, rising from 0
        "time_resize": "nearest",
        **IMAGENET,
    }
}
"""Preset of TimeSformer."""

# torchvision's weights, as behind the other ResNets of that paper.
_RESNET50 = {"encoder": "resnet50.tv_in1k", "cut": "layer3", "size": (480, 640)}
R2PLUS1D: dict[str, Options] = {
    "r2plus1d-r50": _RESNET50,
    "r2plus1d-r18": {**_RESNET50, "encoder": "resnet18.tv_in1k"},
    "r2plus1d-small": {"encoder": "resnet18", "cut": "layer2", "patch_normalised": True},
}
"""Presets of ResNet (2+1)D."""


def frame_presets() -> dict[str, Options]:
    """Return the options of every late and intermediate fusion preset by name."""
    presets = {
        name: {**_backbone(backbone, method), **METHODS[method], **EXCEPTIONS.get(name, {})}
        for method, backbones in ROWS.items()
        for backbone in backbones
        for name in (f"{method}-{backbone}",)
    }
    return {**presets, **{name: presets[full_name] for name, full_name in ALIASES.items()}, **PLACE_MODELS}


def _backbone(name: str, method: str) -> Options:
    """A backbone as a method starts from it."""
    return {**BACKBONES[name], **(PAPER_STARTS.get(name, {}) if method in PAPER_METHODS else {})}


def is_paper_method(model: str) -> bool:
    """Whether a model's name is that of one of the papers' presets: METHOD, or METHOD-….

    Vectors of those are not normalised again after a PCA. Models record it (`normalise_after_pca`); of runs that were
    stored before they did, the name decides.

    >>> is_paper_method("sta-small"), is_paper_method("stacked")
    (True, False)
    """
    return any(model == method or model.startswith(f"{method}-") for method in (*PAPER_METHODS, *PAPER_WHOLE_MODELS))
