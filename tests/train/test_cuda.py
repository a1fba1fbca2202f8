"""The CUDA paths, where there is a device: descriptors agree with the CPU's, and a run trains and loads."""

import numpy as np
import pytest
import torch

import train
from tests.train.test_dataset import PROTOCOL, TINY
from train.settings import TrainSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def test_descriptors_agree_with_the_cpu(dataset, tiny):
    model, table = tiny(), dataset.sequences(length=5)
    on_cpu = train.describe(model, dataset, table, device="cpu")
    on_cuda = train.describe(model, dataset, table, device="cuda")
    assert np.abs(on_cpu - on_cuda).max() < 1e-3


def test_a_run_trained_on_cuda_loads_on_the_cpu(dataset, tmp_path):
    protocol = tmp_path / "street.toml"
    protocol.write_text(PROTOCOL)
    fields = {"model": "seqvlad-small", "options": TINY, "protocol": str(protocol), "epochs": 1, "device": "cuda"}
    chosen = TrainSettings.create("places-scratch", **fields, places=2, run=2, steps=2, kmeans_frames=8)
    model = train.load_model(train.fit(dataset, chosen, tmp_path / "run"))
    assert np.isfinite(train.describe(model, dataset, dataset.sequences(length=5), device="cpu")).all()
