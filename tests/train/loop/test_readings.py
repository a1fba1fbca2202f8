"""Numbers that are read late: in order, no sooner than they must, and all of them in the end; with a fake card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from seqdata.errors import DivergedError
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import settings
from train.loop.readings import Readings


class FakeCard(Readings):
    """A device whose copies have arrived only when their event was waited for."""

    def __init__(self, device: torch.device = torch.device("cuda", 0)) -> None:  # noqa: B008
        super().__init__(torch.device("cuda", 0))
        self.waits = 0

    def _start(self, values: Tensor) -> tuple[Tensor, Any]:
        host = torch.full_like(values, -1.0)

        class Event:
            def synchronize(event) -> None:
                self.waits += 1
                host.copy_(values)

        return host, Event()


def note(target: list[float]) -> Callable[[list[float]], None]:
    return lambda values: target.extend(values)


def test_a_cpus_numbers_are_used_at_once() -> None:
    seen: list[float] = []
    readings, values = Readings(torch.device("cpu")), torch.tensor([1.0, 2.0], requires_grad=True)
    readings.add(values, note(seen))
    assert seen == [1.0, 2.0]


def test_a_cards_numbers_are_used_in_order_and_not_before_they_are_settled() -> None:
    seen: list[float] = []
    readings = FakeCard()
    for number in range(5):
        readings.add(torch.tensor([float(number)]), note(seen))
    assert seen == [] and readings.waits == 0
    readings.settle(newest=2)
    assert seen == [0.0, 1.0, 2.0] and readings.waits == 3
    readings.settle()
    readings.settle()
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0] and readings.waits == 5


def test_an_error_of_a_use_reaches_the_one_who_settles() -> None:
    readings = FakeCard()

    def refuse(values: list[float]) -> None:
        raise ArithmeticError(values)

    readings.add(torch.tensor([3.0]), refuse)
    with pytest.raises(ArithmeticError, match=r"3\.0"):
        readings.settle()


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("wait", "seconds")} for line in lines]


def test_a_run_whose_numbers_come_late_writes_the_same(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step, an odd number of steps an update, a saved state in the middle of an epoch."""
    fields = {"epochs": 2, "accumulate": 2, "batch": 3, "save_every": 3}
    plain = metrics(train.fit(data, settings(protocol_file, **fields), tmp_path / "plain"))
    monkeypatch.setattr("train.loop.trainer.Readings", FakeCard)
    late = metrics(train.fit(data, settings(protocol_file, **fields), tmp_path / "late"))
    assert len(plain[1]["losses"]) > 3
    assert late == plain


def test_a_loss_that_is_not_finite_is_named_though_it_is_read_late(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(self: object, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        calls.append(1)
        return query.sum() * (float("nan") if len(calls) == 2 else 0.0)

    monkeypatch.setattr("train.sampling.regimes.TripletLoss.forward", broken)
    named = []
    for name, readings in (("plain", Readings), ("late", FakeCard)):
        calls.clear()
        monkeypatch.setattr("train.loop.trainer.Readings", readings)
        with pytest.raises(DivergedError, match="epoch 1, step 1"):
            train.fit(data, settings(protocol_file, batch=2), tmp_path / name)
        named.append(json.loads((tmp_path / name / "diverged.json").read_text()))
    assert named[0] == named[1]
    assert len(calls) <= 4, "the run ends two steps after it at the latest"
