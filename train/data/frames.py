"""Reading frames for the network, with an optional cache in memory for small datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import ContractError
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


class FrameSource:
    """Frames by row, `(n, 3, H, W)` uint8 RGB; at most `cache_bytes` of them stay decoded in memory.

    `size` (height, width) resizes at reading; None reads frames at their own size. Once the budget is full no frame is
    added: an even share of hits beats replacement when every epoch visits everything.
    """

    pixels = True

    def __init__(self, dataset: "Dataset", size: tuple[int, int] | None = None, cache_bytes: int = 0) -> None:
        self.dataset = dataset
        self.size = size
        self.cache_bytes = cache_bytes
        self._held: dict[int, NDArray[np.uint8]] = {}
        self._bytes = 0

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Frames `rows` `(n,)`, in this order. Raises: InputError when one cannot be read."""
        if self.cache_bytes <= 0:
            return self.dataset.read_frames(rows, size=self.size)
        wanted = sorted({int(row) for row in rows} - self._held.keys())
        fresh = self.dataset.read_frames(np.asarray(wanted, np.int64), size=self.size) if wanted else ()
        new = dict(zip(wanted, fresh, strict=True))
        frames = np.stack([new[int(row)] if int(row) in new else self._held[int(row)] for row in rows])
        for row, frame in new.items():
            if self._bytes + frame.nbytes > self.cache_bytes:
                break
            self._held[row] = frame.copy()
            self._bytes += frame.nbytes
        return frames

    def encode(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Features of frames that `read` gave, on the model's device."""
        return model.encode_frames(frames)

    def tokens(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """What the model's VLAD layer gets of frames that `read` gave: `(N, T, C)`."""
        return model.tokens(frames)


def native_size(dataset: "Dataset", rows: NDArray[np.int64], size: tuple[int, int] | None) -> tuple[int, int] | None:
    """The size to read frames `rows` at: None (their own) when they all have one size, else the model's `size`.

    Reading natively leaves the resizing to the model, so that a descriptor is the same whoever calls the model.
    Raises: ContractError when frames differ in size and the model has none.
    """
    sizes = dataset.frames.select("height", "width").collect()[np.unique(rows)].unique()
    if len(sizes) <= 1:
        return None
    if size is None:
        raise ContractError(
            f"frames have {len(sizes)} sizes and the model keeps theirs; give the model one: --option size=[H,W]"
        )
    return size
