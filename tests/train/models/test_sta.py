"""STA's windows, relative positions and branches against literal versions."""

import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from seqdata.errors import ContractError
from train.models import registry as models
from train.models.encoders.cct import Block
from train.models.sta.attention import BlockSizes, PositionedAttention, RelativePositions, STABlock
from train.models.sta.windows import lay_windows
from train.runs import checkpoint

PAIRS = [(4, 2), (4, 3), (6, 2), (6, 3), (6, 4), (8, 3), (8, 4), (8, 5)]
SMALL = {"encoder": "resnet10t", "size": (16, 32), "clusters": 3, "window": 2, "stride": 1}


def randn(*shape: Any, seed: Any = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "stride"), PAIRS)
@pytest.mark.parametrize("grid", [(24, 24), (5, 9), (3, 2)])
def test_every_token_is_covered(side: Any, stride: Any, grid: Any) -> None:
    windows = lay_windows(grid, side, stride)
    held = set(windows.tokens[windows.inside].tolist())
    assert held == set(range(grid[0] * grid[1])) and float(windows.cover.min()) >= 1


def test_windows_that_tile_are_a_plain_unfold() -> None:
    windows = lay_windows((24, 24), 6, 3)
    assert windows.tokens.shape == (49, 36) and bool(windows.inside.all())
    plain = torch.arange(576).view(24, 24).unfold(0, 6, 3).unfold(1, 6, 3).reshape(49, 36)
    assert torch.equal(windows.tokens, plain)
    assert not bool(lay_windows((24, 24), 6, 4).inside.all())


@pytest.mark.parametrize(("side", "stride"), [(2, 1), (3, 2), (4, 3)])
def test_cut_and_merge(side: Any, stride: Any) -> None:
    grid, maps = (5, 6), randn(2, 3, 30, 4)
    windows = lay_windows(grid, side, stride)
    cut = windows.cut(maps)
    assert cut.shape == (2, len(windows.tokens), 3 * side * side, 4)
    torch.testing.assert_close(windows.merge(cut, 3, mean=True), maps)
    torch.testing.assert_close(windows.merge(cut, 3, mean=False), maps * windows.cover[:, None])
    first = [maps[1, t, row * 6 + column] for t in range(3) for row in range(side) for column in range(side)]
    torch.testing.assert_close(cut[1, 0], torch.stack(first))


def literal_attention(layer: Any, tokens: Any, shape: Any, scaled: Any = False) -> Any:
    """Logit by logit: q·k/√d + q·R_t + q·R_h + q·R_w."""
    places = [(t, h, w) for t in range(shape[0]) for h in range(shape[1]) for w in range(shape[2])]
    q, k, v = layer.split_heads(tokens)
    batch, heads, count, d = q.shape
    out = torch.zeros(batch, heads, count, d)
    for b in range(batch):
        for z in range(heads):
            for i, here in enumerate(places):
                logits = []
                for j, there in enumerate(places):
                    relative = 0.0
                    for table, a, c in zip(layer.relative.tables, here, there, strict=True):
                        reach = len(table) // 2
                        relative += float(q[b, z, i] @ table[max(-reach, min(reach, a - c)) + reach])
                    content = float(q[b, z, i] @ k[b, z, j]) / math.sqrt(d)
                    logits.append(content + relative / (math.sqrt(d) if scaled else 1))
                share = torch.tensor(logits).softmax(0)
                out[b, z, i] = share @ v[b, z]
    return layer.join_heads(out)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("extents", [(2, 2, 3), (1, 2, 2)])
def test_relative_positions_logit_by_logit(extents: Any, scaled: Any) -> None:
    """With tables as long as the box, and with shorter ones, whose farthest vector then counts."""
    relative = RelativePositions(extents, 4)
    for table in relative.tables:
        nn.init.normal_(table)
    layer = PositionedAttention(8, 2, relative, scaled)
    tokens, shape = randn(2, 12, 8), (2, 2, 3)
    with torch.no_grad():
        got, wanted = layer.attend(tokens, shape), literal_attention(layer, tokens, shape, scaled)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


SIZES = BlockSizes(8, 2, 12)


def test_one_window_over_the_grid_is_plain_space_time_attention() -> None:
    block = STABlock(windows=lay_windows((4, 4), 4, 1), relative=RelativePositions((3, 4, 4), 4), sizes=SIZES).eval()
    plain = STABlock(relative=block.attention.relative, sizes=SIZES).eval()
    plain.load_state_dict(block.state_dict())
    tokens = randn(2, 3, 16, 8)
    with torch.no_grad():
        torch.testing.assert_close(block.forward_grid(tokens, (4, 4)), plain.forward_grid(tokens, (4, 4)))


def test_without_positions_it_is_a_block_over_all_tokens() -> None:
    block = STABlock(sizes=SIZES).eval()
    same = Block(8, 2, 12).eval()
    same.load_state_dict(block.state_dict())
    tokens = randn(2, 3, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(block.forward_grid(tokens, (2, 3)), same(tokens.flatten(1, 2)).view_as(tokens))


def test_padding_changes_nothing_inside_a_window() -> None:
    """A window that hangs over the edge attends to the tokens inside only."""
    block = STABlock(windows=lay_windows((2, 2), 3, 3), sizes=SIZES).eval()
    tokens = randn(1, 2, 4, 8)
    with torch.no_grad():
        got = block.attention.attend(tokens.flatten(1, 2), (2, 2, 2)).view_as(tokens)
        torch.testing.assert_close(block._attend(tokens, (2, 2)), got, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", ["none", "absolute", "relative"])
@pytest.mark.parametrize("branches", ["both", "spatial", "temporal"])
def test_switches_train_save_and_reload(branches: Any, position: Any, tmp_path: Path) -> None:
    switches = {"branches": branches, "spatial_position": position, "temporal_position": position}
    model = models.create("sta-small", **SMALL, **switches)
    windows = torch.randint(0, 256, (2, 3, 3, 16, 32), generator=torch.Generator().manual_seed(1))
    out = model.train()(windows)
    assert out.shape == (2, model.descriptor_size(3))
    out.pow(3).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    checkpoint.save_model(tmp_path / "m", model, {})
    again = checkpoint.load_model(tmp_path / "m")
    torch.testing.assert_close(again(windows), model.eval()(windows), rtol=0, atol=0)
    alone = torch.cat([again(window.unsqueeze(0)) for window in windows])
    torch.testing.assert_close(again(windows), alone, atol=1e-5, rtol=1e-4)
    assert again(windows[:, :1]).shape == again(windows.repeat(1, 3, 1, 1, 1)).shape == out.shape


def test_spatial_alone_is_free_of_frame_order_and_the_temporal_branch_is_not() -> None:
    windows = torch.randint(0, 256, (1, 4, 3, 16, 32), generator=torch.Generator().manual_seed(1))
    for branches, free in (("spatial", True), ("temporal", False), ("both", False)):
        model = models.create("sta-small", **SMALL, branches=branches)
        for name, table in model.named_parameters():
            if "relative" in name:
                nn.init.normal_(table)
        with torch.no_grad():
            same = torch.allclose(model(windows), model(windows.flip(1)), atol=1e-5)
        assert same is free


def test_both_stacks_start_from_the_first_cct_blocks(tmp_path: Path) -> None:
    state = timm.create_model("cct_14_7x2_384").state_dict()
    state["norm.weight"] = randn(384)
    safetensors.torch.save_file(state, tmp_path / "cct.safetensors")
    weights = {"weights": tmp_path / "cct.safetensors"}
    model = models.create("sta", size=(64, 64), blocks=2, window=2, stride=1, clusters=2, seed=3, **weights)
    from train.models.encoders.encoder import Encoder

    backbone = Encoder("cct_14_7x2_384", seed=3, weights=tmp_path / "cct.safetensors").backbone
    blocks, norm = backbone.blocks, backbone.norm
    for stack in (model.spatial, model.temporal):
        for own, given in zip(stack.blocks, blocks, strict=False):
            assert torch.equal(own.attention.qkv.weight, given.attention.qkv.weight)
            assert torch.equal(own.mlp[2].bias, given.mlp[2].bias)
        # The final LayerNorm comes from the encoder too, and neither it nor the positions are trained, as in practice.
        assert torch.equal(stack.norm.weight, norm.weight) and not stack.norm.weight.requires_grad
    assert not model.spatial.place.requires_grad
    assert not any(p.requires_grad for p in model.encoder.parameters())
    other = models.create("sta", size=(64, 64), blocks=2, window=2, stride=1, clusters=2, seed=3, fresh=True)
    assert not torch.equal(other.spatial.blocks[0].attention.qkv.weight, blocks[0].attention.qkv.weight)
    assert other.spatial.place.requires_grad and other.spatial.norm.weight.requires_grad


def test_clusters_start_from_the_spatial_tokens_and_the_sum_goes_through_them() -> None:
    """As the paper's program starts its VLAD layer; `fused` is what runs stored before did."""
    small = {"size": (64, 64), "blocks": 1, "window": 2, "stride": 1, "clusters": 2}
    frames = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    for start, branch in (("spatial", "spatial"), ("fused", None)):
        model = models.create("sta", **small, vlad_start=start)
        with torch.no_grad():
            tokens, spatial = model.encode_frames(frames).unbind(1)
            temporal = model.temporal(tokens.unsqueeze(1), model.grid).squeeze(1)
            torch.testing.assert_close(model.tokens(frames), spatial if branch else spatial + temporal)


def test_gaps_between_windows_are_refused() -> None:
    with pytest.raises(ContractError, match="leaves gaps"):
        models.create("sta-small", window=2, stride=3)
