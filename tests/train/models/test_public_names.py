"""Public backbone files under `--weights`: names written out, tokens against a literal version of each program."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqdata.errors import ContractError
from tests.support import released_literal as literal
from tests.support import released_names as names
from train.models.encoders.encoder import Encoder

_DINO_BLOCK: names.Shapes = {
    **{f"{norm}.{kind}": (384,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
    "attn.qkv.weight": (1152, 384),
    "attn.qkv.bias": (1152,),
    "attn.proj.weight": (384, 384),
    "attn.proj.bias": (384,),
    "ls1.gamma": (384,),
    "mlp.fc1.weight": (1536, 384),
    "mlp.fc1.bias": (1536,),
    "mlp.fc2.weight": (384, 1536),
    "mlp.fc2.bias": (384,),
    "ls2.gamma": (384,),
}


def dinov2(registers: int) -> names.Shapes:
    """Meta's dinov2_vits14_pretrain.pth, or dinov2_vits14_reg4_pretrain.pth: trained at 518 pixels, 37×37 patches."""
    shapes: names.Shapes = {"cls_token": (1, 1, 384), "pos_embed": (1, 1 + 37 * 37, 384), "mask_token": (1, 384)}
    shapes |= {"register_tokens": (1, registers, 384)} if registers else {}
    shapes |= {"patch_embed.proj.weight": (384, 3, 14, 14), "patch_embed.proj.bias": (384,)}
    shapes |= {f"blocks.{i}.{key}": shape for i in range(12) for key, shape in _DINO_BLOCK.items()}
    return shapes | {"norm.weight": (384,), "norm.bias": (384,)}


def literal_dinov2(state: dict[str, Tensor], frames: Tensor, registers: int) -> Tensor:
    """Patch tokens behind the last norm (`x_norm_patchtokens`); registers stand behind the CLS, without positions."""
    patches = F.conv2d(frames, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    grid = patches.shape[-2:]
    maps = state["pos_embed"][:, 1:].transpose(1, 2).reshape(1, 384, 37, 37)
    positions = F.interpolate(maps, size=grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    cls = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(frames), -1, -1)
    extra = [state["register_tokens"].expand(len(frames), -1, -1)] if registers else []
    x = torch.cat([cls, *extra, patches.flatten(2).transpose(1, 2) + positions], 1)
    for i in range(12):
        p = literal.part(state, f"blocks.{i}.")
        q, k, v = literal.linear(literal.norm(x, p, "norm1", 1e-6), p, "attn.qkv").chunk(3, -1)
        x = x + p["ls1.gamma"] * literal.linear(literal.attend(q, k, v, 6), p, "attn.proj")
        inner = F.gelu(literal.linear(literal.norm(x, p, "norm2", 1e-6), p, "mlp.fc1"))
        x = x + p["ls2.gamma"] * literal.linear(inner, p, "mlp.fc2")
    return literal.norm(x, state, "norm", 1e-6)[:, 1 + registers :]


def tokens(name: str, file: Path, frames: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = Encoder(name, weights=file, **options).eval()(frames)
    return out


@pytest.mark.parametrize(("name", "registers"), [("vit_small_patch14_dinov2", 0), ("vit_small_patch14_reg4_dinov2", 4)])
def test_dinov2_with_and_without_registers_on_another_grid(name: str, registers: int, tmp_path: Path) -> None:
    state = names.filled(dinov2(registers))
    torch.save(state, tmp_path / "dinov2.pth")
    frames = torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    got = tokens(name, tmp_path / "dinov2.pth", frames, options={"img_size": (28, 42)})
    torch.testing.assert_close(got, literal_dinov2(state, frames, registers), atol=2e-4, rtol=1e-3)


def test_registers_do_not_fit_a_model_without_them(tmp_path: Path) -> None:
    torch.save(names.filled(dinov2(4)), tmp_path / "dinov2.pth")
    with pytest.raises(ContractError, match=r"do not fit VisionTransformer.*unexpected \(mask_token, register_tokens"):
        Encoder("vit_small_patch14_dinov2", weights=tmp_path / "dinov2.pth")


def test_torchvision_s_vgg_with_its_classifier(tmp_path: Path) -> None:
    shapes = {key.replace("encoder.", "features."): shape for key, shape in names.vgg16().items()}
    shapes |= {"classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,)}
    shapes |= {"classifier.3.weight": (4096, 4096), "classifier.3.bias": (4096,)}
    shapes |= {"classifier.6.weight": (1000, 4096), "classifier.6.bias": (1000,)}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    state |= names.filled({key: shape for key, shape in shapes.items() if key.startswith("features.")})
    torch.save(state, tmp_path / "vgg16-00000000.pth")
    frames = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    got = tokens("vgg16.tv_in1k", tmp_path / "vgg16-00000000.pth", frames, cut="features.28")
    torch.testing.assert_close(got, literal.vgg16(literal.part(state, "features."), frames), atol=2e-4, rtol=1e-3)


def test_hugging_face_s_vit(tmp_path: Path) -> None:
    """pytorch_model.bin of ViTModel, and that of a model around it, with the prefix `vit.`."""
    state = names.filled(names.hugging_face_vit())
    frames = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    torch.save(state, tmp_path / "pytorch_model.bin")
    got = tokens("vit_base_patch16_224.orig_in21k", tmp_path / "pytorch_model.bin", frames)
    with torch.no_grad():
        torch.testing.assert_close(got, literal.vit(state, frames)[:, 1:], atol=2e-4, rtol=1e-3)
