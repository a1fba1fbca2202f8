"""Streams: the windows of a table in a seeded order, as a map-style dataset that any DataLoader can use.

Item i of a stream is a pure function of (table, seed, epoch, i): loader workers hold no state, so 0, 1 or several of
them yield the same global order, and a run resumes at any step by starting there.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from seqdata.dataset import Dataset

Sequence = dict[str, Any]


def order(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of `rows` rows for (seed, epoch): int64 (rows,), another one each epoch, the same again when asked."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(rows)


class Stream:
    """Sequences of a window table in the order of (seed, epoch); made by `Dataset.stream`.

    `stream[i]` and iteration give dicts: `frames` uint8 (L, 3, H, W) RGB, `row` (row of the table), `trajectory`,
    `city`, `role` ("" where none), `positions` int32 (L,), `easting` and `northing` float64 (L,) UTM metres, `keys`.
    Use as `torch.utils.data.DataLoader(stream, batch_size=B, num_workers=N)`: the global order is the same for every N.
    """

    def __init__(
        self,
        dataset: "Dataset",
        table: pl.DataFrame,
        *,
        seed: int = 0,
        epoch: int = 0,
        size: tuple[int, int] | None = None,
        shuffle: bool = True,
    ) -> None:
        self._dataset = dataset
        self._table = table
        self._size = size
        self._rows = order(table.height, seed, epoch) if shuffle else np.arange(table.height)
        self._frame_rows = dataset.frame_rows(table)
        self._columns = dataset.frame_columns("key", "position", "easting", "northing")

    def __len__(self) -> int:
        """Number of sequences in an epoch."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence at step `index` of the epoch. Raises: IndexError beyond the end; InputError, ContractError as read."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"step {index} of a stream of {len(self)} sequences")
        row = int(self._rows[index])
        frame_rows = self._frame_rows[row]
        of_window = self._table.row(row, named=True)
        of_frames = self._columns[frame_rows]
        return {
            "frames": self._dataset.read_frames(frame_rows, self._size),
            "row": row,
            "trajectory": of_window["trajectory"],
            "city": of_window["city"],
            "role": of_window["role"] or "",
            "positions": of_frames["position"].to_numpy(),
            "easting": of_frames["easting"].to_numpy(),
            "northing": of_frames["northing"].to_numpy(),
            "keys": of_frames["key"].to_list(),
        }

    def __iter__(self) -> Iterator[Sequence]:
        """The epoch from its first step."""
        return (self[index] for index in range(len(self)))
