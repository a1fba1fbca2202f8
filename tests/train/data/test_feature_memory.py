"""Training on stored features touches the rows of a step, and describing gathers them a share at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.fake_dataset import FakeDataset
from train.data import describe as describing
from train.data import feature_files
from train.data.describe import describe
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureFiles
from train.data.frames import WindowSource
from train.models import registry as models
from train.stages.features import FeatureRequest, write_features


def encoder() -> Any:
    return models.create("netvlad-small", encoder="resnet10t", cut="layer1", clusters=4, size=None)


def test_only_the_wanted_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FakeDataset()
    write_features(encoder(), data, tmp_path / "f", FeatureRequest(settings=DescribeSettings("cpu")))
    files, read = FeatureFiles(tmp_path / "f"), []

    whole = feature_files.os.preadv
    monkeypatch.setattr(
        feature_files.os, "preadv", lambda *given: read.append(sum(map(len, given[1]))) or whole(*given)
    )
    rows = np.array([5, 6, 7, 40, 90])
    found = files.read(rows)
    assert read == [3 * 256 * 2, 256 * 2, 256 * 2] and found.shape == (5, 256)


def test_a_read_that_comes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FakeDataset()
    write_features(encoder(), data, tmp_path / "f", FeatureRequest(settings=DescribeSettings("cpu")))
    files = FeatureFiles(tmp_path / "f")
    wanted = files.read(np.arange(20))

    whole = feature_files.os.preadv
    monkeypatch.setattr(feature_files.os, "preadv", lambda handle, views, at: whole(handle, [views[0][:700]], at))
    np.testing.assert_array_equal(files.read(np.arange(20)), wanted)


class Rows(WindowSource):
    """Features made from the rows themselves."""

    def read(self, rows: Any) -> Any:
        return rows

    def encode(self, model: Any, frames: Any) -> Any:
        return frames[:, None].float() + torch.arange(64)


def test_fusion_gathers_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are fused a few at a time, to the same descriptors, however many a block holds."""
    data = FakeDataset()
    table = data.sequences(length=5)
    model = models.create("frames", encoder="resnet10t", cut="layer1", pooling="gem", fusion="cat", size=(16, 24))
    whole = describe(model, data, table, source=Rows(), device="cpu")
    seen, plain = [], model.fuse_rows
    monkeypatch.setattr(model, "fuse_rows", lambda given, rows: seen.append(len(rows)) or plain(given, rows))
    monkeypatch.setattr(describing, "FUSED_BYTES", 3 * 5 * 64 * 4)
    np.testing.assert_array_equal(describe(model, data, table, source=Rows(), device="cpu"), whole)
    assert max(seen) == 3 and sum(seen) == len(table)


def test_blocks_are_bounded_by_features_and_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FakeDataset()
    table = data.sequences(length=5)
    model = models.create("frames", encoder="resnet10t", cut="layer1", pooling="gem", fusion="cat", size=(16, 24))
    monkeypatch.setattr(describing, "FEATURE_BYTES", 20 * 5 * 64 * 4)
    blocks = list(describing.describe_blocks(model, data, table, source=Rows(), device="cpu", batch_size=4))
    assert max(block.nbytes for block in blocks) <= 20 * 5 * 64 * 4 and sum(map(len, blocks)) == len(table)
