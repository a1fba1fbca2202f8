"""What the programs of models of places compute, step by step, from the names and tensors of their own files."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.released_literal import State, _batch_norm, attend, gem, linear, norm, part


def dinov2(state: State, frames: Tensor, heads: int, final_norm: bool = True) -> Tensor:
    """All tokens (N, 1 + T, C) of Meta's DINOv2, the CLS first; positions by its own way of resampling."""
    x = F.conv2d(frames, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    rows, columns = x.shape[-2:]
    x = torch.cat([state["cls_token"].expand(len(frames), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    learnt = state["pos_embed"]
    side = math.isqrt(learnt.shape[1] - 1)
    grid = learnt[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        scale = (float(rows + 0.1) / side, float(columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
    x = x + torch.cat([learnt[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    i = 0
    while f"blocks.{i}.norm1.weight" in state:
        p = part(state, f"blocks.{i}.")
        q, k, v = linear(norm(x, p, "norm1", 1e-6), p, "attn.qkv").chunk(3, -1)
        x = x + p["ls1.gamma"] * linear(attend(q, k, v, heads), p, "attn.proj")
        x = x + p["ls2.gamma"] * linear(F.gelu(linear(norm(x, p, "norm2", 1e-6), p, "mlp.fc1")), p, "mlp.fc2")
        i += 1
    return norm(x, state, "norm", 1e-6) if final_norm else x


def _map(x: Tensor, p: State, name: str) -> Tensor:
    """A 1×1 convolution of one or two axes, as a matrix."""
    return x @ p[f"{name}.weight"].flatten(1).T + p[f"{name}.bias"]


def salad(tokens: Tensor, p: State) -> Tensor:
    """SALAD of the tokens (1 + T, C) of one frame, CLS first; transport by plain products of exponentials."""
    cls, local = tokens[0], tokens[1:]
    scores = _map(_map(local, p, "score.0").relu(), p, "score.3").T
    features = _map(_map(local, p, "cluster_features.0").relu(), p, "cluster_features.3")
    clusters, count = scores.shape
    table = torch.cat([scores, p["dust_bin"].expand(1, count)]).exp()
    mass = torch.tensor([1.0] * clusters + [float(count - clusters)], dtype=table.dtype) / (clusters + count)
    for _ in range(3):
        table = table * (mass / table.sum(1))[:, None]
        table = table * (1.0 / (clusters + count) / table.sum(0))[None]
    table = table * (clusters + count)
    rows = [F.normalize((table[k][:, None] * features).sum(0), dim=0) for k in range(clusters)]
    whole = F.normalize(linear(linear(cls, p, "token_features.0").relu(), p, "token_features.2"), dim=0)
    # The numbers of all clusters stand side by side, channel after channel.
    return F.normalize(torch.cat([whole, torch.stack(rows, dim=1).flatten()]), dim=0)


def _attention(query: Tensor, context: Tensor, p: State, name: str) -> Tensor:
    """Multi-head attention with heads of 64 numbers, as torch names its parts."""
    weight, bias = p[f"{name}.in_proj_weight"].chunk(3), p[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, context, context), weight, bias, strict=True))
    return linear(attend(q, k, v, query.shape[-1] // 64), p, f"{name}.out_proj")


def boq(grid: Tensor, p: State) -> Tensor:
    """BoQ of one frame's map (C, h, w)."""
    x = F.conv2d(grid[None], p["proj_c.weight"], p["proj_c.bias"], padding=1)
    x = norm(x.flatten(2).transpose(1, 2), p, "norm_input")
    answers = []
    for i in (0, 1):
        b = part(p, f"boqs.{i}.")
        x = norm(x + _attention(x, x, b, "encoder.self_attn"), b, "encoder.norm1")
        x = norm(x + linear(linear(x, b, "encoder.linear1").relu(), b, "encoder.linear2"), b, "encoder.norm2")
        q = b["queries"]
        q = norm(q + _attention(q, q, b, "self_attn"), b, "norm_q")
        answers.append(norm(_attention(q, x, b, "cross_attn"), b, "norm_out"))
    return F.normalize(linear(torch.cat(answers, 1)[0].T, p, "fc").flatten(), dim=0)


def mixvpr(tokens: Tensor, p: State) -> Tensor:
    """MixVPR of one frame's tokens (T, C)."""
    x = tokens.T
    for i in range(4):
        y = linear(norm(x, p, f"mix.{i}.mix.0"), p, f"mix.{i}.mix.1").relu()
        x = x + linear(y, p, f"mix.{i}.mix.3")
    x = linear(x.T, p, "channel_proj").T
    return F.normalize(linear(x, p, "row_proj").flatten(), dim=0)


def cosplace(tokens: Tensor, p: State) -> Tensor:
    """CosPlace of one frame's tokens (T, C)."""
    return F.normalize(linear(gem(tokens, p["1.p"]), p, "3"), dim=0)


def resnet(state: State, frames: Tensor, stages: tuple[str, ...]) -> Tensor:
    """Local features (N, T, C) of a ResNet of either form; `stages` names conv1, bn1, layer1 and so on."""
    first, bn, *layers = stages
    x = _batch_norm(F.conv2d(frames, state[f"{first}.weight"], stride=2, padding=3), state, bn).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for number, stage in enumerate(layers):
        i = 0
        while f"{stage}.{i}.conv1.weight" in state:
            p, stride = part(state, f"{stage}.{i}."), 2 if i == 0 and number else 1
            is_bottleneck = "conv3.weight" in p
            y = F.conv2d(x, p["conv1.weight"], stride=1 if is_bottleneck else stride, padding=0 if is_bottleneck else 1)
            y = _batch_norm(y, p, "bn1").relu()
            y = F.conv2d(y, p["conv2.weight"], stride=stride if is_bottleneck else 1, padding=1)
            y = _batch_norm(y, p, "bn2")
            if is_bottleneck:
                y = _batch_norm(F.conv2d(y.relu(), p["conv3.weight"]), p, "bn3")
            if "downsample.0.weight" in p:
                x = _batch_norm(F.conv2d(x, p["downsample.0.weight"], stride=stride), p, "downsample.1")
            x, i = (x + y).relu(), i + 1
    return x.flatten(2).transpose(1, 2)
