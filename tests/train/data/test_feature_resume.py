"""A description of a dataset that was interrupted goes on, and comes to the bytes of an unbroken one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqdata.build.builder import ShardRange
from seqdata.errors import InputError, OutputError
from tests.support.fake_dataset import FakeDataset
from tests.support.street import build_street, write_street
from train.data import feature_files
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureFiles, check_hashes
from train.data.feature_parts import finish_features
from train.models import registry as models
from train.stages.features import FeatureRequest, write_feature_share, write_features, write_features_on

REQUEST = FeatureRequest(batch_size=8, settings=DescribeSettings("cpu"), sample=64, part_bytes=2 * 64 * 20)


def encoder() -> Any:
    torch.manual_seed(1)
    return models.create("mean-small", encoder="resnet10t", cut="layer1", weights="random", size=None)


def stopping_at(frame: int) -> Callable[[int, int], None]:
    def stop(finished: int, _: int) -> None:
        if finished >= frame:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("pca", [None, 8])
def test_the_same_command_goes_on_to_the_same_bytes(
    pca: int | None, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    request = replace(REQUEST, pca=pca)
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


@pytest.mark.parametrize("pca", [None, 8])
def test_jobs_in_any_order_come_to_the_bytes_of_one_command(
    pca: int | None, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    request = replace(REQUEST, pca=pca)
    whole = write_features(encoder(), FakeDataset(), tmp_path / "whole", request)
    out = tmp_path / "jobs"
    counts = [write_feature_share(encoder(), FakeDataset(), out, request, ShardRange(2, 2))]
    if len(whole.parts) > 1:
        with pytest.raises(InputError, match=r"of \d parts are missing \(part-00000.npy"):
            finish_features(out)
    with pytest.raises(InputError, match="no feature dataset here"):
        FeatureFiles(out)
    counts.append(write_feature_share(encoder(), FakeDataset(), out, request, ShardRange(1, 2)))
    assert sum(counts) == len(whole.parts)
    # A kill between a part and its seal loses neither.
    for seal in out.glob(".part-*.json"):
        seal.unlink()
    assert finish_features(out) == whole
    assert files_of(out) == files_of(tmp_path / "whole")
    assert finish_features(out) == whole, "merging again is nothing"
    assert write_feature_share(encoder(), FakeDataset(), out, request, ShardRange(1, 2)) == counts[1]


def test_a_pool_of_processes_comes_to_the_same_bytes(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    dataset = build_street(write_street(tmp_path / "raw"), tmp_path / "dataset")
    write_features(encoder(), dataset, tmp_path / "whole", REQUEST)
    manifest = write_features_on("pool", 2, encoder(), dataset, tmp_path / "pool", REQUEST)
    assert len(manifest.parts) > 2
    assert files_of(tmp_path / "pool") == files_of(tmp_path / "whole")
    assert write_features_on("pool", 2, encoder(), dataset, tmp_path / "pool", REQUEST) == manifest


def test_few_of_many_parts_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may open some hundreds of files; features of a large dataset have more parts."""
    monkeypatch.setattr(feature_files, "OPEN_PARTS", 2)
    manifest = write_features(encoder(), FakeDataset(), tmp_path / "f", REQUEST)
    assert len(manifest.parts) > 4
    files = FeatureFiles(tmp_path / "f")
    whole = np.concatenate([np.load(tmp_path / "f" / part.name) for part in manifest.parts])
    rows = np.random.default_rng(0).integers(0, len(whole), 200)
    np.testing.assert_array_equal(files.read(rows), whole[rows])

    def open_parts() -> int:
        handles = (path.resolve() for path in Path("/proc/self/fd").iterdir())
        return sum(path.parent == tmp_path / "f" for path in handles)

    assert 0 < open_parts() <= 2
    files.close()
    assert open_parts() == 0
