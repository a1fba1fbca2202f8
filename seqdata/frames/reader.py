"""Frames by row: one ranged read a shard, a check of the stored hash, decoding. All that reads pixels uses this."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from seqdata.errors import ContractError
from seqdata.frames.buffers import Buffers
from seqdata.frames.cache import DecodeCache
from seqdata.frames.decode import Size, check_one_size, decoder
from seqdata.frames.images import BadImageError, Pixels
from seqdata.frames.locations import FrameLocations
from seqdata.geometry import IntArray
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.store import Store

GAP_BYTES = 256 << 10
"""Gaps below this are read through: on a remote store one longer answer costs less than a second request."""

log = logging.getLogger(__name__)


class DamagedFrameError(ContractError):
    """A frame whose stored bytes are not those of the build; `row` is its frame row, `fault` what is wrong."""

    def __init__(self, row: int, fault: str, name: str = "") -> None:
        super().__init__(
            f"frame {row}{f' ({name})' if name else ''} is damaged ({fault}); "
            "run `seqdata verify DATASET` to list damaged frames"
        )
        self.row, self.fault = row, fault


@dataclass(frozen=True)
class FrameReader:
    """Frame rows to pixels, from one dataset's shards; picklable, and safe in a forked process.

    `size` is (height, width) to resize to, `device` what decodes (see `seqdata.frames.decode.decoder`). Holds no
    decoder itself, so that it can be sent to a worker.
    """

    store: Store
    locations: FrameLocations
    size: Size = None
    device: str = "cpu"
    buffers: Buffers = field(default_factory=Buffers)

    def __post_init__(self) -> None:
        """Raise ContractError or MissingDependencyError when the device cannot decode."""
        decoder(self.device)

    def cache(self, cache_bytes: int) -> DecodeCache:
        """Make a cache of at most `cache_bytes` of decoded frames over this reader."""
        return DecodeCache(self.fetch, self.decode, cache_bytes)

    def fetch(self, rows: list[int]) -> dict[int, bytes]:
        """Read the stored bytes of distinct rows. Raises: InputError when a shard is absent or short."""
        return read_encoded(self.store, self.locations, np.asarray(rows, dtype=np.int64))

    def decode(self, row: int, data: bytes) -> Pixels:
        """Decode the bytes of a row to (H, W, 3). Raises: BadImageError when they do not decode or are others'."""
        try:
            self._check_hash(row, data)
            return decoder(self.device)(data, self.size, self.buffers)
        except BadImageError as error:
            log.warning("frame %d is damaged (%s). Run `seqdata verify DATASET` to list damaged frames.", row, error)
            raise

    def encoded(self, rows: IntArray) -> dict[int, bytes]:
        """Read the stored bytes of each distinct row and check them. Raises: InputError, DamagedFrameError."""
        images = read_encoded(self.store, self.locations, rows)
        for row, data in images.items():
            try:
                self._check_hash(row, data)
            except BadImageError as error:
                raise DamagedFrameError(row, str(error)) from error
        return images

    def read(self, rows: IntArray) -> Pixels:
        """Read frames.

        Args:
            rows: Frame rows (n,), in any order; each distinct one is decoded once.

        Returns:
            Pixels uint8 (n, 3, H, W) RGB in the order of `rows`.

        Raises:
            InputError: If a shard is absent or short.
            DamagedFrameError: If a frame's bytes do not decode or have another hash.
            ContractError: If frames differ in size and the reader has none.
        """
        decoded: dict[int, Pixels] = {}
        for row, view in read_views(self.store, self.locations, rows).items():
            data = bytes(view)
            try:
                self._check_hash(row, data)
                decoded[row] = decoder(self.device)(data, self.size, None)
            except BadImageError as error:
                raise DamagedFrameError(row, str(error)) from error
        return stack_channels_first([decoded[int(row)] for row in rows], self.size)

    def _check_hash(self, row: int, data: bytes) -> None:
        """Raise BadImageError when bytes that may well decode are not those that the build stored."""
        if bytes.fromhex(xxh3_hex(data)) != self.locations.hash[row].tobytes():
            raise BadImageError("bad_image", "its bytes do not match the stored hash")


def stack_channels_first(frames: list[Pixels], size: Size = None) -> Pixels:
    """Copy frames (H, W, 3) into one contiguous array (n, 3, H, W); `size` is the shape of none.

    Contiguous, not a view: kernels of another memory layout add up in another order, and losses would change.
    """
    check_one_size(frames)
    if not frames:
        return np.zeros((0, 3, *(size or (0, 0))), dtype=np.uint8)
    height, width, _ = frames[0].shape
    stacked = np.empty((len(frames), 3, height, width), dtype=np.uint8)
    for target, frame in zip(stacked, frames, strict=True):
        target[...] = frame.transpose(2, 0, 1)
    return stacked


def read_encoded(store: Store, locations: FrameLocations, rows: IntArray) -> dict[int, bytes]:
    """Read the stored bytes of each distinct frame row. Raises: InputError when a shard is absent or short."""
    return {row: bytes(view) for row, view in read_views(store, locations, rows).items()}


def read_views(store: Store, locations: FrameLocations, rows: IntArray) -> dict[int, memoryview]:
    """As `read_encoded`, each frame a view of what one ranged read gave, without a copy of its own."""
    views: dict[int, memoryview] = {}
    for members in _ranges(locations, np.unique(rows)):
        offset, length = locations.offset[members], locations.length[members]
        start, stop = int(offset[0]), int((offset + length).max())
        block = memoryview(store.read(f"shards/part-{int(locations.shard[members[0]]):06d}.tar", start, stop - start))
        # Plain numbers: taking them from arrays one by one would cost as much as the read.
        for row, first, size in zip(members.tolist(), (offset - start).tolist(), length.tolist(), strict=True):
            views[row] = block[first : first + size]
    return views


def _ranges(locations: FrameLocations, rows: IntArray) -> Iterator[IntArray]:
    """Group frame rows so that one ranged read fetches a group: one shard, neighbours less than `GAP_BYTES` distant."""
    order = rows[np.lexsort((locations.offset[rows], locations.shard[rows]))]
    end = locations.offset[order] + locations.length[order]
    breaks = np.diff(locations.shard[order]) != 0
    breaks |= locations.offset[order][1:] - end[:-1] >= GAP_BYTES
    if len(order):
        yield from np.split(order, np.flatnonzero(breaks) + 1)
