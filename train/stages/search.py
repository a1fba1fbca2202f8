"""From images and videos to places, through the index's own model."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer.describer import check_weights
from indexer.localizer.frame_form import index_form, index_protocol
from indexer.localizer.places import nearest_places
from indexer.localizer.query_frames import FrameOrder, FrameSequence, VideoRate, frame_sequences
from indexer.localizer.search import PICTURED, Answer, Thumbnails
from indexer.place_index import PlaceIndex
from seqdata.errors import NotEnoughDataError
from seqdata.frames.images import Pixels
from seqdata.geometry import Float32Array
from train.data.describe_settings import DescribeSettings
from train.data.encode import encode_frames
from train.models.base import SequenceModel
from train.stages.describer import RunDescriber


@dataclass(frozen=True)
class WindowDescriptor:
    """One window of a sequence: its first frame's number in it (from 0), names of its frames, their pixels (3, H, W)
    each, and its descriptor (D,) float32.
    """

    first: int
    names: tuple[str, ...]
    frames: tuple[Pixels, ...]
    descriptor: Float32Array


def search_frames(
    index: PlaceIndex,
    paths: list[Path],
    describer: RunDescriber,
    k: int,
    rate: VideoRate | None = None,
    thumbnails: Thumbnails | None = None,
    *,
    order: FrameOrder | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[Answer]:
    """Find the k nearest places of each window cut from image files, folders of them, and videos.

    Windows have the index's length and follow each other without overlap; the last one ends with the last frame. Frames
    are brought to the form of the index's own, read ahead, and encoded some at a time. Memory: a window and a few of
    these batches, whatever the length of a video.

    Args:
        index: The index to search, built from a dataset.
        paths: Image files, folders and videos (see `frame_sequences`).
        describer: The run that the index was built with.
        k: Places for each window.
        rate: Which frames of a video are taken; None for all.
        thumbnails: Makes the pictures of an answer; None for none.
        order: In which order the images of a folder are read.
        report: Takes a sentence about frames that are left out.

    Yields:
        One answer a window.

    Raises:
        InputError: If a path holds no readable picture, or nothing says in which order a folder is read.
        NotEnoughDataError: If there are fewer frames than a window needs.
        ContractError: If the run is not the index's.
    """
    check_weights(describer, index.id, index.manifest.inputs["checkpoint"])
    model, length = describer.network, index_protocol(index).length
    form = index_form(index, model.size)
    number = 0
    rate = rate or VideoRate()
    for sequence in frame_sequences(paths, form, rate, length=length, order=order, report=report):
        for window in _windows(sequence, describer, length):
            pictures = thumbnails(np.stack(window.frames)) if thumbnails is not None and number < PICTURED else []
            places = nearest_places(index, window.descriptor, k)[0]
            yield Answer(sequence.name, window.names, places, tuple(pictures), sequence.order, window.first)
            number += 1


def _windows(sequence: FrameSequence, describer: RunDescriber, length: int) -> Iterator[WindowDescriptor]:
    """Cut a sequence into windows as it is read; each frame is encoded once.

    Raises:
        NotEnoughDataError: For a sequence that is shorter than a window.
    """
    settings = describer.settings
    model = describer.network.to(settings.torch_device).eval()
    # Holds what one window needs and drops the oldest by itself: memory does not grow with the length of a video.
    ring: deque[tuple[str, Pixels, Tensor]] = deque(maxlen=length)
    count = 0
    frames = encode_frames(sequence.read(), describer.encode, settings.torch_device, settings.precision)
    for count, frame in enumerate(frames, start=1):
        ring.append(frame)
        if count % length == 0:
            yield _describe(model, ring, count - length, settings)
    if count < length:
        raise NotEnoughDataError(f"{sequence.name}: {count} frames, a window of this index needs {length}")
    if count % length:
        # The ring now holds the last `length` frames: the window that ends with the sequence.
        yield _describe(model, ring, count - length, settings)


@torch.inference_mode()
def _describe(
    model: SequenceModel, ring: deque[tuple[str, Pixels, Tensor]], first: int, settings: DescribeSettings
) -> WindowDescriptor:
    """The window of the frames in a ring of (name, pixels, features)."""
    names, frames, features = zip(*ring, strict=True)
    with settings.computing():
        descriptor = model.fuse(torch.cat(features).unsqueeze(0))[0].float().cpu().numpy()
    return WindowDescriptor(first, names, frames, descriptor)
