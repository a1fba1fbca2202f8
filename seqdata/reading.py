"""Random access to frames: from frame rows to pixels with one ranged read a shard, gaps under 256 KiB read through."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.errors import ContractError
from seqdata.pixels import BadImageError, Pixels, decode
from seqdata.storage import Store

Integers = npt.NDArray[np.int64]
GAP_BYTES = 256 << 10


@dataclass(frozen=True)
class FramePlaces:
    """Where every frame of a dataset lies: shard, offset and length in bytes, int64 (F,) each."""

    shard: Integers
    offset: Integers
    length: Integers

    @classmethod
    def of(cls, frames: pl.LazyFrame) -> "FramePlaces":
        """The places in a frames table; only three columns are loaded."""
        table = frames.select("shard", "offset", "length").collect()
        return cls(*(table[name].to_numpy().astype(np.int64) for name in ("shard", "offset", "length")))


def read_encoded(reader: Store, places: FramePlaces, rows: Integers) -> dict[int, bytes]:
    """The stored bytes of each distinct frame row. Raises: InputError when a shard is absent or short."""
    distinct = np.unique(rows)
    found: dict[int, bytes] = {}
    for members in _ranges(places, distinct):
        shard = int(places.shard[members[0]])
        start = int(places.offset[members].min())
        stop = int((places.offset[members] + places.length[members]).max())
        block = reader.read(f"shards/part-{shard:06d}.tar", start, stop - start)
        for row in members:
            at = int(places.offset[row]) - start
            found[int(row)] = block[at : at + int(places.length[row])]
    return found


def _ranges(places: FramePlaces, rows: Integers) -> Iterator[Integers]:
    """Groups of frame rows that one ranged read fetches: one shard, neighbours less than `GAP_BYTES` apart."""
    order = rows[np.lexsort((places.offset[rows], places.shard[rows]))]
    end = places.offset[order] + places.length[order]
    apart = np.diff(places.shard[order]) != 0
    apart |= places.offset[order][1:] - end[:-1] >= GAP_BYTES
    if len(order):
        yield from np.split(order, np.flatnonzero(apart) + 1)


def decode_frames(encoded: dict[int, bytes], rows: Integers, size: tuple[int, int] | None) -> Pixels:
    """Pixels of `rows` in their order: uint8 (n, 3, H, W), each distinct frame decoded once.

    Raises: ContractError when a frame does not decode, or sizes differ and no `size` = (H, W) is given.
    """
    decoded: dict[int, Pixels] = {}
    for row, data in encoded.items():
        try:
            decoded[row] = decode(data, size)
        except BadImageError as error:
            raise ContractError(f"frame {row} does not decode ({error}); run seqdata verify on the dataset") from error
    shapes = {pixels.shape for pixels in decoded.values()}
    if len(shapes) > 1:
        raise ContractError(
            f"frames of different sizes ({len(shapes)} kinds) cannot be stacked; give size=(height, width)"
        )
    if not len(rows):
        return np.zeros((0, 3, *(size or (0, 0))), dtype=np.uint8)
    return np.stack([decoded[int(row)] for row in rows])


@dataclass(frozen=True)
class FrameReader:
    """Frame rows to pixels, from one dataset's shards; picklable, and safe in a forked process."""

    reader: Store
    places: FramePlaces

    def __call__(self, rows: Integers, size: tuple[int, int] | None = None) -> Pixels:
        """Pixels of `rows`: uint8 (n, 3, H, W). Raises: as `read_encoded` and `decode_frames`."""
        return decode_frames(read_encoded(self.reader, self.places, rows), rows, size)
