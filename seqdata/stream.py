"""Streams: the windows of a table in a seeded order, as a map-style dataset that any DataLoader can use.

Item i of a stream is a pure function of (table, seed, epoch, i): loader workers hold no state, so 0, 1 or several of
them yield the same global order, and a run resumes at any step by starting there. Only NumPy is touched while items are
made: polars owns threads, which do not survive the fork that makes a loader worker.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.reading import FrameReader

Sequence = dict[str, Any]


def order(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of `rows` rows for (seed, epoch): int64 (rows,), another one each epoch."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(rows)


class Stream:
    """Sequences of a window table in the order of (seed, epoch); made by `Dataset.stream`.

    `frame_rows` int64 (n, L) belongs to `table` row for row; `frames` holds key, position, easting and northing of
    every frame of the dataset, `read` its pixels.

    `stream[i]` and iteration give dicts: `frames` uint8 (L, 3, H, W) RGB, `row` (row of the table), `trajectory`,
    `city`, `role` ("" where none), `positions` int32 (L,), `easting` and `northing` float64 (L,) UTM metres, `keys`.
    Use as `torch.utils.data.DataLoader(stream, batch_size=B, num_workers=N)`: the global order is the same for every N.
    """

    def __init__(
        self,
        table: pl.DataFrame,
        frame_rows: npt.NDArray[np.int64],
        frames: pl.DataFrame,
        read: FrameReader,
        *,
        seed: int = 0,
        epoch: int = 0,
        size: tuple[int, int] | None = None,
        shuffle: bool = True,
    ) -> None:
        self._size = size
        self._rows = order(table.height, seed, epoch) if shuffle else np.arange(table.height)
        self._frame_rows = frame_rows
        self._names = {name: _Names.of(table[name]) for name in ("trajectory", "city", "role")}
        self._keys = frames["key"].to_numpy().astype(np.bytes_)
        self._numbers = {name: frames[name].to_numpy() for name in ("position", "easting", "northing")}
        self._read = read

    def __len__(self) -> int:
        """Number of sequences in an epoch."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence at step `index` of the epoch. Raises: IndexError beyond the end, and as `Dataset.read`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"step {index} of a stream of {len(self)} sequences")
        row = int(self._rows[index])
        frame_rows = self._frame_rows[row]
        return {
            "frames": self._read(frame_rows, self._size),
            "row": row,
            **{name: names[row] for name, names in self._names.items()},
            "positions": self._numbers["position"][frame_rows],
            "easting": self._numbers["easting"][frame_rows],
            "northing": self._numbers["northing"][frame_rows],
            "keys": [key.decode() for key in self._keys[frame_rows].tolist()],
        }

    def __iter__(self) -> Iterator[Sequence]:
        """The epoch from its first step."""
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class _Names:
    """A text column as codes into its distinct values, so that a million rows cost four bytes each."""

    codes: npt.NDArray[np.uint32]
    values: list[str]

    @classmethod
    def of(cls, column: pl.Series) -> "_Names":
        values = column.fill_null("").unique().sort()
        codes = column.fill_null("").replace_strict(values, range(len(values)), return_dtype=pl.UInt32)
        return cls(codes.to_numpy(), values.to_list())

    def __getitem__(self, row: int) -> str:
        return self.values[int(self.codes[row])]
