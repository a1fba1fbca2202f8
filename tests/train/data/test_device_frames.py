"""Frames that a device decodes in lists: those of the CPU, also where it refuses, where they are damaged, resized."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdata import Dataset
from seqdata.frames.decode import decode_image
from seqdata.frames.reader import DamagedFrameError
from tests.train.data.test_damaged_frames import FLIPPED, HALVED, damaged
from train.data.device_frames import DeviceFrames
from train.data.frames import FrameSource

__all__ = ["damaged"]
CPU = torch.device("cpu")


class FakeCard:
    """Decodes lists as torchcodec does, on the CPU; refuses a list that holds one of some images."""

    def __init__(self, refused: tuple[bytes | None, ...] = ()) -> None:
        self.refused, self.images = refused, 0

    def __call__(self, images: list[bytes]) -> list[Tensor]:
        if set(images) & set(self.refused):
            raise RuntimeError("unsupported JPEG")
        self.images += len(images)
        return [torch.from_numpy(decode_image(image)).permute(2, 0, 1) for image in images]


def numbers(frames: Any) -> np.ndarray:
    return np.asarray(torch.as_tensor(frames))


@pytest.mark.parametrize("refused", [(), (40,), (0, 3, 7, 40)])
def test_frames_are_those_of_the_cpu(
    dataset: Dataset, refused: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A kind of JPEG that the card does not know is the CPU's, alone, and said once."""
    encoded = dataset.frame_reader(None, "cpu").fetch(np.array(refused, np.int64)) if refused else {}
    card, rows = FakeCard(tuple(encoded.values())), np.array([7, 3, 3, 40, 0])
    source = DeviceFrames(dataset, device=CPU, decode_list=card)
    frames: Any = source.read(rows)
    assert isinstance(frames, Tensor) and frames.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(numbers(frames), FrameSource(dataset).read(rows))
    assert (card.images, source.refused) == (4 - len(refused), len(refused))
    assert caplog.text.count("the CPU does") == (1 if refused else 0)
    assert numbers(source.read(np.array([], np.int64))).shape == (0, 3, 0, 0)


def test_damaged_frames_show_the_same_neighbours(damaged: Dataset) -> None:
    rows = damaged.frame_rows(damaged.sequences(length=5))
    theirs = FrameSource(damaged, replace_among=lambda: rows)
    ours = DeviceFrames(damaged, device=CPU, replace_among=lambda: rows, decode_list=FakeCard())
    for start in range(0, len(rows), 9):
        block = rows[start : start + 9]
        one, other = ours.read_windows(block), theirs.read_windows(block)
        np.testing.assert_array_equal(numbers(one.frames)[one.index], numbers(other.frames)[other.index])
        np.testing.assert_array_equal(one.rows, other.rows)
        assert one.replaced == other.replaced
    assert set(ours.cache.bad) == set(theirs.cache.bad) == {HALVED, FLIPPED}
    with pytest.raises(DamagedFrameError, match=str(FLIPPED)):
        DeviceFrames(damaged, device=CPU, decode_list=FakeCard()).read(np.array([FLIPPED]))


def test_resizing_is_that_of_the_cpu_to_a_grey_level(dataset: Dataset) -> None:
    rows = np.array([2, 9])
    ours = numbers(DeviceFrames(dataset, (24, 20), device=CPU, decode_list=FakeCard()).read(rows))
    theirs = FrameSource(dataset, (24, 20)).read(rows)
    assert ours.shape == theirs.shape and np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: device-side assert triggered")]
)
def test_a_card_that_is_full_or_broken_is_no_reason_for_the_host(dataset: Dataset, error: RuntimeError) -> None:
    def full(images: list[bytes]) -> list[Tensor]:
        raise error

    with pytest.raises(type(error), match=str(error)):
        DeviceFrames(dataset, device=CPU, decode_list=full).read(np.array([1]))
