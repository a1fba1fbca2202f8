"""Where frame descriptors come from: thumbnails of a dataset's frames, or any reader, held in memory where wanted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from indexer.matching.aligned import FrameReader
from indexer.matching.thumbnails import SIZE, SOFTENING, thumbnails
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

FRAMES_A_BLOCK = 256


@dataclass(frozen=True)
class FrameVectors:
    """Frame descriptors from elsewhere: what reads them by frame row, and what they are called in a table."""

    read: FrameReader
    name: str


class ThumbnailReader:
    """Thumbnails (n, 2048) float32 of a dataset's frames by frame row; see `indexer.matching.thumbnails`.

    `frames` are the rows that will be asked for: where they differ in size, all are brought to the thumbnail's size
    while decoding.
    """

    def __init__(self, dataset: Dataset, frames: IntArray, softening: float | None = None) -> None:
        self.dataset = dataset
        self.softening = SOFTENING if softening is None else softening
        self._size = None if dataset.frame_columns("height", "width")[frames].unique().height == 1 else SIZE

    def __call__(self, rows: IntArray) -> Float32Array:
        """Thumbnails of frame rows (n,)."""
        return thumbnails(self.dataset.read_frames(rows, self._size), softening=self.softening)


def held(read: FrameReader, rows: IntArray, progress: Callable[[int, int], None] | None = None) -> FrameReader:
    """A reader that has read the frames `rows` (rising, distinct) once and keeps them, n × p float32.

    `progress(done, total)` counts frames. Raises: ContractError when it is asked for another frame, or the reader gives
    anything but one row of finite numbers a frame.
    """
    kept: Float32Array | None = None
    for start in range(0, len(rows), FRAMES_A_BLOCK):
        part = slice(start, min(start + FRAMES_A_BLOCK, len(rows)))
        block = np.asarray(read(rows[part]), np.float32)
        if block.ndim != 2 or not np.isfinite(block).all():
            raise ContractError(f"frame descriptors {block.shape}: one row of finite numbers a frame is needed")
        if kept is None:
            kept = np.empty((len(rows), block.shape[1]), np.float32)
        kept[part] = block
        if progress is not None:
            progress(part.stop, len(rows))
    vectors = np.empty((0, 0), np.float32) if kept is None else kept

    def again(wanted: IntArray) -> Float32Array:
        if len(wanted) == len(rows) and np.array_equal(wanted, rows):
            return vectors
        at = np.searchsorted(rows, wanted)
        if (rows[np.minimum(at, len(rows) - 1)] != wanted).any():
            raise ContractError("a frame was asked for that was not read before")
        return vectors[at]

    return again
