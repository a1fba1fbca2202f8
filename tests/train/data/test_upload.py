"""Uploads beside the computation: what is used was waited for, whatever the order; with streams that are faked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.data.upload import Upload


class FakeStreams:
    """Copies arrive when their event is waited for; until then they hold rubbish."""

    def __init__(self) -> None:
        self.waits = 0

    def copy(self, host: Tensor) -> tuple[Tensor, Any]:
        return torch.full_like(host, 99), host

    def wait(self, copy: Tensor, event: Any) -> None:
        self.waits += 1
        copy.copy_(event)


def test_a_cpu_takes_arrays_as_they_are() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    upload = Upload(torch.device("cpu"))
    tensor = upload.receive(upload.send(array))
    assert tensor.data_ptr() == array.ctypes.data, "no copy"


def test_what_is_received_has_arrived() -> None:
    streams = FakeStreams()
    upload = Upload(torch.device("cpu"), streams)
    arrays = [np.full((2, 3), number, np.int64) for number in range(3)]
    sent = [upload.send(array) for array in arrays]
    assert streams.waits == 0
    for number in (2, 0, 1):
        np.testing.assert_array_equal(upload.receive(sent[number]).numpy(), arrays[number])
    assert streams.waits == 3


@pytest.mark.parametrize("streams", [None, FakeStreams()])
def test_the_layout_of_channels_last_frames_stays(streams: Any) -> None:
    """Frames lie as decoders write them, and go to the network so: no transposing copy."""
    frames = np.moveaxis(np.random.default_rng(0).integers(0, 255, (2, 5, 7, 3), dtype=np.uint8), -1, 1)
    upload = Upload(torch.device("cpu"), streams)
    tensor = upload.receive(upload.send(frames))
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(tensor.numpy(), frames)
