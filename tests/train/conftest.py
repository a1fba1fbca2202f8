"""Fixtures of the training floor: one torch thread, a fake dataset, tiny models."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.fake_dataset import FakeDataset, write_protocol
from train.models import registry as models

torch.set_num_threads(1)


@pytest.fixture
def data() -> Any:
    return FakeDataset()


@pytest.fixture
def protocol_file(tmp_path: Path) -> Any:
    return write_protocol(tmp_path)


@pytest.fixture
def tiny() -> Any:
    """A factory of tiny models that run on 16 x 24 frames in milliseconds."""

    def make(name: Any = "seqvlad-small", **options: Any) -> Any:
        options = {"encoder": "resnet10t", "cut": "layer1", **options}
        if name.startswith("seqvlad"):
            options.setdefault("clusters", 4)
        return models.create(name, **{"size": None, "trainable": "all", **options})

    return make
