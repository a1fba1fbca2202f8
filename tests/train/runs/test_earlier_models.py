"""Models that an earlier version stored keep their descriptors, what they train, and what an index does to them.

`tests/fixtures/models-v1/models.json` was written by the version before models recorded a final norm, pixel statistics,
how time embeddings are resized, what stays frozen, and whether vectors are normalised behind PCA: for a model of each
kind its configuration, the number of parameters that it trained, and six numbers of a descriptor with `weights`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from train.models import registry as models
from train.runs import checkpoint
from train.stages.describer import RunDescriber

STORED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "models-v1" / "models.json").read_text(encoding="utf-8")
)
# What decided before the option was recorded: the names of the papers' methods.
NORMALISED = {"seqgem-small"}


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights behind the stored descriptors: drawn in the order of names, so that they depend on nothing else."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in sorted(state):
        value = state[name]
        if not value.is_floating_point():
            tensors[name] = value
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            tensors[name] = 1 + 0.1 * noise.abs()
        elif value.dim() > 1:
            tensors[name] = noise * max(1, value[0].numel()) ** -0.5
        else:
            tensors[name] = 1 + 0.1 * noise
    return tensors


def stored_run(name: str, run: Path) -> dict[str, Any]:
    """Write the checkpoint of a stored model as the earlier version did; returns its configuration."""
    config: dict[str, Any] = STORED[name]["config"]
    model = models.restore(config)
    model.load_state_dict(weights(model.state_dict()))
    model.config = config
    checkpoint.save_model(run / "checkpoints" / "best", model, {"epoch": 0})
    return config


@pytest.mark.parametrize("name", STORED)
def test_a_stored_model_keeps_its_numbers(name: str, tmp_path: Path) -> None:
    config = stored_run(name, tmp_path)
    model = train.load_model(tmp_path)
    assert model.config == config
    window = torch.randint(0, 256, (1, 3, 3, *(model.size or (32, 48))), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        descriptor = model(window)[0]
    rows = torch.linspace(0, len(descriptor) - 1, 6).long()
    torch.testing.assert_close(descriptor[rows], torch.tensor(STORED[name]["descriptor"]), atol=1e-4, rtol=1e-3)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == STORED[name]["trained"]
    assert RunDescriber(tmp_path).normalised_after_pca is (name in NORMALISED)


@pytest.mark.parametrize("name", ["seqvlad-cct384", "timesformer", "sta"])
def test_a_model_made_now_differs_where_the_papers_programs_do(name: str) -> None:
    """So that the test above cannot pass because nothing has changed."""
    config = STORED[name]["config"]
    added = models.preset(name)[0].added
    options = {key: value for key, value in config.items() if key not in ("name", "weights", "seed")}
    now = models.create(name, **options).config
    assert {key for key in added if now[key] != added[key]} and not set(added) & set(config)
