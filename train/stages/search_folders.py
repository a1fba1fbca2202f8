"""Search of one folder of images in another with a model as it is: no dataset, no positions, no index.

Both folders are read in driving order and cut into windows: every window of the database, and the queries one behind
the other. Distances are exact L2.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.query_frames import FrameOrder, FrameSequence, VideoRate, frame_sequences
from indexer.search.exact import Neighbours, nearest_rows
from seqdata.errors import UsageError
from seqdata.geometry import Float32Array
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.data.encode import encode_frames
from train.models.base import SequenceModel


@dataclass(frozen=True)
class FolderWindows:
    """Windows of images: the names of their frames, which sequence each is of, and their descriptors (n, D) float32."""

    frames: tuple[tuple[str, ...], ...]
    sequences: tuple[str, ...]
    orders: tuple[str, ...]
    first: tuple[int, ...]
    descriptors: Float32Array


@dataclass(frozen=True)
class FolderSearch:
    """How two folders are searched: length of a window, order of images, where, and what reports progress."""

    length: int = 5
    order: FrameOrder | None = None
    rate: VideoRate | None = None
    settings: DescribeSettings = DEFAULT
    report: Callable[[str], None] = lambda _: None


def check_has_words(model: SequenceModel, name: str) -> None:
    """Raise UsageError for a VLAD layer whose centres only training frames would give."""
    vlad = getattr(model, "vlad", None)
    if vlad is not None and vlad.centres.requires_grad:
        raise UsageError(
            f"model {name}: the words of its VLAD layer come from training frames; take a model without, as "
            "gem-cat-r18 or seqgem-dinov2"
        )


def folder_windows(model: SequenceModel, paths: list[Path], search: FolderSearch, *, stride: int) -> FolderWindows:
    """Describe the windows of folders.

    Args:
        model: Describes windows (B, L, 3, H, W).
        paths: Folders, videos and image files (see `frame_sequences`).
        search: Length, order, and where and how to compute.
        stride: Frames from window to window; the last one ends with the last frame.

    Raises:
        InputError: If there is no image, or nothing says in which order a folder is read.
        NotEnoughDataError: If no drive is as long as a window.
    """
    form = FrameForm(size=model.size)
    sequences = frame_sequences(
        paths, form, search.rate or VideoRate(), length=search.length, order=search.order, report=search.report
    )
    windows = [(sequence, *window) for sequence in sequences for window in _windows(model, sequence, search, stride)]
    return FolderWindows(
        frames=tuple(names for _, _, names, _ in windows),
        sequences=tuple(sequence.name for sequence, *_ in windows),
        orders=tuple(sequence.order for sequence, *_ in windows),
        first=tuple(first for _, first, _, _ in windows),
        descriptors=np.stack([descriptor for *_, descriptor in windows]),
    )


def nearest_windows(queries: FolderWindows, database: FolderWindows, k: int) -> Neighbours:
    """Find the k nearest database windows of each query: distances and rows, (q, k) each, nearest first."""
    return nearest_rows(queries.descriptors, database.descriptors, min(k, len(database.frames)))


def _windows(
    model: SequenceModel, sequence: FrameSequence, search: FolderSearch, stride: int
) -> Iterator[tuple[int, tuple[str, ...], Float32Array]]:
    """First frame, names and descriptor of each window of a sequence; each frame is encoded once."""
    ring: deque[tuple[str, Tensor]] = deque(maxlen=search.length)
    last, count = -1, 0
    settings = search.settings
    frames = encode_frames(sequence.read(), model.encode_frames, settings.torch_device, settings.precision)
    for name, _, feature in frames:
        ring.append((name, feature))
        count += 1
        first = count - search.length
        if first >= 0 and first % stride == 0:
            last = first
            yield first, *_describe(model, ring, settings)
    if count >= search.length and last != count - search.length:
        yield count - search.length, *_describe(model, ring, settings)


@torch.inference_mode()
def _describe(
    model: SequenceModel, ring: "deque[tuple[str, Tensor]]", settings: DescribeSettings
) -> tuple[tuple[str, ...], Float32Array]:
    names, features = zip(*ring, strict=True)
    with settings.computing():
        return names, model.fuse(torch.cat(features).unsqueeze(0))[0].float().cpu().numpy()
