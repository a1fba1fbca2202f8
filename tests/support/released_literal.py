"""What the public programs compute, step by step, from the names and tensors of their own files."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.released_names import VGG_CONVOLUTIONS

State = dict[str, Tensor]
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)


def normalised(frames: Tensor) -> Tensor:
    """Frames (N, 3, H, W) of 0…255, by ImageNet's statistics."""
    return (frames / 255.0 - IMAGENET[0]) / IMAGENET[1]


def part(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def norm(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention head by head over (B, N, C)."""
    size, out = q.shape[-1] // heads, []
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        logits = q[..., columns] @ k[..., columns].transpose(1, 2) / math.sqrt(size)
        if bias is not None:
            logits = logits + bias[:, head]
        out.append(logits.softmax(-1) @ v[..., columns])
    return torch.cat(out, -1)


def tokenize(state: State, frames: Tensor) -> Tensor:
    """CCT's tokens (N, T, 384), without positions."""
    maps = frames
    for i in (0, 1):
        maps = F.conv2d(maps, state[f"tokenizer.conv_layers.{i}.0.weight"], stride=2, padding=3).clamp(min=0)
        maps = F.max_pool2d(maps, 3, 2, 1)
    return maps.flatten(2).transpose(1, 2)


def cct_block(x: Tensor, p: State) -> Tensor:
    """A block of CCT on (N, T, 384)."""
    q, k, v = (norm(x, p, "pre_norm") @ p["self_attn.qkv.weight"].T).chunk(3, -1)
    x = norm(x + linear(attend(q, k, v, 6), p, "self_attn.proj"), p, "norm1")
    return x + linear(F.gelu(linear(x, p, "linear1")), p, "linear2")


def cct(state: State, frames: Tensor, blocks: int) -> Tensor:
    """Tokens of a cut CCT, whose forward pass still ends in the norm."""
    x = tokenize(state, frames) + state["classifier.positional_emb"]
    for i in range(blocks):
        x = cct_block(x, part(state, f"classifier.blocks.{i}."))
    return norm(x, state, "classifier.norm")


def vit(state: State, frames: Tensor, layers: int = 12, eps: float = 1e-6) -> Tensor:
    """Hugging Face's ViT: all tokens, the CLS first; its own `eps` is 1e-12, timm's 1e-6."""
    x = F.conv2d(
        frames,
        state["embeddings.patch_embeddings.projection.weight"],
        state["embeddings.patch_embeddings.projection.bias"],
        stride=16,
    )
    x = torch.cat([state["embeddings.cls_token"].expand(len(frames), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + state["embeddings.position_embeddings"]
    for i in range(layers):
        p = part(state, f"encoder.layer.{i}.")
        y = norm(x, p, "layernorm_before", eps)
        q, k, v = (linear(y, p, f"attention.attention.{name}") for name in ("query", "key", "value"))
        x = x + linear(attend(q, k, v, 12), p, "attention.output.dense")
        y = norm(x, p, "layernorm_after", eps)
        x = x + linear(F.gelu(linear(y, p, "intermediate.dense")), p, "output.dense")
    return norm(x, state, "layernorm", eps)


def timesformer(state: State, window: Tensor, blocks: int = 12) -> Tensor:
    """The CLS token (768,) of one window (L, 3, 224, 224)."""
    length = len(window)
    x = F.conv2d(window, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2) + state["pos_embed"][:, 1:]
    learnt = state["time_embed"][0]
    rows = [i * len(learnt) // length for i in range(length)]  # nearest
    x = x + learnt[rows][:, None]
    cls = (state["cls_token"] + state["pos_embed"][:, :1])[0, 0]
    for i in range(blocks):
        p = part(state, f"blocks.{i}.")
        places = x.transpose(0, 1)  # (T, L, C): a place over the frames
        q, k, v = linear(norm(places, p, "temporal_norm1", 1e-6), p, "temporal_attn.qkv").chunk(3, -1)
        mixed = linear(linear(attend(q, k, v, 12), p, "temporal_attn.proj"), p, "temporal_fc")
        x = x + mixed.transpose(0, 1)
        frames = torch.cat([cls.expand(length, 1, -1), x], 1)
        q, k, v = linear(norm(frames, p, "norm1", 1e-6), p, "attn.qkv").chunk(3, -1)
        mixed = linear(attend(q, k, v, 12), p, "attn.proj")
        cls, x = cls + mixed[:, 0].mean(0), x + mixed[:, 1:]
        cls, x = (y + linear(F.gelu(linear(norm(y, p, "norm2", 1e-6), p, "mlp.fc1")), p, "mlp.fc2") for y in (cls, x))
    return norm(cls, state, "norm", 1e-6)


def sta(state: State, window: Tensor, blocks: int, side: int = 6, stride: int = 3) -> Tensor:
    """STA's descriptor of one window (5, 3, 384, 384)."""
    spatial, temporal = part(state, "encoder.spatial."), part(state, "encoder.temporal.")
    tokens = tokenize(spatial, window)
    x = tokens + spatial["classifier.positional_emb"]
    y = tokens if "blocks.0.self_attn.rel_pos_h" in temporal else tokens + temporal["positional_emb"]
    for i in range(blocks):
        x = cct_block(x, part(spatial, f"classifier.blocks.{i}."))
        y = _temporal_block(y, part(temporal, f"blocks.{i}."), side, stride)
    fused = norm(x, spatial, "classifier.norm") + norm(y, temporal, "norm")
    return vlad(fused.flatten(0, 1), state["aggregator.conv.weight"].squeeze(), state["aggregator.centroids"])


def _temporal_block(x: Tensor, p: State, side: int, stride: int) -> Tensor:
    """A block whose attention runs over windows of side×side tokens of all frames; overlaps are summed."""
    length, mixed = len(x), torch.zeros_like(x)
    normed = norm(x, p, "pre_norm")
    for top in range(0, 24 - side + 1, stride):
        for left in range(0, 24 - side + 1, stride):
            at = torch.tensor([(top + r) * 24 + left + c for r in range(side) for c in range(side)])
            q, k, v = (normed[:, at].flatten(0, 1)[None] @ p["self_attn.qkv.weight"].T).chunk(3, -1)
            bias = _relative(q, p, length, side) if "self_attn.rel_pos_h" in p else None
            out = linear(attend(q, k, v, 6, bias), p, "self_attn.proj")
            mixed[:, at] += out.view(length, side * side, -1)
    x = norm(x + mixed, p, "norm1")
    return x + linear(F.gelu(linear(x, p, "linear1")), p, "linear2")


def _relative(q: Tensor, p: State, length: int, side: int) -> Tensor:
    """q·R_row + q·R_column + q·R_time of every pair of tokens: (1, heads, N, N)."""
    index = torch.arange(length * side * side)
    axes = {"t": index // side**2, "h": index // side % side, "w": index % side}
    heads = q.view(1, len(index), 6, 64).transpose(1, 2)
    total = torch.zeros(1, 6, len(index), len(index))
    for axis, at in axes.items():
        table = p[f"self_attn.rel_pos_{axis}"]
        vectors = table[at[:, None] - at[None, :] + len(table) // 2]
        total = total + torch.einsum("bhnd,nmd->bhnm", heads, vectors)
    return total


def vgg16(state: State, frames: Tensor) -> Tensor:
    """Local features (N, T, 512) of VGG-16, behind conv5_3 and before its ReLU."""
    x, pools = frames, {4: 2, 9: 7, 16: 14, 23: 21}
    for number, _, _ in VGG_CONVOLUTIONS:
        x = F.conv2d(x, state[f"{number}.weight"], state[f"{number}.bias"], padding=1)
        if number != 28:
            x = x.relu()
        if number in pools.values():
            x = F.max_pool2d(x, 2)
    return x.flatten(2).transpose(1, 2)


def resnet18(state: State, frames: Tensor) -> Tensor:
    """Local features (N, T, 256) of ResNet-18 behind layer3."""
    x = F.max_pool2d(_batch_norm(F.conv2d(frames, state["0.weight"], stride=2, padding=3), state, "1").relu(), 3, 2, 1)
    for stage in (4, 5, 6):
        for block in (0, 1):
            p = part(state, f"{stage}.{block}.")
            stride = 2 if block == 0 and stage > 4 else 1
            y = _batch_norm(F.conv2d(x, p["conv1.weight"], stride=stride, padding=1), p, "bn1").relu()
            y = _batch_norm(F.conv2d(y, p["conv2.weight"], padding=1), p, "bn2")
            if "downsample.0.weight" in p:
                x = _batch_norm(F.conv2d(x, p["downsample.0.weight"], stride=stride), p, "downsample.1")
            x = (x + y).relu()
    return x.flatten(2).transpose(1, 2)


def _batch_norm(x: Tensor, p: State, name: str) -> Tensor:
    mean, var, weight, bias = (
        p[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def vlad(tokens: Tensor, weight: Tensor, centroids: Tensor, bias: Tensor | None = None) -> Tensor:
    """VLAD of tokens (T, C) cluster by cluster: (K·C,)."""
    unit = F.normalize(tokens, dim=-1)
    logits = unit @ weight.T
    share = (logits if bias is None else logits + bias).softmax(-1)
    rows = [F.normalize((share[:, k, None] * (unit - centroids[k])).sum(0), dim=0) for k in range(len(centroids))]
    return F.normalize(torch.cat(rows), dim=0)


def gem(tokens: Tensor, p: Tensor) -> Tensor:
    """GeM of (T, C) tokens, each of unit length: (C,)."""
    return F.normalize(tokens, dim=-1).clamp(min=1e-6).pow(p).mean(0).pow(1.0 / p)
