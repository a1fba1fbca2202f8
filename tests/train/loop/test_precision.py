"""The run's precision in all that its loop describes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import settings
from train.data.describe import describe, describe_in_place
from train.devices import has_room
from train.loop.validation import search
from train.sampling import mining


def test_mining_and_validation_take_the_runs_precision(
    data: FakeDataset, protocol_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noted(*values: Any, precision: str, **options: Any) -> torch.Tensor:
        seen.append(precision)
        return describe_in_place(*values, **options)

    monkeypatch.setattr("train.loop.trainer.describe_in_place", noted)
    train.fit(data, settings(protocol_file, epochs=1, precision="bf16"), tmp_path / "run")
    assert len(seen) >= 3 and set(seen) == {"bf16"}


def memory(values: torch.Tensor) -> int:
    return values.untyped_storage().data_ptr()


def test_mining_ranks_where_descriptors_are(
    data: FakeDataset, protocol_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are compared in the memory that they were described into, in each block of each round."""
    described: list[torch.Tensor] = []
    compared: list[int] = []
    distance_table = mining.distance_table

    def in_place(*values: Any, **options: Any) -> torch.Tensor:
        described.append(describe_in_place(*values, **options))
        return described[-1]

    def noted(query: torch.Tensor, reference: torch.Tensor, frames: int | None) -> Any:
        compared.append(memory(reference))
        return distance_table(query, reference, frames)

    monkeypatch.setattr("train.loop.trainer.describe_in_place", in_place)
    monkeypatch.setattr(mining, "distance_table", noted)
    train.fit(data, settings(protocol_file, epochs=1), tmp_path / "run")
    assert compared and set(compared) <= set(map(memory, described))


def test_descriptors_stay_on_a_card_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what is free, or reserved by PyTorch and not in use: here 100 + 60 bytes."""
    for name, value in (("mem_get_info", (100, 1000)), ("memory_reserved", 90), ("memory_allocated", 30)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    card = torch.device("cuda:0")
    assert has_room(39, card) and not has_room(40, card)
    assert has_room(1 << 50, torch.device("cpu"))


def test_descriptors_in_place_are_those_of_the_host(tiny: Any, data: FakeDataset) -> None:
    model, table = tiny(), data.sequences(length=3)[::-2]
    in_place = describe_in_place(model, data, table, device="cpu")
    np.testing.assert_array_equal(in_place.numpy(), describe(model, data, table, device="cpu"))
    assert describe_in_place(model, data, table[:0], device="cpu").shape == (0, 0)


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
