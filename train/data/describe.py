"""Descriptors of windows: one encoder pass for each distinct frame, windows by direct sliding sums, bounded memory.

Frames are encoded once however many windows hold them (docs/methods.md#cat). Windows are summed directly: differences
of float32 prefix sums would drift with the length of the table.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import polars as pl
import torch
from torch import Tensor

from indexer.describer import Precision
from seqdata.errors import ContractError, DivergedError
from seqdata.frames.reader import DamagedFrameError
from seqdata.geometry import Float32Array, IntArray
from seqdata.parallel import Progress
from train.data.encode import Frames, encode_batches
from train.data.frames import FrameSource, WindowSource, native_size
from train.data.upload import Upload
from train.devices import computing, has_room, pick_device, to_device, to_host
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from seqdata.dataset.dataset import Dataset

CPU = torch.device("cpu")
FEATURE_BYTES = 256 << 20
"""Frame features and descriptors of a block: large beside a batch of frames, small beside a model."""
FUSED_BYTES = 64 << 20
"""What fusion gathers from them at once: what a CPU's cache feels. Of a card's memory it is `CARD` times as much."""
LONGEST_BLOCK = 4096
CARD = 16
"""How many times more features and windows a card takes at once, to be busy; some GiB."""


class DescribeOptions(TypedDict, total=False):
    """The keywords of describing; `device_blocks` says what they mean."""

    device: str
    batch_size: int
    progress: Progress | None
    source: WindowSource | None
    precision: Precision


@torch.no_grad()
def device_blocks(
    model: SequenceModel,
    dataset: "Dataset",
    table: pl.DataFrame,
    *,
    device: str = "auto",
    batch_size: int = 64,
    progress: Progress | None = None,
    source: WindowSource | None = None,
    precision: Precision = "tf32",
) -> Iterator[Tensor]:
    """Compute descriptors of windows block by block, in eval mode, and leave them on the device.

    Features of the frames that a block shares with the next are reused, so with windows in track order every frame is
    encoded once. Takes about 256 MiB for frame features and descriptors, 64 MiB for what fusion gathers from them, and
    one batch of frames, whatever the table's length.

    Args:
        model: Any model; moved to the device, its train or eval mode is restored at the end.
        dataset: The dataset that the table was cut from.
        table: Window table, all of one length.
        device: "auto", "cpu" or "cuda".
        batch_size: Frames an encoder pass.
        progress: Called with (windows finished, windows in all).
        source: Reads frames; default: the dataset's own frames, without a cache, where a damaged one is an error.
        precision: How a CUDA device computes (see `indexer.describer.Precision`).

    Yields:
        Descriptors (m, D) float32, in table order.

    Raises:
        ContractError: If windows differ in length, or frames in size while the model keeps their size; naming a frame
            that is damaged.
        DivergedError: If a descriptor is not finite.
    """
    torch_device = pick_device(device)
    training = model.training
    model = model.to(torch_device).eval()
    if source is None:
        size = native_size(dataset, lambda: dataset.frame_rows(table), model.size)
        source = FrameSource(dataset, size, channels_last=torch_device.type == "cuda")
    pool = _FeaturePool(model, source, torch_device, batch_size, precision)
    start = 0
    try:
        for windows in _blocks(dataset, table, pool):
            descriptors = _fuse(model, *pool.features_of(windows), pool)
            _check_finite(descriptors, table, start)
            yield descriptors
            start += len(windows)
            if progress is not None:
                progress(start, len(table))
    finally:
        model.train(training)


def describe_blocks(
    model: SequenceModel, dataset: "Dataset", table: pl.DataFrame, **options: "Unpack[DescribeOptions]"
) -> Iterator[Float32Array]:
    """Compute descriptors of windows block by block, in bounded memory.

    Args:
        model: See `device_blocks`, as for the other arguments and for what is raised.
        dataset: The dataset that the table was cut from.
        table: Window table, all of one length.
        **options: `device`, `batch_size`, `progress`, `source`, `precision`.

    Yields:
        Descriptors (m, D) float32, in table order.
    """
    # To the host once a block: a card that gives its result after each part is idle in between.
    return map(to_host, device_blocks(model, dataset, table, **options))


def describe(
    model: SequenceModel, dataset: "Dataset", table: pl.DataFrame, **options: "Unpack[DescribeOptions]"
) -> Float32Array:
    """Compute descriptors of windows, all in memory.

    A table in any order costs one encoder pass a distinct frame too: windows are visited in track order.

    Args:
        model: See `device_blocks`, as for the other arguments and for what is raised.
        dataset: The dataset that the table was cut from.
        table: Window table, all of one length, in any order.
        **options: `device`, `batch_size`, `progress`, `source`, `precision`.

    Returns:
        Descriptors (n, D) float32, row i of window i; (0, 0) for an empty table.
    """
    descriptors: Float32Array = _joined(model, dataset, table, False, options).numpy()
    return descriptors


def describe_in_place(
    model: SequenceModel, dataset: "Dataset", table: pl.DataFrame, **options: "Unpack[DescribeOptions]"
) -> Tensor:
    """As `describe`, but a tensor, which stays on the model's device where that has room for it."""
    return _joined(model, dataset, table, True, options)


def _joined(
    model: SequenceModel, dataset: "Dataset", table: pl.DataFrame, may_stay: bool, options: DescribeOptions
) -> Tensor:
    """Descriptors (n, D) of windows in any order; on the model's device where they may stay and there is room."""
    if len(table) == 0:
        return torch.zeros(0, 0)
    order = table.with_row_index("_row").sort("track", "first")
    rows = torch.from_numpy(order["_row"].to_numpy().astype(np.int64))
    descriptors, start = torch.zeros(0, 0), 0
    for block in device_blocks(model, dataset, order.drop("_row"), **options):
        if start == 0:
            # The first block tells the size of a descriptor, so that one tensor can be filled without joining blocks.
            shape = len(table), block.shape[1]
            stays = may_stay and has_room(block.element_size() * shape[0] * shape[1], block.device)
            descriptors = torch.empty(shape, device=block.device if stays else CPU)
        part = block if descriptors.device == block.device else torch.from_numpy(to_host(block))
        descriptors[to_device(rows[start : start + len(block)], descriptors.device)] = part
        start += len(block)
    return descriptors


def _check_finite(descriptors: Tensor, table: pl.DataFrame, start: int) -> None:
    """Raise DivergedError for descriptors (m, D) of the windows from row `start` on that hold NaN or infinity."""
    is_finite = descriptors.isfinite().all(dim=1).cpu().numpy()
    if not is_finite.all():
        trajectory, first = table.select("trajectory", "first").row(start + int(is_finite.argmin()))
        raise DivergedError(
            f"the descriptor of window {trajectory}[{first}] holds NaN or infinity: the model has diverged; use an "
            "earlier checkpoint, or train again with a lower learning rate"
        )


def _fuse(model: SequenceModel, features: Tensor, index: Tensor, pool: "_FeaturePool") -> Tensor:
    """Descriptors (m, D) of the windows `index` (m, L), so many at once that what they gather stays small."""
    bytes_a_window = index.shape[1] * features[0].numel() * features.element_size()
    at_once = (model.windows_at_once or len(index)) * pool.times
    at_once = max(1, min(at_once, FUSED_BYTES * pool.times // bytes_a_window))
    descriptors: Tensor | None = None
    for start in range(0, len(index), at_once):
        with pool.computing():
            part = model.fuse_rows(features, index[start : start + at_once]).float()
        if descriptors is None:  # filled in place: joining the parts at the end would need their memory twice
            descriptors = part.new_empty(len(index), part.shape[1])
        descriptors[start : start + len(part)] = part
    assert descriptors is not None  # noqa: S101  (a block has windows)
    pool.bytes_per_window += descriptors[0].numel() * descriptors.element_size()
    return descriptors


def _blocks(dataset: "Dataset", table: pl.DataFrame, pool: "_FeaturePool") -> Iterator[IntArray]:
    """Frame rows (m, L) of successive blocks; the first block is short, to learn how large features are."""
    if table["length"].n_unique() > 1:
        raise ContractError(
            "windows of different lengths cannot be described together; describe each length on its own"
        )
    start, size = 0, min(pool.batch_size, len(table))
    while start < len(table):
        yield dataset.frame_rows(table.slice(start, size))
        start += size
        size = max(1, min(LONGEST_BLOCK, FEATURE_BYTES * pool.times // max(1, pool.bytes_per_window)))


class _FeaturePool:
    """Features of the frames of the last block, so that the next encodes only its new ones."""

    def __init__(
        self,
        model: SequenceModel,
        source: WindowSource,
        device: torch.device,
        batch_size: int,
        precision: Precision = "tf32",
    ) -> None:
        self.precision: Precision = precision
        self.upload = Upload(device)
        self.times = CARD if device.type == "cuda" else 1
        self.model = model
        self.source = source
        self.device = device
        self.batch_size = batch_size
        self.rows: IntArray = np.zeros(0, np.int64)
        self.features: Tensor | None = None
        self.bytes_per_window = 1

    def computing(self) -> AbstractContextManager[None]:
        """The arithmetic of the pool's precision; entered a computation at a time, since blocks are handed out."""
        return computing(self.device, self.precision)

    def features_of(self, windows: IntArray) -> tuple[Tensor, Tensor]:
        """Features (M, …) of the distinct frames of `windows` (m, L), and each window's rows (m, L) into them."""
        visible = self.source.visible_rows(windows)
        try:
            features = self._features_of(visible)
        except DamagedFrameError:
            if not self.source.replaces:
                raise
            # Rare, so simple: learn of all damage in the block, then encode the block again with the neighbours.
            self.rows, self.features = self.rows[:0], None
            visible = self.source.visible_rows(windows, check=True)
            features = self._features_of(visible)
        self.source.replaced += int((visible != windows).sum())
        return features

    def _features_of(self, windows: IntArray) -> tuple[Tensor, Tensor]:
        distinct, inverse = np.unique(windows, return_inverse=True)
        is_encoded = np.isin(distinct, self.rows)
        previous = None
        if self.features is not None:
            previous = self.features[self._to_device(np.searchsorted(self.rows, distinct[is_encoded]))]
        self.features = None  # the last block's features are freed before this block's are made
        features = self._encode(distinct, np.flatnonzero(~is_encoded), previous)
        if previous is not None:
            features[self._to_device(np.flatnonzero(is_encoded))] = previous
        self.rows, self.features = distinct, features
        per_frame = features[0].numel() * features.element_size()
        self.bytes_per_window = -(-len(distinct) * per_frame // len(windows)) + per_frame
        return features, self._to_device(inverse.reshape(windows.shape))

    def _encode(self, rows: IntArray, fresh: IntArray, like: Tensor | None) -> Tensor:
        """Features of `rows`, of which those at `fresh` are encoded, batch by batch; `like` gives the others' shape."""
        features = None if like is None else like.new_empty((len(rows), *like.shape[1:]))
        parts = [fresh[start : start + self.batch_size] for start in range(0, len(fresh), self.batch_size)]

        def read(part: IntArray) -> Frames:
            return self.source.read(rows[part])

        encode = partial(self.source.encode, self.model)
        for positions, batch in encode_batches(parts, read, encode, self.upload, self.precision):
            features = batch.new_empty((len(rows), *batch.shape[1:])) if features is None else features
            features[self._to_device(positions)] = batch
        assert features is not None  # noqa: S101  (a first block always has new frames)
        return features

    def _to_device(self, rows: IntArray) -> Tensor:
        # A plain copy would have the host wait for all that is queued, and the card then for the host.
        return self.upload.receive(self.upload.send(rows))
