"""Names and shapes in the files of models of places: SALAD, MegaLoc, BoQ, MixVPR, CosPlace, JIST, written out."""

from tests.support.released_names import Shapes, _batch_norm, below


def linear(name: str, out: int, inputs: int, axes: int = 0) -> Shapes:
    """A linear map, or a convolution of 1×1 where it has `axes`."""
    return {f"{name}.weight": (out, inputs, *[1] * axes), f"{name}.bias": (out,)}


def norm(name: str, channels: int) -> Shapes:
    """A LayerNorm."""
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def dinov2(blocks: int = 12, channels: int = 768, side: int = 37) -> Shapes:
    """Meta's DINOv2 without registers, at 518×518."""
    shapes: Shapes = {
        "cls_token": (1, 1, channels),
        "pos_embed": (1, 1 + side**2, channels),
        "mask_token": (1, channels),
        "patch_embed.proj.weight": (channels, 3, 14, 14),
        "patch_embed.proj.bias": (channels,),
    }
    for i in range(blocks):
        block = norm("norm1", channels) | norm("norm2", channels)
        block |= linear("attn.qkv", 3 * channels, channels) | linear("attn.proj", channels, channels)
        block |= linear("mlp.fc1", 4 * channels, channels) | linear("mlp.fc2", channels, 4 * channels)
        block |= {"ls1.gamma": (channels,), "ls2.gamma": (channels,)}
        shapes |= below(f"blocks.{i}.", block)
    return shapes | norm("norm", channels)


def salad_head(prefix: str, channels: int = 768, width: int = 128, hidden: int = 512) -> Shapes:
    """SALAD's aggregator of 64 clusters."""
    shapes = linear("token_features.0", hidden, channels) | linear("token_features.2", 256, hidden)
    shapes |= linear("cluster_features.0", hidden, channels, 2) | linear("cluster_features.3", width, hidden, 2)
    shapes |= linear("score.0", hidden, channels, 2) | linear("score.3", 64, hidden, 2) | {"dust_bin": ()}
    return below(prefix, shapes)


def salad(blocks: int = 12, channels: int = 768) -> Shapes:
    """dino_salad.ckpt; CliqueMining's file holds the same under `state_dict`."""
    return below("backbone.model.", dinov2(blocks, channels)) | salad_head("aggregator.", channels)


def megaloc(blocks: int = 12, channels: int = 768, out: int = 8448, newer: bool = False) -> Shapes:
    """megaloc.torch; the newer file on the hub has another prefix, and no mask token."""
    backbone = dinov2(blocks, channels)
    if newer:
        backbone = {key: shape for key, shape in backbone.items() if key != "mask_token"}
    shapes = below("backbone." if newer else "backbone.model.", backbone)
    shapes |= salad_head("aggregator.agg.", channels, width=256)
    return shapes | linear("aggregator.linear", out, 256 + 64 * 256)


def boq_head(channels: int, width: int, rows: int = 32) -> Shapes:
    """BoQ's aggregator of two blocks of 64 queries."""
    shapes: Shapes = {"proj_c.weight": (width, channels, 3, 3), "proj_c.bias": (width,)} | norm("norm_input", width)
    for i in (0, 1):
        block: Shapes = {"queries": (1, 64, width)}
        for name in ("encoder.self_attn", "self_attn", "cross_attn"):
            block |= {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
            block |= linear(f"{name}.out_proj", width, width)
        block |= linear("encoder.linear1", 4 * width, width) | linear("encoder.linear2", width, 4 * width)
        for name in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
            block |= norm(name, width)
        shapes |= below(f"boqs.{i}.", block)
    return below("aggregator.", shapes | linear("fc", rows, 2 * 64))


def boq_dinov2(blocks: int = 12, channels: int = 768, width: int = 384) -> Shapes:
    """dinov2_12288.pth."""
    return below("backbone.dino.", dinov2(blocks, channels)) | boq_head(channels, width)


def bottlenecks(names: dict[str, str], blocks: tuple[int, ...] = (3, 4, 6)) -> Shapes:
    """ResNet-50 through as many stages as `blocks` has numbers; `names` of its parts."""
    shapes: Shapes = {f"{names['conv1']}.weight": (64, 3, 7, 7), **_batch_norm(f"{names['bn1']}.", 64)}
    inputs = 64
    for stage, count in enumerate(blocks, 1):
        width = 32 * 2**stage
        for i in range(count):
            block = {"conv1.weight": (width, inputs, 1, 1), "conv2.weight": (width, width, 3, 3)}
            block |= {"conv3.weight": (4 * width, width, 1, 1)}
            block |= _batch_norm("bn1.", width) | _batch_norm("bn2.", width) | _batch_norm("bn3.", 4 * width)
            if i == 0:
                block |= {"downsample.0.weight": (4 * width, inputs, 1, 1), **_batch_norm("downsample.1.", 4 * width)}
            shapes |= below(f"{names[f'layer{stage}']}.{i}.", block)
            inputs = 4 * width
    return shapes


IN_A_ROW = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
BY_NAME = {name: name for name in IN_A_ROW}


def boq_r50() -> Shapes:
    """resnet50_16384.pth."""
    return below("backbone.net.", bottlenecks(IN_A_ROW)) | boq_head(1024, 512)


def mixvpr(channels: int = 1024, rows: int = 4, side: int = 20) -> Shapes:
    """resnet50_MixVPR_4096_channels(1024)_rows(4).ckpt."""
    places = side**2
    shapes: Shapes = {}
    for i in range(4):
        layer = norm("0", places) | linear("1", places, places) | linear("3", places, places)
        shapes |= below(f"mix.{i}.mix.", layer)
    shapes |= linear("channel_proj", channels, 1024) | linear("row_proj", rows, places)
    return below("backbone.model.", bottlenecks(BY_NAME)) | below("aggregator.", shapes)


def cosplace_r50(out: int = 2048) -> Shapes:
    """ResNet50_2048_cosplace.pth, and EigenPlaces' file."""
    shapes = below("backbone.", bottlenecks(IN_A_ROW, (3, 4, 6, 3)))
    return shapes | {"aggregation.1.p": (1,)} | linear("aggregation.3", out, 2048)


def cosplace_r18(prefix: str = "", out: int = 512) -> Shapes:
    """ResNet18_512_cosplace.pth, which JIST's file holds under `model.`."""
    shapes: Shapes = {"0.weight": (64, 3, 7, 7), **_batch_norm("1.", 64)}
    inputs = 64
    for stage, width in ((4, 64), (5, 128), (6, 256), (7, 512)):
        for i in (0, 1):
            block = {"conv1.weight": (width, inputs, 3, 3), "conv2.weight": (width, width, 3, 3)}
            block |= _batch_norm("bn1.", width) | _batch_norm("bn2.", width)
            if inputs != width:
                block |= {"downsample.0.weight": (width, inputs, 1, 1), **_batch_norm("downsample.1.", width)}
            shapes |= below(f"{stage}.{i}.", block)
            inputs = width
    head: Shapes = {"aggregation.1.p": (1,)} | linear("aggregation.3", out, 512)
    return below(prefix, below("backbone.", shapes) | head)


def jist() -> Shapes:
    """JIST's best_model.pth."""
    return cosplace_r18("model.") | {"seq_gem.p": (1,)}
