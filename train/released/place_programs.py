"""Models of single frames that were trained for place recognition: SALAD, CliqueMining, MegaLoc, BoQ, MixVPR, CosPlace,
EigenPlaces, and JIST, which adds a generalised mean over frames to CosPlace; docs/methods.md#place-models.

Their files are read by name and shape into this program's own models; no code of theirs is run.
"""

from typing import Any

import torch

from train.models import registry as models
from train.models.encoders.weights import below
from train.released.encoders import ReleasedEncoder, read_dinov2, read_encoder, read_resnet
from train.released.reading import Reading, Tensors, UnreadableWeightsError, count_of, rename

_SALAD_RULES = (
    (r"^token_features\.", "pooling.whole."),
    (r"^cluster_features\.0\.", "pooling.token.0."),
    (r"^cluster_features\.3\.", "pooling.token.2."),
    (r"^score\.0\.", "pooling.score.0."),
    (r"^score\.3\.", "pooling.score.2."),
    (r"^dust_bin$", "pooling.dustbin"),
)
_BOQ_RULES = (
    (r"^proj_c\.", "pooling.project."),
    (r"^norm_input\.", "pooling.norm."),
    (r"^boqs\.(\d+)\.self_attn\.", r"pooling.blocks.\1.self_attention."),
    (r"^boqs\.(\d+)\.cross_attn\.", r"pooling.blocks.\1.cross_attention."),
    (r"^boqs\.(\d+)\.norm_q\.", r"pooling.blocks.\1.query_norm."),
    (r"^boqs\.(\d+)\.norm_out\.", r"pooling.blocks.\1.answer_norm."),
    (r"^boqs\.(\d+)\.(encoder\.|queries$)", r"pooling.blocks.\1.\2"),
    (r"^fc\.", "pooling.mix."),
)
_MIX_RULES = (
    (r"^mix\.(\d+)\.mix\.(\d)\.", r"pooling.mix.\1.\2."),
    (r"^channel_proj\.", "pooling.channels."),
    (r"^row_proj\.", "pooling.rows."),
)
_COSPLACE_RULES = ((r"^1\.p$", "pooling.p"), (r"^3\.", "projection."))


def read_salad(tensors: Tensors, frames: Tensors) -> Reading:
    """Read SALAD, or CliqueMining, whose model is the same: `backbone.model.*`, `aggregator.*`."""
    return _salad("salad", below(tensors, "backbone.model."), below(tensors, "aggregator."), {})


def read_megaloc(tensors: Tensors, frames: Tensors) -> Reading:
    """Read MegaLoc: `backbone.model.*`, in its newer file `backbone.*`; `aggregator.agg.*`, `aggregator.linear.*`."""
    encoder = below(tensors, "backbone.model.") or below(tensors, "backbone.")
    pooling, linear = (
        below(tensors, "aggregator.agg."),
        rename(below(tensors, "aggregator."), [("^linear", "projection")]),
    )
    options = {"projection": tensors["aggregator.linear.weight"].shape[0], "projection_trained": True}
    reading = _salad("megaloc", encoder, pooling, options)
    return _with(reading, {key: value for key, value in linear.items() if not key.startswith("agg.")})


def read_boq(tensors: Tensors, frames: Tensors) -> Reading:
    """Read Bag of Queries: `backbone.dino.*` or `backbone.net.*`, `aggregator.*`."""
    dino, pooling = below(tensors, "backbone.dino."), below(tensors, "aggregator.")
    encoder = read_dinov2(dino, final_norm=False) if dino else read_encoder(below(tensors, "backbone.net."))
    options = {
        "width": pooling["proj_c.weight"].shape[0],
        "queries": pooling["boqs.0.queries"].shape[1],
        "blocks": count_of(pooling, r"boqs\.(\d+)\."),
        "rows": pooling["fc.weight"].shape[0],
    }
    name = "boq-dinov2" if dino else f"boq-{encoder.backbone}"
    size = encoder.options["size"] if dino else (384, 384)
    return _reading(
        name, encoder, {"size": size, "pooling": "boq", "pooling_options": options}, rename(pooling, _BOQ_RULES)
    )


def read_mixvpr(tensors: Tensors, frames: Tensors) -> Reading:
    """Read MixVPR: `backbone.model.*`, `aggregator.*`.

    Raises:
        UnreadableWeightsError: For a map that is no square.
    """
    encoder, pooling = read_resnet(below(tensors, "backbone.model.")), below(tensors, "aggregator.")
    hidden, tokens = pooling["mix.0.mix.1.weight"].shape
    side = round(tokens**0.5)
    if side * side != tokens:
        raise UnreadableWeightsError(f"its map has {tokens} places, which are no square")
    options = {
        "channels": pooling["channel_proj.weight"].shape[0],
        "rows": pooling["row_proj.weight"].shape[0],
        "depth": count_of(pooling, r"mix\.(\d+)\."),
        "ratio": hidden / tokens,
    }
    state = rename(pooling, _MIX_RULES)
    # One release of the program has this bias, another has none.
    state.setdefault("pooling.rows.bias", torch.zeros(len(pooling["row_proj.weight"])))
    # A ResNet that is cut after layer3 halves its frames four times.
    made_for = {"size": (16 * side, 16 * side), "pooling": "mixvpr", "pooling_options": options}
    return _reading(f"mixvpr-{encoder.backbone}", encoder, made_for, state)


def read_cosplace(tensors: Tensors, frames: Tensors) -> Reading:
    """Read CosPlace: `backbone.*`, `aggregation.*`."""
    return _cosplace("cosplace", tensors)


def read_eigenplaces(tensors: Tensors, frames: Tensors) -> Reading:
    """Read EigenPlaces, whose model is that of CosPlace."""
    return _cosplace("eigenplaces", tensors)


def read_jist(tensors: Tensors, frames: Tensors) -> Reading:
    """Read JIST with its generalised mean over frames: `model.*` of CosPlace, and `seq_gem.p`."""
    reading = _cosplace("jist", below(tensors, "model."), {"fusion": "gem", "normalize": False})
    return _with(reading, {"fusion.p": tensors["seq_gem.p"]})


def _salad(method: str, backbone: Tensors, pooling: Tensors, options: dict[str, Any]) -> Reading:
    """SALAD's pooling behind DINOv2."""
    encoder = read_dinov2(backbone, final_norm=True)
    sizes = {
        "hidden": pooling["score.0.weight"].shape[0],
        "width": pooling["cluster_features.3.weight"].shape[0],
        "global_width": pooling["token_features.2.weight"].shape[0],
    }
    clusters = pooling["score.3.weight"].shape[0]
    options = {"pooling": "salad", "clusters": clusters, "pooling_options": sizes, **options}
    return _reading(method, encoder, options, rename(pooling, _SALAD_RULES))


def _cosplace(method: str, tensors: Tensors, options: dict[str, Any] | None = None) -> Reading:
    """CosPlace's model: GeM, a linear map and L2 behind a ResNet or VGG-16."""
    encoder, pooling = read_encoder(below(tensors, "backbone.")), below(tensors, "aggregation.")
    mapped = {"pooling": "gem", "projection": pooling["3.weight"].shape[0], "projection_trained": True}
    return _reading(
        f"{method}-{encoder.backbone}", encoder, {**mapped, **(options or {})}, rename(pooling, _COSPLACE_RULES)
    )


def _with(reading: Reading, state: dict[str, Any]) -> Reading:
    """A reading with more tensors."""
    return Reading(reading.model, reading.options, {**reading.state, **state}, reading.positions)


def _reading(name: str, encoder: ReleasedEncoder, options: dict[str, Any], state: dict[str, Any]) -> Reading:
    """The preset of this name where there is one, else the model by its parts; a window is the mean of its frames."""
    model = name if name in models.names() else "frames"
    options = {**encoder.options, "fusion": "mean", **options}
    return Reading(model, options, {**encoder.state, **state}, encoder.positions)
