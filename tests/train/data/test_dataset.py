"""Training on a built dataset instead of the fake one: tracks, shards and truth as they really are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import train
from train.settings import TrainSettings

PROTOCOL = """
name = "street"
source = "folder"
length = 5
radius = 25.0
[train]
positive_radius = 4.0
negative_radius = 8.0
[splits.train]
"""
TINY = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4}


def test_fit_and_describe_on_a_built_dataset(dataset: Any, tmp_path: Path) -> None:
    protocol = tmp_path / "street.toml"
    protocol.write_text(PROTOCOL)
    fields = {
        "model": "seqvlad-small",
        "options": TINY,
        "weights": "random",
        "protocol": str(protocol),
        "device": "cpu",
        "epochs": 1,
        "lr": 1e-3,
    }
    chosen = TrainSettings.create("places-scratch", **fields, places=4, run=2, steps=2, kmeans_frames=8)
    run = train.fit(dataset, chosen, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    assert record["finished"] and record["dataset"] == dataset.id
    model = train.load_model(run)
    table = dataset.sequences(length=5)
    got = train.describe(model, dataset, table, batch_size=9, device="cpu")
    frames = torch.from_numpy(dataset.read(table, np.arange(len(table))))
    with torch.no_grad():
        expected = torch.cat([model(window.unsqueeze(0)) for window in frames]).numpy()
    assert np.abs(got - expected).max() <= 1e-5
