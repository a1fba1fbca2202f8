"""Random access to frames: from frame rows to pixels with one ranged read a shard, gaps under 256 KiB read through."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.errors import ContractError
from seqdata.frames.decode import decode_rows
from seqdata.frames.images import BadImageError, Pixels
from seqdata.frames.locations import FramePlaces
from seqdata.geometry import IntArray
from seqdata.storage.store import Store

Hashes = npt.NDArray[np.uint64]
GAP_BYTES = 256 << 10


def frame_hashes(frames: pl.LazyFrame) -> Hashes:
    """XXH3-128 of every stored frame in a frames table: uint64 (F, 2), the upper half first."""
    table = frames.select("hash").collect()["hash"]
    halves = [table.bin.slice(at, 8).bin.reinterpret(dtype=pl.UInt64, endianness="big") for at in (0, 8)]
    return np.column_stack([half.to_numpy() for half in halves])


def read_encoded(reader: Store, places: FramePlaces, rows: IntArray) -> dict[int, bytes]:
    """The stored bytes of each distinct frame row. Raises: InputError when a shard is absent or short."""
    return {row: bytes(view) for row, view in read_views(reader, places, rows).items()}


def read_views(reader: Store, places: FramePlaces, rows: IntArray) -> dict[int, memoryview]:
    """As `read_encoded`, each frame a view of what one ranged read gave: a window's frames are not copied apart."""
    found: dict[int, memoryview] = {}
    for members in _ranges(places, np.unique(rows)):
        offset, length = places.offset[members], places.length[members]
        start, stop = int(offset[0]), int((offset + length).max())
        block = memoryview(reader.read(f"shards/part-{int(places.shard[members[0]]):06d}.tar", start, stop - start))
        # Plain numbers: taking them from arrays one by one would cost as much as the read.
        for row, at, size in zip(members.tolist(), (offset - start).tolist(), length.tolist(), strict=True):
            found[row] = block[at : at + size]
    return found


def _ranges(places: FramePlaces, rows: IntArray) -> Iterator[IntArray]:
    """Groups of frame rows that one ranged read fetches: one shard, neighbours less than `GAP_BYTES` apart."""
    order = rows[np.lexsort((places.offset[rows], places.shard[rows]))]
    end = places.offset[order] + places.length[order]
    apart = np.diff(places.shard[order]) != 0
    apart |= places.offset[order][1:] - end[:-1] >= GAP_BYTES
    if len(order):
        yield from np.split(order, np.flatnonzero(apart) + 1)


def decode_frames(encoded: Mapping[int, bytes | memoryview], rows: IntArray, size: tuple[int, int] | None) -> Pixels:
    """Pixels of `rows` in their order: uint8 (n, 3, H, W), each distinct frame decoded once.

    Raises: ContractError when a frame does not decode, or sizes differ and no `size` = (H, W) is given.
    """
    decoded: dict[int, Pixels] = {}
    for row, data in encoded.items():
        try:
            decoded[row] = decode_rows(bytes(data), size)
        except BadImageError as error:
            raise ContractError(f"frame {row} does not decode ({error}); run seqdata verify on the dataset") from error
    shapes = {pixels.shape for pixels in decoded.values()}
    if len(shapes) > 1:
        raise ContractError(
            f"frames of different sizes ({len(shapes)} kinds) cannot be stacked; give size=(height, width)"
        )
    if not len(rows):
        return np.zeros((0, 3, *(size or (0, 0))), dtype=np.uint8)
    height, width, _ = shapes.pop()
    frames = np.empty((len(rows), 3, height, width), dtype=np.uint8)
    for at, row in enumerate(rows):
        frames[at] = decoded[int(row)].transpose(2, 0, 1)
    return frames


@dataclass(frozen=True)
class FrameReader:
    """Frame rows to pixels, from one dataset's shards; picklable, and safe in a forked process."""

    reader: Store
    places: FramePlaces

    def __call__(self, rows: IntArray, size: tuple[int, int] | None = None) -> Pixels:
        """Pixels of `rows`: uint8 (n, 3, H, W). Raises: as `read_views` and `decode_frames`."""
        return decode_frames(read_views(self.reader, self.places, rows), rows, size)
