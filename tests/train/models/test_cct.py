"""CCT-14/7×2 against a literal version that reads the public checkpoints' names."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from seqdata.errors import ContractError
from tests.support.released_names import CCT_BLOCK, TOKENIZER
from train.models import registry as models
from train.models.card import outline
from train.models.encoders.cct import rename_public
from train.models.encoders.encoder import Encoder
from train.models.encoders.weights import load_file


def public_state(side: Any) -> Any:
    """A state dict with the names and shapes of the public ImageNet checkpoints, filled at random."""
    shapes = TOKENIZER | {
        "classifier.positional_emb": (1, (side // 16) ** 2, 384),
        "classifier.attention_pool.weight": (1, 384),
        "classifier.attention_pool.bias": (1,),
        "classifier.norm.weight": (384,),
        "classifier.norm.bias": (384,),
        "classifier.fc.weight": (1000, 384),
        "classifier.fc.bias": (1000,),
    }
    shapes |= {f"classifier.blocks.{i}.{key}": shape for i in range(14) for key, shape in CCT_BLOCK.items()}
    generator = torch.Generator().manual_seed(0)
    return {key: 0.05 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def literal(state: Any, frames: Any, blocks: int = 14, norm: bool = True) -> Any:
    """Tokens by the words of the specification, one head at a time, from the public names."""
    maps = frames
    for i in (0, 1):
        maps = F.conv2d(maps, state[f"tokenizer.conv_layers.{i}.0.weight"], stride=2, padding=3).clamp(min=0)
        maps = F.max_pool2d(maps, 3, 2, 1)
    x = maps.flatten(2).transpose(1, 2) + state["classifier.positional_emb"]
    for i in range(blocks):
        p = {key: state[f"classifier.blocks.{i}.{key}"] for key in CCT_BLOCK}
        normed = F.layer_norm(x, (384,), p["pre_norm.weight"], p["pre_norm.bias"])
        q, k, v = (normed @ p["self_attn.qkv.weight"].T).chunk(3, -1)
        heads = []
        for head in range(6):
            part = slice(64 * head, 64 * head + 64)
            share = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(64)).softmax(-1)
            heads.append(share @ v[..., part])
        x = x + torch.cat(heads, -1) @ p["self_attn.proj.weight"].T + p["self_attn.proj.bias"]
        x = F.layer_norm(x, (384,), p["norm1.weight"], p["norm1.bias"])
        inner = F.gelu(x @ p["linear1.weight"].T + p["linear1.bias"])
        x = x + inner @ p["linear2.weight"].T + p["linear2.bias"]
    return F.layer_norm(x, (384,), state["classifier.norm.weight"], state["classifier.norm.bias"]) if norm else x


@pytest.mark.parametrize("side", [224, 384])
def test_a_public_checkpoint_gives_the_tokens_of_the_literal_version(side: Any, tmp_path: Path) -> None:
    state = public_state(side)
    torch.save(state, tmp_path / "cct.pth")
    encoder = Encoder(f"cct_14_7x2_{side}", weights=tmp_path / "cct.pth").eval()
    frames = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames), literal(state, frames), atol=2e-4, rtol=1e-3)
    assert encoder.mean == (0.485, 0.456, 0.406)


def test_the_cut_keeps_eight_blocks_and_trains_six() -> None:
    encoder = Encoder("cct_14_7x2_384", cut="blocks.7", trainable="blocks.2")
    trained = {name.split(".")[1] for name, p in encoder.backbone.named_parameters() if p.requires_grad}
    blocks = {name.split(".")[1] for name, _ in encoder.backbone.named_parameters() if name.startswith("blocks.")}
    assert blocks == {str(i) for i in range(8)} and trained - {"weight", "bias"} == {str(i) for i in range(2, 8)}
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 384, 384)).shape == (1, 576, 384)


def test_behind_the_cut_stands_the_final_norm(tmp_path: Path) -> None:
    """A literal encoder of eight blocks and the norm, as both papers' programs cut it."""
    state = public_state(384)
    torch.save(state, tmp_path / "cct.pth")
    options = {"clusters": 4, "size": (384, 384)}
    model = models.create("seqvlad-cct384", weights=tmp_path / "cct.pth", **options)
    frames = torch.randint(0, 256, (1, 3, 384, 384), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        pixels = model.preprocess(frames)
        torch.testing.assert_close(model.tokens(frames), literal(state, pixels, blocks=8), atol=2e-4, rtol=1e-3)
        # What was stored before the option existed has no norm, whatever its preset says by now.
        old = {key: value for key, value in model.config.items() if key != "final_norm"}
        again = models.restore({**old, "weights": str(tmp_path / "cct.pth")})
        expected = literal(state, pixels, blocks=8, norm=False)
        torch.testing.assert_close(again.tokens(frames), expected, atol=2e-4, rtol=1e-3)
        assert models.restore(model.config).config == model.config


def test_the_final_norm_is_frozen_where_blocks_are() -> None:
    model = outline("seqvlad-cct384")
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 8_917_248  # of the authors' program: blocks 2 to 7 and the VLAD layer
    assert not [name for name in trained if name.startswith("encoder.backbone.norm.")]
    whole = Encoder("cct_14_7x2_384", cut="blocks.3", final_norm=True)
    assert all(p.requires_grad for p in whole.backbone.norm.parameters())
    with pytest.raises(ContractError, match="'resnet10t' has no LayerNorm at its end; leave final_norm unset"):
        Encoder("resnet10t", cut="layer1", final_norm=True)
    assert models.resolve("seqvlad-cct384", {"encoder": "resnet10t"}).final_norm is False


def test_a_cut_vit_ends_in_its_norm_too() -> None:
    whole, cut = Encoder("test_vit"), Encoder("test_vit", cut="blocks.5", final_norm=True)
    frames = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(cut.eval()(frames), whole.eval()(frames))  # the cut is behind its last block


def test_both_public_addresses() -> None:
    urls = [timm.get_pretrained_cfg(f"cct_14_7x2_{side}").url for side in (224, 384)]
    assert [url.split("/checkpoints/")[1] for url in urls] == [
        "pretrained/cct_14_7x2_224_imagenet.pth",
        "finetuned/cct_14_7x2_384_imagenet.pth",
    ]


def test_seqpool_starts_from_the_checkpoint(tmp_path: Path) -> None:
    state = public_state(224)
    torch.save({"state_dict": state}, tmp_path / "cct.pth")
    model = models.create("seqpool-cat-cct224", weights=tmp_path / "cct.pth")
    torch.testing.assert_close(model.pooling.attention.weight, state["classifier.attention_pool.weight"])
    assert not any("attention_pool" in key for key in model.state_dict())


def test_another_image_size_interpolates_positions() -> None:
    encoder = Encoder("cct_14_7x2_224")
    with torch.no_grad():
        assert encoder(torch.zeros(2, 3, 64, 96)).shape == (2, 24, 384)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = public_state(224)
    del state["classifier.blocks.3.norm1.weight"]
    torch.save(state, tmp_path / "cct.pth")
    with pytest.raises(ContractError, match=r"1 missing \(blocks.3.norm.weight\)"):
        load_file(timm.create_model("cct_14_7x2_224"), tmp_path / "cct.pth")
    ours = timm.create_model("cct_14_7x2_224").state_dict()
    assert rename_public(ours).keys() == ours.keys()
