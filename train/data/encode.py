"""Frames through the first half of a model: read ahead, on their way to the device while the last ones are encoded."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from indexer.describer import Precision
from seqdata.frames.images import Pixels
from seqdata.frames.prefetch import prefetch
from train.data.upload import Upload
from train.devices import computing

Item = TypeVar("Item")
Frames = npt.NDArray[Any] | Tensor
Encode = Callable[[Tensor], Tensor]
"""Frames (N, …) on the device to their features (N, …)."""
NamedFrame = tuple[str, Pixels]
"""What a frame is called, and its pixels (3, H, W)."""

READ_AHEAD = 3
"""Batches of frames that are read and on their way while one is encoded."""
BATCH = 32
"""Frames of a drive or a video that are encoded at once: some 30 MB of 640×480 pixels."""


def encode_batches(
    batches: Iterable[Item],
    read: Callable[[Item], Frames],
    encode: Encode,
    upload: Upload,
    precision: Precision,
) -> Iterator[tuple[Item, Tensor]]:
    """Read batches ahead, send them to the device, and encode them there, without gradients.

    Args:
        batches: What is read, in the thread that reads ahead.
        read: Reads the frames of a batch (N, …).
        encode: The model's first half.
        upload: The way to the device where the model is.
        precision: How a CUDA device computes.

    Yields:
        Each batch with its features (N, …) on the device, in order.

    Example:
        >>> upload = Upload(torch.device("cpu"))
        >>> parts = encode_batches([1, 2], lambda n: np.full((n, 2), n), lambda x: x.sum(1), upload, "fp32")
        >>> [(batch, features.tolist()) for batch, features in parts]
        [(1, [2]), (2, [4, 4])]
    """
    for batch, sent in prefetch(batches, lambda batch: (batch, upload.send(read(batch))), READ_AHEAD):
        # Entered a batch at a time: what is set here must not reach the code between two batches.
        with torch.no_grad(), computing(upload.device, precision):
            features = encode(upload.receive(sent))
        yield batch, features


def encode_frames(
    frames: Iterable[NamedFrame], encode: Encode, device: torch.device, precision: Precision
) -> Iterator[tuple[str, Pixels, Tensor]]:
    """Encode frames as they come from a folder or a video, some at a time.

    Args:
        frames: Names and pixels (3, H, W) in order; those that differ in size go in batches of their own.
        encode: The model's first half.
        device: Where the model is.
        precision: How a CUDA device computes.

    Yields:
        Name, pixels and features (1, …) of each frame, in order.
    """
    for batch, features in encode_batches(_batches(frames), _stack, encode, Upload(device), precision):
        for row, (name, pixels) in enumerate(batch):
            yield name, pixels, features[row : row + 1]


def _stack(batch: list[NamedFrame]) -> Frames:
    return np.stack([pixels for _, pixels in batch])


def _batches(frames: Iterable[NamedFrame]) -> Iterator[list[NamedFrame]]:
    """Group frames that follow each other and are of one size, `BATCH` at most."""
    batch: list[NamedFrame] = []
    for frame in frames:
        if batch and (len(batch) == BATCH or batch[0][1].shape != frame[1].shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch
