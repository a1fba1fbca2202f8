"""TimeSformer and (2+1)D: they start as their 2D backbone, and mix frames once trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqdata.errors import ContractError
from train.models import registry as models
from train.models.early.r2plus1d import TimeConvolution
from train.models.early.timesformer import DividedBlock
from train.models.encoders.encoder import Encoder, Output
from train.runs import checkpoint

VIT = {"encoder": "test_vit", "size": (160, 160)}
RESNET = {"encoder": "resnet10t", "cut": "layer2", "size": (32, 48)}


def pixels(*lead: Any, size: Any, seed: Any = 0) -> Any:
    return torch.randint(0, 256, (*lead, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_timesformer_starts_as_its_vit() -> None:
    model = models.create("timesformer", **VIT, seed=4)
    vit = Encoder("test_vit", seed=4, output=Output("cls"), options={"img_size": (160, 160)}).eval()
    frame = pixels(2, size=(160, 160))
    with torch.no_grad():
        wanted = vit(model.preprocess(frame))[:, 0]
        torch.testing.assert_close(model(frame.unsqueeze(1).expand(-1, 3, -1, -1, -1)), wanted, atol=1e-4, rtol=1e-4)


def test_a_divided_block_at_first_gives_what_the_vit_block_gives() -> None:
    model = models.create("timesformer", **VIT)
    block = model.blocks[0]
    generator = torch.Generator().manual_seed(0)
    prefix, grid = torch.randn(2, 1, 64, generator=generator), torch.randn(2, 3, 9, 64, generator=generator)
    with torch.no_grad():
        got_prefix, got = block(prefix, grid)
        for t in range(3):
            alone = block.block(torch.cat([prefix, grid[:, t]], dim=1))
            torch.testing.assert_close(got[:, t], alone[:, 1:], atol=1e-5, rtol=1e-4)
        seen = [block.block.norm1(torch.cat([prefix, places], 1)) for places in grid.unbind(1)]
        mixed = torch.stack([block.block.attn(frame)[:, :1] for frame in seen])
        mean = prefix + mixed.mean(0)
        torch.testing.assert_close(got_prefix, mean + block.block.mlp(block.block.norm2(mean)), atol=1e-5, rtol=1e-4)


def test_time_attention_is_over_the_frames_of_one_place() -> None:
    block: DividedBlock = models.create("timesformer", **VIT).blocks[0]
    nn.init.eye_(block.time_map.weight)
    grid = torch.randn(1, 3, 4, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = block._over_time(grid)
        for place in range(4):
            alone = block.time_attention(block.time_norm(grid[:, :, place]))
            torch.testing.assert_close(got[:, :, place], alone, atol=1e-5, rtol=1e-4)


def test_time_embedding_is_resized() -> None:
    """To the nearest of the frames that it was learnt for; models stored before that was an option interpolate."""
    model = models.create("timesformer", **VIT, length=3)
    old = models.restore({key: value for key, value in model.config.items() if key != "time_resize"})
    linear = F.interpolate(torch.tensor([[[0.0, 1.0, 2.0]]]), size=5, mode="linear")[0, 0]
    for made, expected in ((model, torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0])), (old, linear)):
        with torch.no_grad():
            made.time.copy_(torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1).expand(1, 3, 64))
        torch.testing.assert_close(made._time(5)[0, :, 7], expected)
        assert torch.equal(made._time(3), made.time)
        assert made(pixels(1, 5, size=(160, 160))).shape == (1, 64)


def test_2plus1d_starts_as_its_resnet() -> None:
    model = models.create("r2plus1d-r18", **RESNET, seed=4)
    resnet = Encoder("resnet10t", cut="layer2", seed=4).eval()
    windows = pixels(2, 3, size=(32, 48))
    with torch.no_grad():
        wanted = resnet(model.preprocess(windows.flatten(0, 1))).unflatten(0, (2, 3)).mean((1, 2))
        torch.testing.assert_close(model(windows), wanted, atol=1e-4, rtol=1e-4)


def test_the_convolution_over_time_is_one() -> None:
    layer = TimeConvolution(2).eval()
    nn.init.normal_(layer.convolution.weight, generator=torch.Generator().manual_seed(0))
    maps, weight = torch.randn(6, 2, 2, 2, generator=torch.Generator().manual_seed(1)), layer.convolution.weight
    layer.length = 3
    with torch.no_grad():
        got = layer(maps).unflatten(0, (2, 3))
        for b, t in [(0, 0), (0, 1), (1, 2)]:
            total = sum(
                weight[:, :, k, 0, 0] @ maps[3 * b + t + k - 1].flatten(1) for k in range(3) if 0 <= t + k - 1 < 3
            )
            torch.testing.assert_close(got[b, t], total.clamp(min=0).unflatten(1, (2, 2)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), [("timesformer", VIT), ("r2plus1d-r50", RESNET)])
def test_they_train_mix_frames_save_and_reload(name: str, options: Any, tmp_path: Path) -> None:
    model = models.create(name, **options)
    windows = pixels(2, 3, size=options["size"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.normalize(model.train()(windows), dim=1)[:, :8].pow(3).sum().backward()
        optimizer.step()
    if name == "timesformer":  # three steps hardly move an embedding that starts at zero
        torch.nn.init.normal_(model.time)
        torch.nn.init.eye_(model.blocks[0].time_map.weight)
    model.eval()
    out = model(windows)
    assert out.shape == (2, model.descriptor_size(3)) and bool(out.isfinite().all())
    assert not torch.allclose(out, model(windows[:, [1, 0, 2]]), atol=1e-6)
    torch.testing.assert_close(out, torch.cat([model(window.unsqueeze(0)) for window in windows]), atol=1e-4, rtol=1e-4)
    checkpoint.save_model(tmp_path / "m", model, {})
    torch.testing.assert_close(checkpoint.load_model(tmp_path / "m")(windows), out, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "encoder", "said"),
    [("timesformer", "resnet10t", "img_size"), ("r2plus1d-r50", "mobilenetv2_100", "needs a ResNet")],
)
def test_encoders_that_do_not_fit_are_refused(name: str, encoder: Any, said: Any) -> None:
    with pytest.raises(ContractError, match=said):
        models.create(name, encoder=encoder, **({"cut": None} if name != "timesformer" else {}))


def test_vgg_is_cut_before_its_last_relu() -> None:
    model = models.create("seqvlad-vgg16", size=(32, 48))
    assert isinstance(model.encoder.backbone.features[-1], nn.Conv2d) and len(model.encoder.backbone.features) == 29
    with torch.no_grad():
        tokens = model.tokens(pixels(1, size=(32, 48)))
    assert tokens.shape == (1, 6, 512) and bool((tokens < 0).any())
    trained = {name for name, p in model.encoder.backbone.named_parameters() if p.requires_grad}
    assert trained == {f"features.{i}.{kind}" for i in (24, 26, 28) for kind in ("weight", "bias")}
    with pytest.raises(ContractError, match=r"no stage 'features.99'"):
        models.create("seqvlad-vgg16", cut="features.99")


def test_time_layers_of_frozen_blocks_are_frozen_too() -> None:
    model = models.create("timesformer", **VIT, trainable="blocks.4")
    for number, block in enumerate(model.blocks):
        assert {p.requires_grad for p in block.parameters()} == {number >= 4}


def test_2plus1d_survives_dead_channels_in_training_mode() -> None:
    """A channel without variance has no deviation to divide by."""
    layer = TimeConvolution(2).train()
    maps = torch.zeros(4, 2, 2, 2, requires_grad=True)
    layer.length = 2
    layer(maps).sum().backward()
    assert bool(maps.grad.isfinite().all())
