"""A step that does not fit: one line with a batch that does; a counter of windows stands for a card's memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

import train
from seqdata.errors import ContractError
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import settings
from train.loop.memory import full_memory


@pytest.mark.parametrize(
    ("fixed", "each", "available", "fits"),
    [(2.0, 3.0, 40.0, 11), (10.0, 1.0, 24.0, 11), (0.0, 8.0, 64.0, 7), (30.0, 1.0, 30.0, 0), (1.0, 0.1, 50.0, 19)],
)
def test_the_batch_that_fits(fixed: float, each: float, available: float, fits: int) -> None:
    """The greatest whose memory stays within nine tenths, fewer than what did not fit."""
    assert fits == min(19, max(0, int((0.9 * available - fixed) / each + 1e-9)))
    text = str(full_memory("batch", 20, lambda count: fixed + each * count, available))
    assert (f"batch={fits} would fit" in text) is (fits > 0)
    assert ("not even one fits" in text) is (fits == 0)
    assert text.startswith("a step of batch=20 does not fit")


def test_nothing_fits_where_the_smallest_step_does_not() -> None:
    assert "not even one fits" in str(full_memory("places", 4, lambda count: float("inf"), 100.0))


@pytest.mark.parametrize(
    ("fields", "line"), [({"batch": 4}, "batch=3"), ({"regime": "places", "places": 5}, "places=[34]")]
)
def test_a_run_ends_in_one_line(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Any, line: str
) -> None:
    sizes: list[int] = []

    class Full:
        """A step model on a card that takes few windows at once."""

        def __init__(self, model: Any) -> None:
            self.model = model

        def __call__(self, frames: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            sizes.append(len(rows))
            if len(sizes) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            result: torch.Tensor = self.model(frames, rows)
            return result

    def peak(action: Any, device: torch.device) -> float:
        action()
        return float(sizes[-1])

    monkeypatch.setattr("train.loop.setup.compiled", lambda module, enabled: Full(module))
    monkeypatch.setattr("train.loop.memory.cuda_peak", peak)
    chosen = settings(protocol_file, **fields)
    count = getattr(chosen, next(name for name in ("places", "batch") if name in fields))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0.0, sizes[0] / 0.9 * (count - 1) / count + 0.1))
    with pytest.raises(ContractError, match=f"{line} would fit"):
        train.fit(data, chosen, tmp_path / "run")
    assert len(sizes) == 3 and sizes[1] < sizes[2] < sizes[0]
