"""Programs whose models are functions of per-frame features: vg-transformers, NetVLAD, SeqNet and SeqMatchNet.

vg-transformers is the program of Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place
Recognition, RA-L 2022; the SeqVLAD that Zhang et al. compare STA with has its names too. NetVLAD is the PyTorch program
behind the frame vectors of Garg and Milford, SeqNet, RA-L 2021, and of Garg et al., SeqMatchNet, CoRL 2021.
"""

from typing import Any

from torch import Tensor

from train.models import registry as models
from train.models.encoders.weights import below
from train.released.encoders import ReleasedEncoder, read_encoder
from train.released.reading import Reading, Rules, Tensors, UnreadableWeightsError, above, rename

_VLAD_RULES = (
    (r"^conv\.weight$", "pooling.assignment"),
    (r"^conv\.bias$", "pooling.bias"),
    (r"^centroids$", "pooling.centres"),
)
# Beginnings of the keys behind the encoder that a method has; FC's map may follow each.
_LOOKED_AT = {"seqvlad": ("aggregator.",), "netvlad": ("pooling.",), "gem": ("pooling.1.p",)}


def read_vg_transformers(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a checkpoint of vg-transformers: `encoder.*`, `pooling.*`, `aggregator.*`.

    Raises:
        UnreadableWeightsError: For an encoder or a pooling that has no model here.
    """
    encoder = read_encoder(below(tensors, "encoder."))
    pooling, aggregator = below(tensors, "pooling."), below(tensors, "aggregator.")
    name, options, state = _pooling(encoder, pooling, aggregator)
    looked_at = (*_LOOKED_AT.get(name, ()), "aggregator.1.")
    others = {**above(pooling, "pooling."), **above(aggregator, "aggregator.")}
    state |= {key: value for key, value in others.items() if not key.startswith(looked_at)}
    fully_connected = aggregator.get("1.weight")
    if fully_connected is not None:
        width, inputs = fully_connected.shape
        features = encoder.channels * (options["clusters"] if name == "netvlad" else 1)
        options |= {"fusion": "fc", "width": width, "length": max(1, inputs // features)}
        state |= {"fusion.linear.weight": fully_connected, "fusion.linear.bias": aggregator["1.bias"]}
    return _reading("seqvlad" if name == "seqvlad" else f"{name}-{options['fusion']}", encoder, options, state)


def read_netvlad(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a NetVLAD checkpoint: `encoder.*`, `pool.*` and, where a PCA was added, `WPCA.0.*`.

    Raises:
        UnreadableWeightsError: For an encoder that is none of the papers'.
    """
    encoder, pool = read_encoder(below(tensors, "encoder.")), below(tensors, "pool.")
    if "centroids" not in pool:
        raise UnreadableWeightsError("its pooling is not NetVLAD (no pool.centroids)")
    options: dict[str, Any] = {"pooling": "netvlad", "fusion": "centre", **_words(pool)}
    state = rename(pool, _VLAD_RULES)
    if "WPCA.0.weight" in tensors:
        options["projection"] = tensors["WPCA.0.weight"].shape[0]
        state |= rename(below(tensors, "WPCA."), [(r"^0\.", "projection.")])
    return _reading("netvlad", encoder, options, state)


def read_seqnet(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a checkpoint of SeqNet, `pool.0.conv.*`, behind the NetVLAD checkpoint of its frame vectors."""
    weight = tensors["pool.0.conv.weight"]
    options = {"fusion": "seqnet", "width": weight.shape[0], "kernel": weight.shape[2]}
    return _behind(frames, "seqnet", options, below(tensors, "pool.0."), [(r"^conv\.", "fusion.conv.")])


def read_seqmatchnet(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a checkpoint of SeqMatchNet, `pool.1.conv.*`, behind the NetVLAD checkpoint of its frame vectors."""
    # DataParallel wraps the pooling alone.
    pool = below(tensors, "pool.module.") or below(tensors, "pool.")
    options = {"fusion": "aligned", "width": pool["1.conv.weight"].shape[0]}
    return _behind(frames, "seqmatchnet", options, below(pool, "1."), [(r"^conv\.", "fusion.linear.")])


def _behind(frames: Tensors, method: str, options: dict[str, Any], head: Tensors, rules: Rules) -> Reading:
    """A head behind the frame model of another file."""
    base = read_netvlad(frames, {})
    preset = f"{method}-{base.model.partition('-')[2]}"
    name = preset if preset in models.names() else "frames"
    return Reading(name, {**base.options, **options}, {**base.state, **rename(head, rules)})


def _pooling(
    encoder: ReleasedEncoder, pooling: Tensors, aggregator: Tensors
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Name, options and tensors of what makes vectors of tokens."""
    if "centroids" in aggregator:
        return "seqvlad", {"pooling": "vlad", "fusion": "sum", **_words(aggregator)}, rename(aggregator, _VLAD_RULES)
    if "centroids" in pooling:
        return "netvlad", {"pooling": "netvlad", "fusion": "cat", **_words(pooling)}, rename(pooling, _VLAD_RULES)
    if "1.p" in pooling:
        return "gem", {"pooling": "gem", "fusion": "cat"}, {"pooling.p": pooling["1.p"]}
    if encoder.backbone == "vit":
        return "cls", {"pooling": "cls", "fusion": "cat"}, {}
    if encoder.attention:
        attention = rename(encoder.attention, [(r"^attention_pool\.", "pooling.attention.")])
        return "seqpool", {"pooling": "seqpool", "fusion": "cat"}, attention
    raise UnreadableWeightsError(
        "its pooling has no weights: SPoC, MAC and R-MAC cannot be told apart and are not read; SeqVLAD, NetVLAD, GeM, "
        "SeqPool and CLS are"
    )


def _words(vlad: Tensors) -> dict[str, Any]:
    """Options that a VLAD layer's tensors decide."""
    return {"clusters": vlad["centroids"].shape[0], "bias": "conv.bias" in vlad}


def _reading(method: str, encoder: ReleasedEncoder, options: dict[str, Any], state: dict[str, Tensor]) -> Reading:
    """The preset of a method on a backbone where there is one, else the model by its parts."""
    preset = f"{method}-{encoder.backbone}"
    name = preset if preset in models.names() else "frames"
    return Reading(name, {**encoder.options, **options}, {**encoder.state, **state})
