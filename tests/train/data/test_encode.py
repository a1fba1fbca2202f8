"""Frames read ahead and encoded in batches: order, errors at their place, sizes, nothing left set between batches."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from train.data import encode
from train.data.encode import encode_batches, encode_frames
from train.data.upload import Upload

CPU = torch.device("cpu")


def test_batches_come_in_order_and_an_error_at_its_place() -> None:
    def read(number: int) -> np.ndarray:
        if number == 3:
            raise ValueError("frame of batch 3")
        return np.full((2, 1), number, np.float32)

    batches = encode_batches(range(5), read, lambda frames: frames * 2, Upload(CPU), "fp32")
    assert [(number, features.tolist()) for number, features in (next(batches) for _ in range(3))] == [
        (0, [[0], [0]]),
        (1, [[2], [2]]),
        (2, [[4], [4]]),
    ]
    with pytest.raises(ValueError, match="batch 3"):
        next(batches)


def test_gradients_are_off_inside_alone() -> None:
    """What is set for a batch is put back before the code between two batches runs."""
    weight = torch.ones(1, requires_grad=True)
    batches = encode_batches([1.0], lambda x: np.array([x]), lambda frames: frames * weight, Upload(CPU), "fp32")
    _, features = next(batches)
    assert not features.requires_grad and torch.is_grad_enabled()


def test_frames_are_encoded_some_at_a_time_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BATCH", 3)
    shapes: list[tuple[int, ...]] = []

    def model(frames: Tensor) -> Tensor:
        shapes.append(tuple(frames.shape))
        return frames.float().mean((1, 2, 3))[:, None]

    def drive() -> Iterator[tuple[str, np.ndarray]]:
        for number, side in enumerate((4, 4, 4, 4, 6, 6, 4)):
            yield f"frame {number}", np.full((3, side, side), number, np.uint8)

    encoded = list(encode_frames(drive(), model, CPU, "fp32"))
    assert shapes == [(3, 3, 4, 4), (1, 3, 4, 4), (2, 3, 6, 6), (1, 3, 4, 4)]
    for number, (name, pixels, features) in enumerate(encoded):
        assert name == f"frame {number}" and int(pixels[0, 0, 0]) == number
        assert features.tolist() == [[number]]
