"""What `compile` makes of a training step: one graph for every family of models, and few for all sizes of a run."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.gpu.steps import Pixels
from train.loop.step import StepModel, compiled
from train.models import registry

TINY = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all"}
STA = {**TINY, "size": (32, 48), "blocks": 1, "clusters": 4, "heads": 2, "length": 3}
MODELS: dict[str, dict[str, Any]] = {
    "seqvlad-small": {**TINY, "clusters": 4},
    "gem-cat-small": TINY,
    "seqvlad-cct224": {"clusters": 2, "size": (64, 64), "cut": "blocks.0", "trainable": "all"},
    # Windows hang over the edge of the grid of 8 x 12 tokens.
    "sta-small": {**STA, "window": 5, "stride": 4},
    "sta-spatial": STA,
    "timesformer": {"encoder": "vit_tiny_patch16_224", "size": (32, 32), "encoder_options": {"depth": 1}},
    "r2plus1d-small": {"encoder": "resnet10t", "cut": "layer1", "size": (32, 32)},
}


def batch(frames: int, windows: int, length: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (M, 3, 32, 48) uint8 and the rows (B, L) of windows."""
    generator = torch.Generator().manual_seed(frames)
    pixels = torch.randint(0, 256, (frames, 3, 32, 48), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(windows * length).view(windows, length) % frames


@pytest.fixture
def step(request: pytest.FixtureRequest) -> StepModel:
    torch._dynamo.reset()
    return StepModel(registry.create(request.param, weights="random", **MODELS[request.param]).train(), Pixels())


@pytest.mark.parametrize("step", MODELS, indirect=True)
def test_a_step_is_one_graph(step: StepModel) -> None:
    explained = torch._dynamo.explain(step)(*batch(19, 4))
    assert explained.graph_break_count == 0, explained.break_reasons
    assert explained.graph_count == 1


@pytest.mark.parametrize("step", ["sta-small", "timesformer", "r2plus1d-small"], indirect=True)
def test_a_run_of_many_sizes_compiles_few_graphs(step: StepModel) -> None:
    """Numbers of frames and windows are others at nearly every step; a step of one window may have its own graph.

    From 16 frames on: a CPU's convolutions take another memory layout below.
    """
    counter = CompileCounter()
    run = compiled(step, True, backend=counter)
    for frames, windows in ((19, 4), (30, 6), (41, 7), (23, 1)):
        run(*batch(frames, windows))
    assert counter.frame_count <= 2
