"""Fixtures of the training floor: one torch thread, a fake dataset, tiny models."""

import pytest
import torch

from tests.support.fake_dataset import FakeDataset, write_protocol
from train.models import registry as models

torch.set_num_threads(1)


@pytest.fixture
def data():
    return FakeDataset()


@pytest.fixture
def protocol_file(tmp_path):
    return write_protocol(tmp_path)


@pytest.fixture
def tiny():
    """A factory of tiny models that run on 16 x 24 frames in milliseconds."""

    def make(name="seqvlad-small", **options):
        options = {"encoder": "resnet10t", "cut": "layer1", **options}
        if name.startswith("seqvlad"):
            options.setdefault("clusters", 4)
        return models.create(name, **{"size": None, "trainable": "all", **options})

    return make
