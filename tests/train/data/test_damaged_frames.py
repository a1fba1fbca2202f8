"""Frames that turned bad after the build: replaced alike in a stream and in training, counted, or the end of a run."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import seqdata
import train
from seqdata import Dataset
from seqdata.errors import ContractError, DivergedError
from seqdata.frames.reader import DamagedFrameError
from tests.train.data.test_dataset import PROTOCOL, TINY
from train.data.describe import describe
from train.data.frames import FrameSource
from train.models import registry as models
from train.models.frame_model import FrameModel
from train.settings import TrainSettings

HALVED, FLIPPED = 12, 30


@pytest.fixture
def damaged(dataset: Dataset, tmp_path: Path) -> Dataset:
    """A copy in which half of one stored JPEG is zeros, and one bit of another that still decodes is flipped."""
    copy = tmp_path / "copy"
    shutil.copytree(dataset.path, copy)
    locations = dataset.frame_columns("shard", "offset", "length")
    for row in (HALVED, FLIPPED):
        shard, offset, length = locations.row(row)
        with (copy / "shards" / f"part-{shard:06d}.tar").open("r+b") as file:
            file.seek(offset + length // 2 if row == HALVED else offset + length - 40)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes(length - length // 2) if row == HALVED else bytes([byte ^ 1]))
    return seqdata.open(copy)


def settings(tmp_path: Path, **fields: Any) -> TrainSettings:
    """Place batches that show every window of the drives."""
    protocol = tmp_path / "street.toml"
    protocol.write_text(PROTOCOL)
    base = {"model": "seqvlad-small", "options": TINY, "weights": "random", "protocol": str(protocol), "device": "cpu"}
    base |= {"epochs": 1, "lr": 1e-3, "places": 4, "run": 2, "steps": 12, "kmeans_frames": 0}
    return TrainSettings.create("places-scratch", **{**base, **fields})


def test_a_stream_and_training_show_the_same_neighbours(damaged: Dataset) -> None:
    windows = damaged.sequences(length=5)
    rows = damaged.frame_rows(windows)
    stream = damaged.stream(windows, shuffle="none")
    items = [stream[index] for index in range(len(stream))]
    for threads, cache_bytes in ((1, 0), (3, 1 << 30)):
        source = FrameSource(damaged, cache_bytes=cache_bytes, replace_among=lambda: rows, threads=threads)
        for start in range(0, len(rows), 7):
            block = rows[start : start + 7]
            loaded = source.read_windows(block)
            expected = items[start : start + 7]
            assert (loaded.frames[loaded.index] == np.stack([item["frames"] for item in expected])).all()
            assert loaded.replaced == sum(int(item["replaced"].sum()) for item in expected)
            assert (loaded.rows[loaded.index] == block).all()
            assert len(loaded.frames) == len(np.unique(block)) or loaded.replaced
    assert set(stream.bad) == {damaged.frame_key(HALVED), damaged.frame_key(FLIPPED)}


def test_described_windows_show_the_same_neighbours(damaged: Dataset) -> None:
    windows = damaged.sequences(length=5)
    rows = damaged.frame_rows(windows)
    model = models.create("gem-cat-small", encoder="resnet10t", cut="layer1", weights="random", size=None)
    source = FrameSource(damaged, replace_among=lambda: rows)
    found = describe(model, damaged, windows, device="cpu", batch_size=9, source=source)
    stream = damaged.stream(windows, shuffle="none")
    frames = [stream[index] for index in range(len(stream))]
    with torch.no_grad():
        expected = torch.cat([model(torch.from_numpy(np.ascontiguousarray(item["frames"]))[None]) for item in frames])
    assert np.abs(found - expected.numpy()).max() <= 1e-5
    assert source.replaced == sum(int(item["replaced"].sum()) for item in frames) > 0


def test_a_run_ends_with_the_count_in_its_metrics(
    damaged: Dataset, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, float]] = []
    report = lambda phase, count, total, values: seen.append(dict(values)) if phase == "epoch" else None  # noqa: E731
    with caplog.at_level(logging.WARNING):
        run = train.fit(damaged, settings(tmp_path), tmp_path / "run", progress=report)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((run / "run.json").read_text())["finished"]
    assert lines[1]["replaced"] == seen[1]["replaced"] > 0
    assert sum("seqdata verify" in record.message for record in caplog.records) in (1, 2)
    whole = train.fit(dataset, settings(tmp_path), tmp_path / "whole")
    sound = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert sound[1]["replaced"] == 0 and sound[1]["losses"] != lines[1]["losses"]


def test_a_strict_run_ends_at_the_first_damaged_frame(damaged: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=rf"frame ({HALVED}|{FLIPPED}) \(map-\d+\) is damaged .*seqdata verify"):
        train.fit(damaged, settings(tmp_path, strict=True), tmp_path / "run")


@pytest.mark.parametrize("row", [HALVED, FLIPPED])
def test_all_else_names_the_damaged_frame(damaged: Dataset, row: int) -> None:
    """Describing for an index, and reading by row: the flipped bit decodes, and only its hash tells."""
    name = rf"frame {row} \({damaged.frame_key(row)}\) is damaged"
    with pytest.raises(DamagedFrameError, match=name):
        damaged.read_frames([row])
    windows = damaged.sequences(length=5)
    shows = (damaged.frame_rows(windows) == row).any(axis=1)
    model = models.create("gem-cat-small", encoder="resnet10t", cut="layer1", weights="random", size=None)
    with pytest.raises(DamagedFrameError, match=name):
        describe(model, damaged, windows.filter(pl.Series(shows)), device="cpu")


def test_descriptors_that_are_no_numbers_end_describing_and_validation(
    data: Any, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.create("gem-cat-small", encoder="resnet10t", cut="layer1", weights="random", size=None)
    windows = data.sequences(length=3)
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    with pytest.raises(DivergedError, match=r"window map-a\[0\] holds NaN or infinity"):
        describe(model, data, windows, device="cpu")
    plain = FrameModel.fuse_rows
    monkeypatch.setattr(FrameModel, "fuse_rows", lambda self, *rest: plain(self, *rest) * float("inf"))
    for epochs in (0, 1):  # validation of the untrained model comes first in both
        with pytest.raises(DivergedError, match=r"window (map|query)-val\[\d+\] holds"):
            train.fit(data, settings(tmp_path, epochs=epochs, protocol=protocol_file), tmp_path / f"run-{epochs}")
