"""Dropout and stochastic depth of the Transformers, as the public programs train them; none of it at test time."""

import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn

from train.models import registry as models
from train.models.card import outline
from train.models.encoders.cct import Attention
from train.models.sta.attention import BlockSizes, STABlock


def rates(model: nn.Module, below: str) -> list[float]:
    """Rates of stochastic depth in the order of the blocks; 0 is no layer at all."""
    return [float(m.drop_prob) for name, m in model.named_modules() if isinstance(m, DropPath) and below in name]


@pytest.mark.parametrize("name", ["seqvlad-cct384", "seqvlad-cct384-four", "seqpool-cat-cct224"])
def test_cct_drops_attention_and_depth_as_the_public_program(name: str) -> None:
    model = outline(name)
    dropout = {module.dropout for module in model.modules() if isinstance(module, Attention)}
    blocks = {"seqvlad-cct384": 8, "seqvlad-cct384-four": 4}.get(name, 14)
    assert dropout == {0.1}
    assert rates(model, "blocks") == pytest.approx([0.1 * i / 13 for i in range(1, blocks)], abs=1e-6)


@pytest.mark.parametrize("name", ["sta", "sta-spatial", "sta-temporal"])
def test_sta_drops_as_the_first_blocks_of_cct(name: str) -> None:
    model = outline(name)
    stacks = [
        stack for stack in ("spatial", "temporal") if any(True for key in dict(model.named_modules()) if key == stack)
    ]
    assert len(stacks) == (2 if name == "sta" else 1)
    for stack in stacks:
        assert rates(model, f"{stack}.") == pytest.approx([0.1 * i / 13 for i in (1, 2, 3)], abs=1e-6)
    assert {module.dropout for module in model.modules() if isinstance(module, Attention)} == {0.1}


def test_timesformer_drops_depth_from_none_to_a_tenth() -> None:
    model = outline("timesformer")
    in_order = [
        float(block.block.drop_path1.drop_prob) if isinstance(block.block.drop_path1, DropPath) else 0.0
        for block in model.blocks
    ]
    assert in_order == pytest.approx([0.1 * i / 11 for i in range(12)], abs=1e-6)


@pytest.mark.parametrize("name", ["seqvlad-cct384", "sta", "timesformer"])
def test_a_model_stored_before_is_trained_without(name: str) -> None:
    """Its configuration holds no rate, or the encoder options that it had."""
    family, _ = models.preset(name)
    config = {key: value for key, value in outline(name).config.items() if key not in family.added}
    earlier = models.restore({**config, "encoder_options": {}} if "encoder_options" in config else config)
    assert {module.dropout for module in earlier.modules() if isinstance(module, Attention)} <= {0.0}
    assert name == "seqvlad-cct384" or rates(earlier, "") == []


def test_attention_weights_are_dropped_in_training_only() -> None:
    """Of one token the weight is 1: it comes out doubled or not at all."""
    attention = Attention(4, 2, dropout=0.5)
    nn.init.eye_(attention.proj.weight)
    nn.init.zeros_(attention.proj.bias)
    tokens = torch.randn(64, 1, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        value = attention.split_heads(tokens)[2].transpose(1, 2).reshape(64, 2, 2)
        torch.manual_seed(0)
        out = attention.train()(tokens).reshape(64, 2, 2)
        dropped, doubled = (out == 0).all(-1), torch.isclose(out, 2 * value, atol=1e-6).all(-1)
        assert bool((dropped | doubled).all()) and bool(dropped.any()) and bool(doubled.any())
        torch.testing.assert_close(attention.eval()(tokens).reshape(64, 2, 2), value)


def test_stochastic_depth_leaves_frames_of_a_window_out() -> None:
    """As in the public program, whose rows are frames: with both branches dropped a frame comes out normalised only."""
    block = STABlock(sizes=BlockSizes(8, 2, 12, drop_path=0.5))
    tokens = torch.randn(4, 5, 3, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with torch.no_grad():
        out = block.train().forward_grid(tokens, (1, 3))
        untouched = torch.isclose(out, block.norm(tokens), atol=1e-6).all(-1).all(-1)
    assert any(0 < int(window.sum()) < 5 for window in untouched)


def test_stochastic_depth_of_timesformer_leaves_prefix_and_grid_of_a_window_out_together() -> None:
    model = models.create("timesformer", encoder="test_vit", size=(32, 48), encoder_options={"drop_path_rate": 0.9})
    block = model.blocks[-1]
    nn.init.zeros_(block.block.attn.proj.weight)
    nn.init.zeros_(block.block.attn.proj.bias)
    prefix, grid = torch.randn(16, 1, 64), torch.randn(16, 2, 6, 64)
    torch.manual_seed(0)
    with torch.no_grad():
        out_prefix, out_grid = block.train()(prefix, grid)
    same_prefix = torch.isclose(out_prefix, prefix).all(-1).all(-1)
    assert torch.equal(same_prefix, torch.isclose(out_grid, grid).all(-1).all(-1).all(-1))
    assert bool(same_prefix.any()) and not bool(same_prefix.all())
