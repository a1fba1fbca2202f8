"""Model cards: counts against the model itself, arithmetic against hand counts, no values needed."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from seqdata.errors import ContractError
from train.models import registry as models
from train.models.card import card, outline
from train.models.fusion.basic import CentreFrame


def stages(found: Any) -> Any:
    return {stage["name"]: stage for stage in found["stages"]}


def test_stages_shapes_and_counts_of_a_late_fusion() -> None:
    found = json.loads(json.dumps(card("netvlad-fc-r18", length=3, width=7, clusters=4)))
    of = stages(found)
    assert list(of) == ["frames", "preprocess", "encoder", "pooling", "fusion.linear"]
    assert of["frames"]["shape"] == [3, 3, 480, 640] and of["encoder"]["shape"] == [3, 30 * 40, 256]
    assert of["pooling"]["shape"] == [3, 4 * 256] and of["fusion.linear"]["shape"] == [1, 7]
    assert of["fusion.linear"]["flops"] == 2 * 3 * 4 * 256 * 7
    assert of["pooling"]["flops"] == 2 * 2 * 3 * 1200 * 256 * 4  # assignment, weighted sums
    assert found["lengths"] == {"least": 3, "most": 3} and found["descriptor"] == 7 and found["length"] == 3


@pytest.mark.parametrize(
    "name", ["seqvlad-cct384", "sta-small", "r2plus1d-small", "seqnet-small", "seqgem-efficientnet"]
)
def test_counts_are_the_models_own_and_stages_add_up(name: str) -> None:
    found, model = card(name, 4), models.create(name)
    every = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert (found["parameters"], found["trainable"]) == (sum(every), sum(trained))
    assert found["trainable_share"] == pytest.approx(sum(trained) / sum(every))
    for key in ("parameters", "trainable", "flops"):
        assert sum(stage[key] for stage in found["stages"]) == found[key]
    assert found["descriptor"] == model.descriptor_size(4)
    assert found["own_size"] is (model.size is None) and found["size"] == list(model.size or (240, 320))


def test_arithmetic_grows_with_frames_and_lengths_are_found() -> None:
    short, long = card("gem-cat-r18", 2), card("gem-cat-r18", 6)
    assert long["flops"] == 3 * short["flops"]
    # The first convolution alone: 7×7×3 → 64 at half the resolution, two operations each.
    assert short["flops"] > 2 * 2 * 49 * 3 * 64 * 240 * 320
    assert short["lengths"] == {"least": 1, "most": None}
    assert card("seqnet-small", kernel=4)["lengths"] == {"least": 4, "most": None}
    assert card("delta-small")["lengths"]["least"] == 2
    assert card("seqmatchnet-small")["distance"] == "aligned"


def test_what_is_asked_wrongly_is_said() -> None:
    with pytest.raises(ContractError, match="no model 'none'"):
        card("none")
    with pytest.raises(ContractError, match="windows of 5 frames only, not 3"):
        card("netvlad-fc-small", 3)


@pytest.mark.parametrize("branches", ["both", "spatial", "temporal"])
def test_the_vlad_layer_of_sta_is_counted(branches: Any) -> None:
    found = card("sta-small", 3, branches=branches)
    of, tokens = stages(found)["pooling"], 8 * 16
    assert of["shape"] == ([3, 32, 64] if branches == "spatial" else [1, 32, 64])  # sums of frames, or of the window
    assert of["flops"] == 2 * 2 * 3 * tokens * 64 * 32  # assignment, weighted sums
    assert "rest" not in stages(found)


def test_the_convolution_of_seqnet_is_counted() -> None:
    of = stages(card("seqnet-small", 4, kernel=2, width=9))["fusion.conv"]
    assert of["shape"] == [1, 9] and of["flops"] == 2 * 2 * 256 * 9 and of["parameters"] == 2 * 256 * 9 + 9


def test_the_lstm_has_a_shape() -> None:
    assert stages(card("lstm-small", 4, width=9))["fusion.lstm"]["shape"] == [1, 1, 9]


def test_an_outline_has_no_values() -> None:
    model = outline("seqvlad-small")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not isinstance(model.fusion, CentreFrame) and isinstance(model, nn.Module)
    torch.manual_seed(0)
    drawn = nn.Linear(3, 3).weight
    torch.manual_seed(0)
    torch.testing.assert_close(nn.Linear(3, 3).weight, drawn)  # drawing works again afterwards


class Stubborn(models.SequenceModel):
    """A model of another package that looks at values."""

    def descriptor_size(self, length: Any) -> Any:
        return 3

    def encode_frames(self, frames: Any) -> Any:
        frames = self.preprocess(frames).mean((2, 3))
        return frames if bool(frames.isfinite().all()) else frames * 0

    def fuse_rows(self, features: Any, rows: Any) -> Any:
        return features[rows].mean(1)


def stubborn(weights: Any, seed: Any) -> Any:
    return Stubborn(models.create("seqvlad-small").preprocess, {})


def test_a_model_that_needs_values_runs_on_the_cpu() -> None:
    found = card(f"{__name__}:stubborn", 2)
    assert found["descriptor"] == 3 and found["parameters"] == 0 and found["trainable_share"] == 0
