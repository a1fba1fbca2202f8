"""What a training of millions of windows must not do: search anew, look at every window, cache validation's frames."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import train
from seqdata.dataset.frame_sizes import frame_sizes
from seqdata.geometry import IntArray
from tests.support.fake_dataset import FakeDataset, write_protocol
from tests.train.loop.test_fit import settings
from train.loop.trainer import Trainer


@pytest.fixture
def protocol(tmp_path: Path) -> str:
    return write_protocol(tmp_path)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_untrained_model_is_validated_only_where_that_is_wanted(protocol: str, tmp_path: Path) -> None:
    with_start, without = (
        metrics(train.fit(FakeDataset(), settings(protocol, validate_start=start, epochs=1), tmp_path / str(start)))
        for start in (True, False)
    )
    assert with_start[0]["val"] and without[0]["val"] is None
    assert with_start[1]["losses"] == without[1]["losses"], "no number of a step depends on it"
    assert without[1]["val"] == with_start[1]["val"]


def test_frames_of_validation_stay_out_of_the_cache(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cached = FakeDataset(), dict[str, set[int]]()
    describe = Trainer.describe_windows

    def noted(trainer: Any, table: pl.DataFrame, phase: str, epoch: int) -> torch.Tensor:
        result = describe(trainer, table, phase, epoch)
        cached[phase] = set(trainer.source.cache._frames)
        return result

    monkeypatch.setattr(Trainer, "describe_windows", noted)
    train.fit(data, settings(protocol, epochs=1), tmp_path / "run")
    is_validation = data.table["split"].to_numpy() == "val"
    assert cached["mine"], "frames of the training are cached"
    assert cached["mine"] <= cached["validate"]
    assert not is_validation[sorted(cached["validate"])].any()


def test_rounds_share_what_finds_positives(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    pair_finder = FakeDataset.pair_finder

    def counted(dataset: FakeDataset, database: pl.DataFrame, *arguments: Any, **more: Any) -> Any:
        made.append(database.height)
        return pair_finder(dataset, database, *arguments, **more)

    monkeypatch.setattr(FakeDataset, "pair_finder", counted)
    for regime in ("triplet", "places"):
        train.fit(FakeDataset(), settings(protocol, regime=regime), tmp_path / regime)
    assert len(made) == 2, "one for each run, whatever its rounds and epochs"
    assert len(set(made)) == 1


def test_sizes_of_frames_are_asked_of_windows_only_where_they_differ() -> None:
    class Sizes:
        def __init__(self, heights: list[int]) -> None:
            self.table = pl.DataFrame({"height": heights, "width": [640] * len(heights)})
            self.frames = self.table.lazy()

        def frame_columns(self, *names: str) -> pl.DataFrame:
            return self.table.select(names)

    def rows() -> IntArray:
        return np.array([[1, 2], [2, 1]])

    equal, mixed = Sizes([480] * 4), Sizes([480, 360, 360, 720])
    assert frame_sizes(equal, lambda: pytest.fail("windows were looked at")).rows() == [(480, 640)]  # type: ignore[arg-type]
    assert frame_sizes(mixed, rows).rows() == [(360, 640)]  # type: ignore[arg-type]
    assert frame_sizes(mixed, lambda: np.array([3, 0])).rows() == [(480, 640), (720, 640)]  # type: ignore[arg-type]
