"""Programs whose models see whole windows: STA and TimeSformer.

STA is the program of Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place
Recognition; TimeSformer that of Bertasius et al., Is Space-Time Attention All You Need for Video Understanding?, ICML
2021, whose model Mereu et al. use inside vg-transformers.
"""

from typing import Any

from torch import Tensor

from train.models.encoders.weights import below
from train.released.reading import Reading, Tensors, UnreadableWeightsError, count_of, rename

# CCT's blocks inside STA, with relative positions by time, rows and columns.
_BLOCK = r"^(spatial|temporal)\.blocks\.(\d+)\."
_STA_RULES = (
    (r"^encoder\.spatial\.tokenizer\.conv_layers\.(\d)\.0\.", r"encoder.\1.0."),
    (_BLOCK + r"self_attn\.rel_pos_t$", r"\1.blocks.\2.attention.relative.tables.0"),
    (_BLOCK + r"self_attn\.rel_pos_h$", r"\1.blocks.\2.attention.relative.tables.1"),
    (_BLOCK + r"self_attn\.rel_pos_w$", r"\1.blocks.\2.attention.relative.tables.2"),
    (_BLOCK + r"self_attn\.", r"\1.blocks.\2.attention."),
    (_BLOCK + r"norm1\.", r"\1.blocks.\2.norm."),
    (_BLOCK + r"linear1\.", r"\1.blocks.\2.mlp.0."),
    (_BLOCK + r"linear2\.", r"\1.blocks.\2.mlp.2."),
    (r"^(spatial|temporal)\.positional_emb$", r"\1.place"),
    (r"^aggregator\.conv\.weight$", "pooling.assignment"),
    (r"^aggregator\.centroids$", "pooling.centres"),
)
_STACKS = ((r"^encoder\.spatial\.classifier\.", "spatial."), (r"^encoder\.temporal\.", "temporal."))
_TABLE = "temporal.blocks.0.attention.relative.tables."

_DIVIDED = r"^blocks\.(\d+)\."
_TIMESFORMER_RULES = (
    (r"^time_embed$", "time"),
    (_DIVIDED + r"temporal_norm1\.", r"blocks.\1.time_norm."),
    (_DIVIDED + r"temporal_attn\.", r"blocks.\1.time_attention."),
    (_DIVIDED + r"temporal_fc\.", r"blocks.\1.time_map."),
    (_DIVIDED + r"(norm1|attn|norm2|mlp)\.", r"blocks.\1.block.\2."),
    (r"^(cls_token|pos_embed|patch_embed\..*|norm\..*)$", r"vit.\1"),
)


def read_sta(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a checkpoint of STA: `encoder.spatial.*`, `encoder.temporal.*`, `aggregator.*`.

    Raises:
        UnreadableWeightsError: For spatial relative positions, which reach across frames there, or stacks that differ.
    """
    state = rename(rename(tensors, _STACKS), _STA_RULES)
    stacks = [count_of(state, rf"{stack}\.blocks\.(\d+)\.") for stack in ("spatial", "temporal")]
    if stacks[0] != stacks[1]:
        raise UnreadableWeightsError(
            f"its stacks have {stacks[0]} and {stacks[1]} blocks; models here have as many in both"
        )
    if any(key.startswith("spatial.blocks.0.attention.relative") for key in state):
        raise UnreadableWeightsError(
            "its spatial stack has relative positions, which reach across frames there, not here"
        )
    options: dict[str, Any] = {"blocks": stacks[0], "clusters": state["pooling.centres"].shape[0]}
    if f"{_TABLE}0" in state:
        # Tables hold 2n − 1 distances of n frames, rows or columns.
        length, window = ((state[f"{_TABLE}{axis}"].shape[0] + 1) // 2 for axis in (0, 1))
        state.pop("temporal.place", None)  # there, but not added where positions are relative
        return Reading("sta", {**options, "length": length, "window": window, "stride": max(1, window // 2)}, state)
    # Absolute positions within the grid, and none in time.
    length = 5
    time = state["temporal.place"].new_zeros(1, length, 1, state["temporal.place"].shape[-1])
    options |= {"temporal_position": "absolute", "length": length}
    return Reading("sta", options, {**state, "temporal.time": time})


def read_timesformer(tensors: Tensors, frames: Tensors) -> Reading:
    """Read a TimeSformer-B checkpoint, its own (K400, K600) or one of vg-transformers.

    Raises:
        UnreadableWeightsError: For space-only or joint attention.
    """
    state: dict[str, Tensor] = below(tensors, "encoder.model.") or below(tensors, "model.") or dict(tensors)
    if "time_embed" not in state or "blocks.0.temporal_fc.weight" not in state:
        raise UnreadableWeightsError("its attention is not divided into space and time (no temporal_fc)")
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5) * state["patch_embed.proj.weight"].shape[-1]
    options = {"length": state["time_embed"].shape[1], "size": (side, side)}
    return Reading("timesformer", options, rename(state, _TIMESFORMER_RULES))
