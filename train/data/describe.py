"""Descriptors of windows: one backbone pass a distinct frame, windows by direct sliding sums, bounded memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import ContractError
from seqdata.parallel import Progress
from train.data.frames import FrameSource, native_size
from train.devices import pick_device
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

FEATURE_BYTES = 256 << 20
FUSED_BYTES = 64 << 20
LONGEST_BLOCK = 4096


@torch.no_grad()
def describe_blocks(
    model: SequenceModel,
    dataset: "Dataset",
    table: pl.DataFrame,
    *,
    device: str = "auto",
    batch_size: int = 64,
    progress: Progress | None = None,
    source: FrameSource | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield descriptors `(m, D)` float32 of the windows of `table`, in table order, in eval mode.

    `batch_size` is frames a backbone pass. Features of the frames that a block shares with the next are kept, so with
    windows in track order every frame is encoded once. `progress(done, total)` counts windows. `source` reads frames
    (default: the dataset's own reader, without a cache).
    Memory: about 256 MiB of frame features and descriptors, 64 MiB of what fusion gathers from them, and one batch of
    frames, whatever the table's length.
    Source: design, idea 4; direct sums, since float32 prefix sums drift.
    Raises: ContractError when windows differ in length, or frames in size while the model keeps their size.
    """
    where = pick_device(device)
    training = model.training
    model = model.to(where).eval()
    source = source or FrameSource(dataset, native_size(dataset, dataset.frame_rows(table), model.size))
    pool = _FeaturePool(model, source, where, batch_size)
    try:
        done = 0
        for rows in _blocks(dataset, table, pool):
            yield _fuse(model, *pool.of(rows), pool)
            done += len(rows)
            if progress is not None:
                progress(done, len(table))
    finally:
        model.train(training)


def describe(
    model: SequenceModel,
    dataset: "Dataset",
    table: pl.DataFrame,
    *,
    device: str = "auto",
    batch_size: int = 64,
    progress: Progress | None = None,
    source: FrameSource | None = None,
) -> NDArray[np.float32]:
    """Descriptors `(n, D)` float32 of the windows of `table`, row i for row i; as `describe_blocks`, all in memory.

    A table in any order costs one backbone pass a distinct frame too: windows are visited in track order.
    """
    if len(table) == 0:
        return np.zeros((0, 0), np.float32)
    order = table.with_row_index("_row").sort("track", "first")
    visited = order["_row"].to_numpy()
    result: NDArray[np.float32] | None = None
    start = 0
    options = {"device": device, "batch_size": batch_size, "progress": progress, "source": source}
    for block in describe_blocks(model, dataset, order.drop("_row"), **options):  # type: ignore[arg-type]
        if result is None:
            result = np.empty((len(table), block.shape[1]), np.float32)
        result[visited[start : start + len(block)]] = block
        start += len(block)
    assert result is not None  # noqa: S101  (a table with rows yields a block)
    return result


def _fuse(model: SequenceModel, features: Tensor, index: Tensor, pool: "_FeaturePool") -> NDArray[np.float32]:
    """Descriptors `(m, D)` of the windows `index` `(m, L)`, so many at once that what they gather stays small."""
    gathered = index.shape[1] * features[0].numel() * features.element_size()
    at_once = max(1, min(model.windows_at_once or len(index), FUSED_BYTES // gathered))
    found: NDArray[np.float32] | None = None
    for start in range(0, len(index), at_once):
        part = model.fuse_rows(features, index[start : start + at_once]).float().cpu().numpy()
        found = np.empty((len(index), part.shape[1]), np.float32) if found is None else found
        found[start : start + len(part)] = part
    assert found is not None  # noqa: S101  (a block has windows)
    pool.bytes_per_window += found[0].nbytes
    return found


def _blocks(dataset: "Dataset", table: pl.DataFrame, pool: "_FeaturePool") -> Iterator[NDArray[np.int64]]:
    """Frame rows `(m, L)` of successive blocks; the first block is short, to learn how large features are."""
    if table["length"].n_unique() > 1:
        raise ContractError(
            "windows of different lengths cannot be described together; describe each length on its own"
        )
    start, size = 0, min(pool.batch_size, len(table))
    while start < len(table):
        yield dataset.frame_rows(table.slice(start, size))
        start += size
        size = max(1, min(LONGEST_BLOCK, FEATURE_BYTES // max(1, pool.bytes_per_window)))


class _FeaturePool:
    """Features of the frames of the last block, so that the next encodes only its new ones."""

    def __init__(self, model: SequenceModel, source: FrameSource, device: torch.device, batch_size: int) -> None:
        self.model = model
        self.source = source
        self.device = device
        self.batch_size = batch_size
        self.rows = np.zeros(0, np.int64)
        self.features: Tensor | None = None
        self.bytes_per_window = 1

    def of(self, windows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Features `(M, ...)` of the distinct frames of `windows` `(m, L)`, and each window's rows into them."""
        distinct, inverse = np.unique(windows, return_inverse=True)
        known = np.isin(distinct, self.rows)
        kept = None if self.features is None else self.features[self._at(np.searchsorted(self.rows, distinct[known]))]
        self.features = None  # the last block's features go before this block's come
        features = self._encode(distinct, np.flatnonzero(~known), kept)
        if kept is not None:
            features[self._at(np.flatnonzero(known))] = kept
        self.rows, self.features = distinct, features
        per_frame = features[0].numel() * features.element_size()
        self.bytes_per_window = -(-len(distinct) * per_frame // len(windows)) + per_frame
        return features, self._at(inverse.reshape(windows.shape))

    def _encode(self, rows: NDArray[np.int64], fresh: NDArray[np.int64], like: Tensor | None) -> Tensor:
        """Features of `rows`, of which those at `fresh` are encoded, batch by batch; `like` gives the others' shape."""
        features = None if like is None else like.new_empty((len(rows), *like.shape[1:]))
        for start in range(0, len(fresh), self.batch_size):
            at = fresh[start : start + self.batch_size]
            found = self.source.encode(self.model, torch.from_numpy(self.source.read(rows[at])).to(self.device))
            features = found.new_empty((len(rows), *found.shape[1:])) if features is None else features
            features[self._at(at)] = found
        assert features is not None  # noqa: S101  (a first block always has new frames)
        return features

    def _at(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(rows).to(self.device)
