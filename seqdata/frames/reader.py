"""Frames by row: one ranged read a shard, a check of the stored hash, decoding. All that reads pixels uses this."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from seqdata.errors import ContractError
from seqdata.frames.buffers import Buffers
from seqdata.frames.cache import DecodeCache
from seqdata.frames.decode import channels_first, check_one_size, decode_jpeg_into, decoder
from seqdata.frames.images import BadImageError, Pixels
from seqdata.frames.locations import FrameLocations
from seqdata.frames.resize import Kernel, Size, check_kernel
from seqdata.geometry import IntArray
from seqdata.storage.hashing import xxh3_digest
from seqdata.storage.store import Store

GAP_BYTES = 256 << 10
"""Gaps below this are read through: on a remote store one longer answer costs less than a second request."""

OTHER_BYTES = "its bytes do not match the stored hash"

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

    `size` is (height, width) to resize to by `kernel`, `device` what decodes (see `seqdata.frames.decode.decoder`).
    Holds no decoder itself, so that it can be sent to a worker.
    """

    store: Store
    locations: FrameLocations
    size: Size = None
    device: str = "cpu"
    kernel: Kernel = "pillow"
    buffers: Buffers = field(default_factory=Buffers)

    def __post_init__(self) -> None:
        """Raise ContractError or MissingDependencyError when the device cannot decode, or the kernel is not there."""
        decoder(self.device)
        check_kernel(self.kernel)

    def cache(self, cache_bytes: int) -> DecodeCache:
        """Make a cache of at most `cache_bytes` of decoded frames over this reader."""
        return DecodeCache(self.fetch, self.decode, cache_bytes, self.decode_into)

    def fetch(self, rows: IntArray | list[int]) -> dict[int, bytes | None]:
        """Read the stored bytes of each distinct row and compare their hashes: the one door of stored frames.

        Args:
            rows: Frame rows (n,).

        Returns:
            Bytes by row; None where they are not those that the build stored. From a remote store those are requested
            again first, because bytes may have been damaged on the way.

        Raises:
            InputError: If a shard is absent or short.
        """
        # One row, as a stream of single frames reads, needs no order: sorting it takes as long as the read.
        pending = np.asarray(rows, dtype=np.int64) if len(rows) == 1 else np.unique(np.asarray(rows, dtype=np.int64))
        images: dict[int, bytes | None] = {}
        for _ in range(1 if self.store.is_local else self.store.patience.tries):
            views = read_views(self.store, self.locations, pending)
            images |= {row: self._whole(row, bytes(view)) for row, view in views.items()}
            pending = np.array([row for row in pending.tolist() if images[row] is None], dtype=np.int64)
            if not len(pending):
                break
        return images

    def decode(self, row: int, data: bytes | None) -> Pixels:
        """Decode what `fetch` gave for a row to (H, W, 3).

        Raises:
            BadImageError: When it is damaged.
        """
        try:
            return self._decode(data, self.buffers)
        except BadImageError as error:
            log.warning("frame %d is damaged (%s). Run `seqdata verify DATASET` to list damaged frames.", row, error)
            raise

    def decode_into(self, data: bytes | None, target: Pixels) -> bool:
        """Decode what `fetch` gave into an array (H, W, 3); return False where it does not decode to just that."""
        is_plain = data is not None and self.size is None and self.device == "cpu"
        return is_plain and data is not None and decode_jpeg_into(data, target)

    def encoded(self, rows: IntArray) -> dict[int, bytes]:
        """Read the stored bytes of each distinct row.

        Raises:
            InputError: When it is absent or cannot be read.
            DamagedFrameError: When a stored frame is damaged.
        """
        images = {}
        for row, data in self.fetch(rows).items():
            if data is None:
                raise DamagedFrameError(row, OTHER_BYTES)
            images[row] = data
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
        for row, data in self.fetch(rows).items():
            try:
                decoded[row] = self._decode(data, None)
            except BadImageError as error:
                raise DamagedFrameError(row, str(error)) from error
        return stack_channels_first([decoded[int(row)] for row in rows], self.size)

    def _decode(self, data: bytes | None, buffers: Buffers | None) -> Pixels:
        """Decode stored bytes, None for damaged ones. Raises: BadImageError."""
        if data is None:
            raise BadImageError("bad_image", OTHER_BYTES)
        return decoder(self.device)(data, self.size, buffers, self.kernel)

    def _whole(self, row: int, data: bytes) -> bytes | None:
        """The bytes of a frame, None where they are not those that the build stored, though they may well decode."""
        return data if xxh3_digest(data) == self.locations.hash[row].tobytes() else None


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


def stack_channels_last(frames: list[Pixels], size: Size = None) -> Pixels:
    """As `stack_channels_first`, but in memory (n, H, W, 3), as decoders write frames: the result is a view of that."""
    check_one_size(frames)
    stacked = np.stack(frames) if frames else np.zeros((0, *(size or (0, 0)), 3), dtype=np.uint8)
    return channels_first(stacked)


def read_views(store: Store, locations: FrameLocations, rows: IntArray) -> dict[int, memoryview]:
    """Read each distinct frame row as a view of what one ranged read gave, its hash not compared.

    Raises:
        InputError: When a shard is absent or short.
    """
    if len(rows) == 1:
        row = int(rows[0])
        name = shard_name(int(locations.shard[row]))
        return {row: memoryview(store.read(name, int(locations.offset[row]), int(locations.length[row])))}
    views: dict[int, memoryview] = {}
    for members in _ranges(locations, np.unique(rows)):
        offset, length = locations.offset[members], locations.length[members]
        start, stop = int(offset[0]), int((offset + length).max())
        block = memoryview(store.read(shard_name(int(locations.shard[members[0]])), start, stop - start))
        # Plain numbers: taking them from arrays one by one would cost as much as the read.
        for row, first, size in zip(members.tolist(), (offset - start).tolist(), length.tolist(), strict=True):
            views[row] = block[first : first + size]
    return views


def shard_name(number: int) -> str:
    """Name the tar of a shard in its dataset."""
    return f"shards/part-{number:06d}.tar"


def _ranges(locations: FrameLocations, rows: IntArray) -> Iterator[IntArray]:
    """Group frame rows so that one ranged read fetches a group: one shard, neighbours less than `GAP_BYTES` distant."""
    order = rows[np.lexsort((locations.offset[rows], locations.shard[rows]))]
    end = locations.offset[order] + locations.length[order]
    breaks = np.diff(locations.shard[order]) != 0
    breaks |= locations.offset[order][1:] - end[:-1] >= GAP_BYTES
    if len(order):
        yield from np.split(order, np.flatnonzero(breaks) + 1)
