"""Presets of models that describe single frames for place recognition, and were trained for it or need no training.

A window is the mean of its frames but in JIST and AnyLoc. Released weights are read by `train.released`;
docs/methods.md#place-models.
"""

from typing import Any

Options = dict[str, Any]


def dinov2(size: str, trainable: str) -> Options:
    """List the options of DINOv2 on frames of 224×224.

    Args:
        size: "small", "base", "large" or "giant".
        trainable: First part that is trained, as of `train.models.frame_model.FrameOptions`.
    """
    return {
        "encoder": f"vit_{size}_patch14_dinov2",
        "trainable": trainable,
        "size": (224, 224),
        "encoder_options": {"dynamic_img_size": True},
    }


_RESNET50 = {"encoder": "resnet50.tv_in1k", "cut": "layer3", "trainable": "layer3"}
# Behind DINOv2 at the size of pixels that its authors test with; positions are fitted to it when a file is read.
_DINOV2_322: Options = {**dinov2("base", "blocks.8"), "size": (322, 322), "encoder_options": {"img_size": (322, 322)}}
_SALAD: Options = {**_DINOV2_322, "pooling": "salad", "fusion": "mean"}

PLACE_MODELS: dict[str, Options] = {
    "salad": _SALAD,
    # SALAD's model, trained on batches of places that are hard to tell apart.
    "cliquemining": _SALAD,
    "megaloc": {**_SALAD, "pooling_options": {"width": 256}, "projection": 8448, "projection_trained": True},
    # Without the last norm, as its authors' program reads DINOv2.
    "boq-dinov2": {**_DINOV2_322, "cut": "blocks.11", "trainable": "blocks.10", "pooling": "boq", "fusion": "mean"},
    "boq-r50": {
        **_RESNET50,
        "size": (384, 384),
        "pooling": "boq",
        "pooling_options": {"width": 512},
        "fusion": "mean",
    },
    "mixvpr-r50": {**_RESNET50, "size": (320, 320), "pooling": "mixvpr", "fusion": "mean"},
    **{
        f"{method}-{name}": {
            "encoder": f"{encoder}.tv_in1k",
            "trainable": "layer3",
            "size": (480, 640),
            **{"pooling": "gem", "projection": 512, "projection_trained": True, "fusion": "mean"},
        }
        for method in ("cosplace", "eigenplaces")
        for name, encoder in (("r18", "resnet18"), ("r50", "resnet50"))
    },
    # Vectors go raw from the generalised mean into the loss.
    "jist-r18": {
        "encoder": "resnet18.tv_in1k",
        "trainable": "layer4",
        "size": (480, 640),
        **{"pooling": "gem", "projection": 512, "projection_trained": True, "fusion": "gem", "normalize": False},
    },
    # Nothing is trained: VLAD words come from the dataset's frames. Layer 31 of 40 in the paper's giant model; the same
    # share of the depth of smaller ones is ours.
    **{
        f"anyloc-dinov2-{letter}": {
            **dinov2(size, "none"),
            **{"cut": f"blocks.{layer}", "facet": "value", "pooling": "vlad", "pooling_options": {"hard": True}},
            **{"clusters": 32, "fusion": "sum"},
        }
        for letter, size, layer in (("s", "small", 9), ("b", "base", 9), ("l", "large", 18), ("g", "giant", 31))
    },
}
"""Options of each preset."""

DOWNLOADED = {"salad", "megaloc", "boq-dinov2", "cosplace-r50", "eigenplaces-r50"}
"""Presets whose released file `seqdata import` finds by itself; of the others it is named."""


def import_kind(name: str) -> str | None:
    """Name the kind of `seqdata import` that reads the released weights of a preset, None where there are none.

    Example:
        >>> import_kind("boq-r50"), import_kind("anyloc-dinov2-b"), import_kind("seqvlad-r18")
        ('boq', None, None)
    """
    kind = name.partition("-")[0]
    return kind if name in PLACE_MODELS and kind != "anyloc" else None


def import_command(name: str) -> str | None:
    """Write the command that reads the released weights of a preset, None where there are none.

    Example:
        >>> import_command("megaloc"), import_command("boq-r50")
        ('seqdata import megaloc --out RUN', 'seqdata import boq FILE --out RUN')
    """
    kind = import_kind(name)
    return None if kind is None else f"seqdata import {kind}{'' if name in DOWNLOADED else ' FILE'} --out RUN"
