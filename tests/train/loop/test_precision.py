"""The run's precision in all that its loop describes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import settings
from train.data.describe import describe
from train.loop.validation import search
from train.sampling import regimes


def test_mining_and_validation_take_the_runs_precision(
    data: FakeDataset, protocol_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noted(*values: Any, precision: str, **options: Any) -> np.ndarray:
        seen.append(precision)
        return describe(*values, **options)

    monkeypatch.setattr("train.loop.trainer.describe", noted)
    train.fit(data, settings(protocol_file, epochs=1, precision="bf16"), tmp_path / "run")
    assert len(seen) >= 3 and set(seen) == {"bf16"}


def test_mining_ranks_on_the_runs_device(
    data: FakeDataset, protocol_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[torch.device] = []
    original = regimes.mine

    def noted(*values: Any, device: torch.device, **options: Any) -> Any:
        devices.append(device)
        return original(*values, device=device, **options)

    monkeypatch.setattr(regimes, "mine", noted)
    train.fit(data, settings(protocol_file, epochs=1), tmp_path / "run")
    assert devices and set(devices) == {torch.device("cpu")}


def test_aligned_descriptors_leave_a_full_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation goes on with the CPU, to the same answers."""
    rng = np.random.default_rng(0)
    query, database = rng.standard_normal((7, 12)).astype(np.float32), rng.standard_normal((30, 12)).astype(np.float32)
    expected = search(query, database, 4, frames=3)
    original = torch.Tensor.to

    def full(self: torch.Tensor, *values: Any, **options: Any) -> torch.Tensor:
        if values and isinstance(values[0], torch.device) and values[0].type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *values, **options)

    monkeypatch.setattr(torch.Tensor, "to", full)
    for ours, theirs in zip(search(query, database, 4, frames=3, device=torch.device("cuda")), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
