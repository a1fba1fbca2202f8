"""Every preset of every family, at a tiny size: it trains, saves, reloads, and sees only its own window."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqdata.errors import ContractError
from tests.support.fake_dataset import FakeDataset
from train.data.frames import FrameSource
from train.loop.vlad_init import initialise_vlad
from train.models import registry as models
from train.models.card import outline
from train.models.pooling.registry import token_part
from train.runs import checkpoint
from train.sampling.windows import TrainData
from train.settings import TrainSettings

CNN = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24)}
VIT = {"encoder": "test_vit", "trainable": "all", "size": (32, 48), "encoder_options": {"dynamic_img_size": True}}
NARROW = {"clusters": 3, "width": 6, "projection": 5}
TINY = {
    "sta": {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24), "blocks": 2, "heads": 4}
    | {"window": 2, "stride": 1, "clusters": 3},
    "timesformer": {"encoder": "test_vit", "size": (32, 48)},
    "r2plus1d": {"encoder": "resnet10t", "cut": "layer1", "size": (16, 24)},
}
PRESETS = [(family, name) for family, entry in models.FAMILIES.items() for name in entry.presets]


def backbone_of(family: Any, name: Any) -> Any:
    """What of a preset decides which backbone it has, cut where, for which frames."""
    chosen = models.resolve(name, {})
    return family, *(getattr(chosen, key, None) for key in ("encoder", "cut", "size", "branches"))


# An outline of a large or giant model allocates gigabytes; smaller ones are built the same way.
LARGE = ("-l", "-g")
REAL = [
    name
    for name in (
        *{backbone_of(*preset): preset[1] for preset in reversed(PRESETS) if preset[1] != "frames"}.values(),
        *("cls-fc-vit", "cls-cat-dinov2", "seqpool-cat-cct224", "seqpool-cat-cct384", "salad-mean-dinov2"),
    )
    if not name.endswith(LARGE)
]


def tiny(family: Any, name: Any, **more: Any) -> Any:
    """The preset with a backbone of milliseconds; all that makes it the preset it is stays."""
    if family == "frames":
        own = models.FAMILIES[family].presets[name]
        narrow = {key: value for key, value in NARROW.items() if key != "projection" or key in own}
        needs_vit = "facet" in own or token_part(own.get("pooling", "vlad"), own.get("pooling_options", {})) != "grid"
        options = {**(VIT if needs_vit else CNN), **narrow}
        options |= {"cut": "blocks.1"} if "facet" in own else {}
    else:
        options = TINY[family]
    return models.create(name, **{**options, **more})


def windows(model: Any, batch: Any, length: Any, seed: Any = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, length, 3, *model.size), generator=generator, dtype=torch.uint8)


def lengths(model: Any) -> Any:
    """Those of 1, 2 and 5 that the model takes, by its own word."""
    taken = []
    for length in (1, 2, 5):
        try:
            model(windows(model, 1, length))
        except ContractError:
            continue
        taken.append(length)
    return taken


EXPECTED = {"fc": [5], "seqnet": [5], "delta": [2, 5]}


@pytest.mark.parametrize(("family", "name"), PRESETS, ids=[name for _, name in PRESETS])
def test_preset(family: Any, name: str, tmp_path: Path) -> None:
    model = tiny(family, name)
    given = windows(model, 2, 5)
    out = model.train()(given)
    assert out.shape == (2, model.descriptor_size(5)) and out.dtype == torch.float32
    out.pow(3).sum().backward()  # the sum of squares of a unit vector has no gradient
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert trained and [key for key, p in trained.items() if p.grad is None] == []
    assert all(bool(p.grad.isfinite().all()) for p in trained.values())
    checkpoint.save_model(tmp_path / "m", model, {})
    again = checkpoint.load_model(tmp_path / "m")
    with torch.no_grad():
        want = model.eval()(given)
        torch.testing.assert_close(again(given), want, rtol=0, atol=0)
        alone = torch.cat([again(window.unsqueeze(0)) for window in given])
        torch.testing.assert_close(alone, want, atol=1e-5 * float(want.abs().max()), rtol=1e-4)
        assert lengths(again) == EXPECTED.get(model.config.get("fusion"), [1, 2, 5])
        for length in lengths(again):
            assert again(windows(model, 1, length)).shape == (1, model.descriptor_size(length))


@pytest.mark.parametrize("name", REAL)
def test_at_its_real_size_no_parameter_is_dead(name: str) -> None:
    """Each backbone and cut that a preset has, in shapes only, on the meta device.

    A parameter without a gradient stops several machines that train together.
    """
    model = outline(name).train()
    size = model.size or (240, 320)
    out = model(torch.zeros(1, 5, 3, *size, dtype=torch.uint8, device="meta"))
    assert out.shape == (1, model.descriptor_size(5))
    out.sum().backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


class Planted(nn.Module):
    """A backbone whose every token is one of some directions, in the forms that backbones give their features in."""

    def __init__(self, directions: Any, prefix: Any, grid: Any) -> None:
        super().__init__()
        self.directions, self.num_prefix_tokens, self.grid = directions, prefix, grid

    def forward_features(self, frames: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        count = self.grid[0] * self.grid[1]
        pick = torch.randint(0, len(self.directions), (len(frames), count), generator=generator)
        tokens = self.directions[pick] + 0.02 * torch.randn(*pick.shape, self.directions.shape[1], generator=generator)
        return torch.cat([torch.full((len(frames), self.num_prefix_tokens, tokens.shape[2]), 9.0), tokens], 1)

    def forward_intermediates(self, frames: Any, **_: Any) -> Any:
        tokens = self.forward_features(frames)[:, self.num_prefix_tokens :]
        return [tokens.transpose(1, 2).unflatten(2, self.grid)]

    def forward(self, frames: Any) -> Any:
        return self.forward_intermediates(frames)[0]


class Same(nn.Module):
    """A stack that leaves tokens as they are."""

    def forward(self, tokens: Any, grid: Any) -> Any:
        return tokens


def cut_vit(directions: Any) -> Any:
    model = tiny("frames", "seqvlad-vit", **VIT, cut=None, clusters=4)
    model.encoder.backbone, model.encoder.stage = Planted(directions, 1, (2, 3)), 0
    return model


def whole_vit(directions: Any) -> Any:
    model = tiny("frames", "seqvlad-vit", **VIT, cut=None, clusters=4)
    model.encoder.backbone = Planted(directions, 1, (2, 3))
    return model


def sta(directions: Any) -> Any:
    model = tiny("sta", "sta-small", clusters=4)
    model.encoder, model.spatial, model.temporal = Planted(directions, 0, model.grid), Same(), Same()
    return model


@pytest.mark.parametrize("make", [cut_vit, whole_vit, sta])
def test_kmeans_keeps_token_and_channel_axes(make: Any, data: FakeDataset, protocol_file: Path) -> None:
    """The centres that training starts from are the planted directions; scrambled axes would find none of them."""
    directions = F.normalize(torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    model = make(directions)
    fields = {"kmeans_frames": 40, "kmeans_features": 500, "frame_batch": 16, "seed": 1}
    chosen = TrainSettings.create(protocol=protocol_file, **fields)
    train_data = TrainData.from_split(data, data.load_protocol(protocol_file))
    initialise_vlad(model, train_data, FrameSource(data), chosen)
    cosines = F.normalize(model.vlad.centres, dim=-1) @ directions.T
    assert cosines.max(0).values.min() > 0.99 and cosines.max(1).values.min() > 0.99


def test_kmeans_start_does_not_depend_on_how_many_frames_are_encoded_at_once(
    data: FakeDataset, protocol_file: Path
) -> None:
    train_data = TrainData.from_split(data, data.load_protocol(protocol_file))
    centres = []
    for frame_batch in (7, 40):
        model = tiny("frames", "seqvlad-small", clusters=4)
        fields = {"kmeans_frames": 40, "kmeans_features": 200, "frame_batch": frame_batch}
        initialise_vlad(model, train_data, FrameSource(data), TrainSettings.create(protocol=protocol_file, **fields))
        centres.append(model.vlad.centres.detach().clone())
    torch.testing.assert_close(centres[0], centres[1], rtol=1e-4, atol=1e-5)
