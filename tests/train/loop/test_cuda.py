"""The CUDA paths, where there is a device: descriptors agree with the CPU's, and a run trains and loads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from tests.train.data.test_dataset import PROTOCOL, TINY
from train.settings import TrainSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def test_descriptors_agree_with_the_cpu(dataset: Any, tiny: Any) -> None:
    model, table = tiny(), dataset.sequences(length=5)
    on_cpu = train.describe(model, dataset, table, device="cpu")
    on_cuda = train.describe(model, dataset, table, device="cuda")
    assert np.abs(on_cpu - on_cuda).max() < 1e-3


def test_a_run_trained_on_cuda_loads_on_the_cpu(dataset: Any, tmp_path: Path) -> None:
    protocol = tmp_path / "street.toml"
    protocol.write_text(PROTOCOL)
    fields = {
        "model": "seqvlad-small",
        "options": TINY,
        "weights": "random",
        "protocol": str(protocol),
        "epochs": 1,
        "device": "cuda",
    }
    chosen = TrainSettings.create("places-scratch", **fields, places=2, run=2, steps=2, kmeans_frames=8)
    model = train.load_model(train.fit(dataset, chosen, tmp_path / "run"))
    assert np.isfinite(train.describe(model, dataset, dataset.sequences(length=5), device="cpu")).all()


@pytest.mark.parametrize("fields", [{"amp": True}, {"compile": True}, {"checkpointing": 8}])
def test_savings_of_time_and_memory_train_to_finite_losses(dataset: Any, tmp_path: Path, fields: Any) -> None:
    protocol = tmp_path / "street.toml"
    protocol.write_text(PROTOCOL)
    base = {
        "model": "seqvlad-small",
        "options": TINY,
        "weights": "random",
        "protocol": str(protocol),
        "epochs": 1,
        "device": "cuda",
    }
    losses = {}
    for name, more in {"plain": {"amp": False}, "saving": fields}.items():
        chosen = TrainSettings.create("places-scratch", **base, places=2, run=2, steps=3, kmeans_frames=8, **more)
        run = train.fit(dataset, chosen, tmp_path / name)
        losses[name] = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["losses"]
    np.testing.assert_allclose(losses["saving"], losses["plain"], rtol=0.1)
