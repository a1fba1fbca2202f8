"""Frames as a model takes them: windows in any order over the dataset's one reader of frames."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seqdata.dataset.frame_sizes import frame_sizes
from seqdata.errors import ContractError
from seqdata.frames.images import Pixels
from seqdata.frames.prefetch import read_frames
from seqdata.frames.reader import DamagedFrameError, stack_channels_first, stack_channels_last
from seqdata.frames.resize import Kernel
from seqdata.geometry import IntArray
from seqdata.streaming.bad_frames import Neighbours, visible_rows
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class WindowFrames:
    """What the frames of some windows show, each distinct one once.

    Attributes:
        frames: Pixels uint8 (M, 3, H, W), or stored features (M, …); a tensor where a device has decoded them.
        index: Rows of each window into `frames`, int64 (B, L).
        rows: The frame row that each of `frames` stands for, int64 (M,), rising.
        replaced: Number of the (B, L) frames that show a neighbour's pixels, because their own are damaged.
    """

    frames: NDArray[Any] | Tensor
    index: IntArray
    rows: IntArray
    replaced: int = 0


class WindowSource:
    """What a model's input is read from; here, what pixels and stored features have in common."""

    pixels = False
    replaces = False
    """Whether a damaged frame shows its neighbour, instead of being an error."""
    replaced = 0
    """Frames of described windows that show a neighbour, so far."""

    def read(self, rows: IntArray) -> NDArray[Any]:
        """Read the input of frame rows (n,), in this order: (n, …)."""
        raise NotImplementedError

    def read_windows(self, windows: IntArray) -> WindowFrames:
        """Read the frames of windows (B, L) of frame rows, damaged ones replaced where the source replaces."""
        rows, index = np.unique(windows, return_inverse=True)
        return WindowFrames(self.read(rows), index.reshape(windows.shape), rows)

    def visible_rows(self, windows: IntArray, check: bool = False) -> IntArray:
        """Frame rows (B, L) that windows (B, L) show; `check` reads every frame first to learn which are damaged."""
        return windows

    def passing(self) -> AbstractContextManager[None]:
        """Read meanwhile without storing frames in a cache: for a pass over frames that are not the training's."""
        return nullcontext()

    def encode(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Encode frames that `read` gave, on the model's device, to the features that the model fuses."""
        return model.encode_frames(frames)

    def tokens(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Encode frames that `read` gave to what the model's VLAD layer gets: (N, T, C)."""
        return model.tokens(frames)


class FrameSource(WindowSource):
    """Frames of a dataset, decoded by several threads through one bounded cache.

    Args:
        dataset: An opened dataset.
        size: (height, width) to resize to at reading; None reads frames at their own size.
        cache_bytes: Greatest number of bytes of decoded frames that stay in memory.
        replace_among: Gives the frame rows of all windows in use, of any shape: a damaged frame then shows its nearest
            good neighbour, as in `seqdata.streaming.bad_frames`. None: a damaged frame is an error.
        threads: Decoding threads; 0: one a core of this process.
        device: What decodes (see `seqdata.frames.decode.decoder`).
        channels_last: Whether `frames` lie in memory as (n, H, W, 3), which is how decoders write them and what a card
            computes with; a CPU adds up in another order then.
        kernel: How frames are resized (see `seqdata.frames.resize.Kernel`).
    """

    pixels = True

    def __init__(
        self,
        dataset: "Dataset",
        size: tuple[int, int] | None = None,
        cache_bytes: int = 0,
        *,
        replace_among: Callable[[], IntArray] | None = None,
        threads: int = 0,
        device: str = "cpu",
        channels_last: bool = False,
        kernel: Kernel = "pillow",
    ) -> None:
        self.dataset = dataset
        self._stack = stack_channels_last if channels_last else stack_channels_first
        self.size = size
        self.threads = threads
        self.reader = dataset.frame_reader(size, device, kernel)
        self.cache = self.reader.cache(cache_bytes)
        self.replaces = replace_among is not None
        self._replace_among = replace_among

    def read(self, rows: IntArray) -> Pixels:
        """Read frames `rows` (n,), in this order, replacing none: uint8 (n, 3, H, W).

        Raises:
            InputError: If a shard cannot be read.
            DamagedFrameError: If a frame's bytes are not those that the build stored.
        """
        frames = self._read(np.unique(rows))
        return self._stack([self._good(row, frames[row]) for row in rows.tolist()], self.size)

    def read_windows(self, windows: IntArray) -> WindowFrames:
        """Read the frames of windows (B, L) of frame rows. Raises: as `read`, unless damaged frames are replaced."""
        distinct = np.unique(windows)
        frames = self._read(distinct)
        # The usual way, without damage: one gather and no search for neighbours.
        if not self.replaces or all(frame is not None for frame in frames.values()):
            stacked = self._stack([self._good(row, frames[row]) for row in distinct.tolist()], self.size)
            return WindowFrames(stacked, np.searchsorted(distinct, windows), distinct)
        visible = self._replace(windows)
        frames |= self._read(np.setdiff1d(visible, distinct))
        # One damaged frame may show different neighbours in different windows, so what is distinct are pairs.
        pairs, index = np.unique(np.stack([windows.ravel(), visible.ravel()]), axis=1, return_inverse=True)
        stacked = self._stack([self._good(row, frames[row]) for row in pairs[1].tolist()], self.size)
        return WindowFrames(stacked, index.reshape(windows.shape), pairs[0], int((visible != windows).sum()))

    def passing(self) -> AbstractContextManager[None]:
        """See `WindowSource.passing`."""
        return self.cache.passing()

    def visible_rows(self, windows: IntArray, check: bool = False) -> IntArray:
        """Frame rows (B, L) that windows (B, L) show, by the damage known so far."""
        if check:
            distinct = np.unique(windows)
            for start in range(0, len(distinct), 64):  # a few at a time: their pixels are dropped again
                self._read(distinct[start : start + 64])
        return self._replace(windows) if self.replaces and self.cache.bad else windows

    def _read(self, rows: IntArray) -> dict[int, Pixels | None]:
        return read_frames(self.cache, rows.tolist(), self.threads)

    def _good(self, row: int, frame: Pixels | None) -> Pixels:
        if frame is None:
            key = self.dataset.frame_key(row)
            raise DamagedFrameError(row, self.cache.bad[row], key)
        return frame

    def _replace(self, windows: IntArray) -> IntArray:
        return np.stack([visible_rows(self.cache, window, self._neighbours) for window in windows])

    @cached_property
    def _neighbours(self) -> Neighbours:
        assert self._replace_among is not None  # noqa: S101  (only sources that replace come here)
        return Neighbours(self._replace_among(), self.dataset.frame_columns("trajectory")["trajectory"])


def native_size(
    dataset: "Dataset", rows: Callable[[], IntArray], size: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Choose the size to read frames at.

    Reading natively leaves the resizing to the model, so that a descriptor is the same in every command.

    Args:
        dataset: The dataset.
        rows: Gives the frame rows, of any shape; asked only where frames of the dataset differ in size.
        size: The model's (height, width), or None for a model that keeps sizes.

    Returns:
        None (their own size) when all frames have one size, else the model's size.

    Raises:
        ContractError: If frames differ in size and the model has none.
    """
    sizes = frame_sizes(dataset, rows)
    if len(sizes) <= 1:
        return None
    if size is None:
        height, width = sizes.row(0)
        raise ContractError(
            f"frames have {len(sizes)} sizes and the model keeps theirs; make it with one size, as in seqdata train "
            f"--option 'size=[{height},{width}]'"
        )
    return size
