"""Where frame descriptors come from: thumbnails of a dataset's frames, or any reader, read once into memory."""

from dataclasses import dataclass

import numpy as np

from indexer.matching.aligned import FrameReader
from indexer.matching.thumbnails import SIZE, SOFTENING, thumbnails
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress

FRAMES_A_BLOCK = 256


@dataclass(frozen=True)
class FrameVectors:
    """Frame descriptors from elsewhere: what reads them by frame row, and what they are called in a table."""

    read: FrameReader
    name: str


class ThumbnailReader:
    """Thumbnails of a dataset's frames by frame row; see `indexer.matching.thumbnails`."""

    def __init__(self, dataset: Dataset, frames: IntArray, softening: float | None = None) -> None:
        """Prepare to read frames.

        Args:
            dataset: Where the frames are.
            frames: Rows that will be read: where they differ in size, all are decoded to the thumbnail's size.
            softening: Grey levels added to a patch's deviation; None for the default.
        """
        self.dataset = dataset
        self.softening = SOFTENING if softening is None else softening
        # Frames of one size are shrunk after decoding, which is what the reference figures were measured with.
        self._size = None if dataset.frame_columns("height", "width")[frames].unique().height == 1 else SIZE

    def __call__(self, rows: IntArray) -> Float32Array:
        """Read the thumbnails (n, 2048) float32 of frame rows (n,)."""
        return thumbnails(self.dataset.read_frames(rows, self._size), softening=self.softening)


def read_once(read: FrameReader, rows: IntArray, progress: Progress | None = None) -> FrameReader:
    """Read frames once and return a reader over their descriptors in memory.

    Args:
        read: Reads descriptors (n, p) by frame row.
        rows: Frame rows (n,), rising and distinct.
        progress: Called with (frames read, frames in all).

    Raises:
        ContractError: If `read` gives anything but one row of finite numbers a frame; the returned reader raises it
            for a frame that is not among `rows`.
    """
    vectors = np.empty((0, 0), np.float32)
    for start in range(0, len(rows), FRAMES_A_BLOCK):
        part = slice(start, min(start + FRAMES_A_BLOCK, len(rows)))
        block = np.asarray(read(rows[part]), np.float32)
        if block.ndim != 2 or not np.isfinite(block).all():
            raise ContractError(f"frame descriptors {block.shape}: one row of finite numbers a frame is needed")
        # How wide a descriptor is shows with the first block alone.
        if start == 0:
            vectors = np.empty((len(rows), block.shape[1]), np.float32)
        vectors[part] = block
        if progress is not None:
            progress(part.stop, len(rows))

    def read_from_memory(frames: IntArray) -> Float32Array:
        # All frames in order are the array itself: no second copy of what may be the largest thing in memory.
        if len(frames) == len(rows) and np.array_equal(frames, rows):
            return vectors
        positions = np.searchsorted(rows, frames)
        if (rows[np.minimum(positions, len(rows) - 1)] != frames).any():
            raise ContractError("a frame is needed that was not read before")
        return vectors[positions]

    return read_from_memory
