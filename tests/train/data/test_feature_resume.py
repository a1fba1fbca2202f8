"""A description of a dataset that was interrupted goes on, and comes to the bytes of an unbroken one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seqdata.errors import OutputError
from tests.support.fake_dataset import FakeDataset
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import check_hashes
from train.models import registry as models
from train.stages import features
from train.stages.features import FeatureRequest, write_features

REQUEST = FeatureRequest(batch_size=8, settings=DescribeSettings("cpu"), sample=64)


def encoder() -> Any:
    torch.manual_seed(1)
    return models.create("mean-small", encoder="resnet10t", cut="layer1", weights="random", size=None)


def stopping_at(frame: int) -> Callable[[int, int], None]:
    def stop(finished: int, _: int) -> None:
        if finished >= frame:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_BYTES", 2 * 64 * 20)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("pca", [None, 8])
def test_the_same_command_goes_on_to_the_same_bytes(
    pca: int | None, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    request = FeatureRequest(batch_size=8, settings=DescribeSettings("cpu"), sample=64, pca=pca)
    whole = write_features(encoder(), FakeDataset(), tmp_path / "whole", request)
    assert len(whole.parts) > 2 or pca
    with pytest.raises(KeyboardInterrupt):
        write_features(encoder(), FakeDataset(), tmp_path / "cut", request, progress=stopping_at(50))
    data = FakeDataset()
    assert write_features(encoder(), data, tmp_path / "cut", request) == whole
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    if pca is None:
        assert len(data.read_rows) < len(data.table), "frames of whole parts are not read again"
    check_hashes(tmp_path / "cut")


def test_a_finished_folder_is_the_answer_to_the_same_request_alone(tmp_path: Path) -> None:
    whole = write_features(encoder(), FakeDataset(), tmp_path / "f", REQUEST)
    data = FakeDataset()
    assert write_features(encoder(), data, tmp_path / "f", REQUEST) == whole
    assert not data.read_rows
    for other in (
        FeatureRequest(dtype="float32", settings=DescribeSettings("cpu")),
        FeatureRequest(pca=8, sample=64, settings=DescribeSettings("cpu")),
    ):
        with pytest.raises(OutputError, match="not empty"):
            write_features(encoder(), FakeDataset(), tmp_path / "f", other)
    with pytest.raises(OutputError, match="not empty"):
        write_features(encoder(), FakeDataset(seed=3, id="a" * 64), tmp_path / "f", REQUEST)


def test_a_kill_before_the_first_part_leaves_a_folder_that_can_be_taken_up(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / ".request.json.a1b2c3d4.tmp").write_bytes(b'{"req')
    write_features(encoder(), FakeDataset(), tmp_path / "f", REQUEST)
    assert not list((tmp_path / "f").glob("*.tmp"))
