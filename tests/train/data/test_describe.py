"""Describing windows: one pass a frame, equal to window by window, in any order, across batch borders."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import train
from seqdata.errors import ContractError
from tests.support.fake_dataset import Drive, FakeDataset
from train.data import describe as describing


def window_by_window(model: Any, data: Any, table: Any) -> Any:
    with torch.no_grad():
        return torch.cat([model(torch.from_numpy(data.read(table, [i]))) for i in range(len(table))]).numpy()


@pytest.mark.parametrize("name", ["seqvlad-small", "gem-cat-small", "avg-mean-mobilenetv2"])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_equals_window_by_window_with_one_pass_a_frame(tiny: Any, data: FakeDataset, name: str, length: int) -> None:
    model = tiny(name)
    table = data.sequences(length=length)
    expected = window_by_window(model, data, table)
    data.read_rows.clear()
    got = train.describe(model, data, table, batch_size=7)
    assert got.dtype == np.float32 and np.abs(got - expected).max() <= 1e-5
    assert sorted(data.read_rows) == sorted(set(data.frame_rows(table).ravel().tolist()))


def test_small_blocks_keep_shared_frames(tiny: Any, data: FakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describing, "LONGEST_BLOCK", 3)
    model, table = tiny(), data.sequences(length=5)
    blocks = list(train.describe_blocks(model, data, table, batch_size=4))
    assert max(map(len, blocks)) <= 4
    assert len(data.read_rows) == len(set(data.read_rows))
    assert np.abs(np.concatenate(blocks) - window_by_window(model, data, table)).max() <= 1e-5


def test_any_order_and_repeats(tiny: Any, data: FakeDataset) -> None:
    model, table = tiny(), data.sequences(length=3)
    whole = train.describe(model, data, table)
    rows = np.random.default_rng(0).integers(0, len(table), 40)
    data.read_rows.clear()
    np.testing.assert_allclose(train.describe(model, data, table[rows]), whole[rows], atol=1e-6)
    assert len(data.read_rows) == len(set(data.read_rows))


def test_long_track_does_not_drift(tiny: Any) -> None:
    data = FakeDataset(drives=(Drive("long", "database", 0.0, 1200),), size=(8, 8))
    model, table = tiny(), data.sequences(length=15)
    got = train.describe(model, data, table)
    last = table.slice(len(table) - 3)
    assert np.abs(got[-3:] - window_by_window(model, data, last)).max() <= 1e-5


def test_mode_and_progress_are_left_as_found(tiny: Any, data: FakeDataset) -> None:
    model, seen = tiny().train(), []
    table = data.sequences(length=3)
    train.describe(model, data, table, progress=lambda done, total: seen.append((done, total)))
    assert model.training and seen[-1] == (len(table), len(table))


def test_bad_tables_are_refused(tiny: Any, data: FakeDataset) -> None:
    mixed = pl.concat([data.sequences(length=3), data.sequences(length=5)])
    with pytest.raises(ContractError, match="different lengths"):
        train.describe(tiny(), data, mixed)
    assert train.describe(tiny(), data, mixed.head(0)).shape == (0, 0)


def test_frames_of_several_sizes_need_a_size(tiny: Any, data: FakeDataset) -> None:
    frames = data.frames.with_columns(width=pl.col("position"))
    data.__class__ = type("Mixed", (FakeDataset,), {"frames": frames})
    with pytest.raises(ContractError, match="--option 'size="):
        train.describe(tiny(), data, data.sequences(length=3))
