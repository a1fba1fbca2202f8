"""Streams: the windows of a table in a seeded order, as a map-style dataset for any DataLoader, or in batches.

Item i of a stream is a pure function of (dataset, table, seed, epoch, i): rank and worker only choose which items they
make, so any number of them yields the same global order, and a run resumes at any step by starting there. Only NumPy
is touched while items are made: polars owns threads, which do not survive the fork that makes a loader worker.
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.contracts.facts import Facts
from seqdata.frames.decode import channels_first, stack_frames
from seqdata.frames.images import Pixels
from seqdata.frames.reader import FrameReader
from seqdata.geometry import BoolArray, IntArray
from seqdata.storage.hashing import sha256_json, xxh3_hex
from seqdata.streaming import shuffle as orders
from seqdata.streaming.bad_frames import Neighbours, read_window
from seqdata.streaming.batches import Batches, Sequence, StreamSettings
from seqdata.streaming.shuffle import Shuffle


class WindowKeys(list[str]):
    """Keys of the frames of one window, a list that PyTorch's default collate leaves whole."""


def _keep_keys_whole() -> None:
    """Let PyTorch's default collate give B lists of L keys, as `Batches` does, where it is loaded at all.

    Left to itself it turns lists of equal length over: L lists of B keys, which looks right where L equals B. The map
    of types is its documented way to extend it (`torch.utils.data.default_collate`). Looked up instead of imported,
    because datasets are read without torch.
    """
    collate = sys.modules.get("torch.utils.data._utils.collate")
    if collate is not None:
        collate.default_collate_fn_map.setdefault(WindowKeys, _list_of_keys)


def _list_of_keys(batch: list[WindowKeys], *, collate_fn_map: object = None) -> list[WindowKeys]:
    return list(batch)


class Stream(Facts):
    """Sequences of a window table in the order of (seed, epoch); made by `Dataset.stream`.

    `stream[i]` and iteration give dicts: `frames` uint8 (L, 3, H, W) RGB, channels last in memory; `row` (row of the
    table), `trajectory`, `city`, `role` ("" where none), `positions` int32 (L,), `easting` and `northing` float64 (L,)
    UTM metres, `keys`, and `replaced` bool (L,): frames that turned bad since the build (their bytes do not decode or
    have another hash) and show their nearest good neighbour's pixels. `bad` says which and why.

    For one process and many threads use `batches`; or `torch.utils.data.DataLoader(stream, batch_size=B,
    num_workers=N)`, whose order is the same for every N, but whose workers each decode for themselves into a cache of
    `cache_bytes` of their own. A rank takes `sampler=range(rank, len(stream), world)`.
    """

    def __init__(
        self,
        table: pl.DataFrame,
        frame_rows: IntArray,
        frames: pl.DataFrame,
        reader: FrameReader,
        *,
        dataset: str = "",
        settings: StreamSettings | None = None,
    ) -> None:
        """Order the windows of `table`; nothing is read yet.

        Args:
            table: Window table.
            frame_rows: Frame rows int64 (n, L) of its windows, row for row.
            frames: Columns key, trajectory, position, easting and northing of every frame of the dataset.
            reader: Reads the dataset's frames, at the size and on the device of the settings.
            dataset: The dataset's id.
            settings: Order, and budget of the cache.
        """
        self.settings = settings or StreamSettings()
        self.frame_rows = frame_rows
        self._dataset = dataset
        self._rows = self._order()
        self._names = {name: _Names.from_column(table[name]) for name in ("trajectory", "city", "role")}
        # Fixed-width bytes: a forked worker uses no polars, and reading Python strings would copy their memory pages.
        self._keys = frames["key"].to_numpy().astype(np.bytes_)
        self._numbers = {name: frames[name].to_numpy() for name in ("position", "easting", "northing")}
        self._neighbours = Neighbours(frame_rows, frames["trajectory"])
        self.cache = reader.cache(self.settings.cache_bytes)

    def _facts(self) -> dict[str, object]:
        return {
            "sequences": len(self),
            "frames a sequence": self.frame_rows.shape[1],
            "seed": self.settings.seed,
            "epoch": self.settings.epoch,
            "dataset": self._dataset[:12] or "unknown",
        }

    def __len__(self) -> int:
        """Number of sequences in an epoch."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sequence:
        """Read the sequence at step `index` of the epoch.

        Raises:
            IndexError: Beyond the end.
            InputError: If a shard is absent or short.
            ContractError: If frames differ in size and no size was given, or a whole trajectory is bad.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"step {index} of a stream of {len(self)} sequences")
        pixels, replaced = self.read(index)
        item = self.describe(np.array([index]))
        one = {name: values[0] for name, values in item.items()}
        one["row"] = int(one["row"])
        one["keys"] = WindowKeys(one["keys"])
        _keep_keys_whole()
        return {"frames": channels_first(stack_frames(pixels)), **one, "replaced": replaced}

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate over the epoch from its first step."""
        return (self[index] for index in range(len(self)))

    def read(self, index: int) -> tuple[list[Pixels], BoolArray]:
        """Read the pixels (H, W, 3) of each frame of step `index`, and which are replaced: bool (L,)."""
        return read_window(self.cache, self.frame_rows[self._rows[index]], self._neighbours)

    def read_into(self, index: int, target: Pixels) -> bool:
        """Decode the one frame of step `index` straight into an array (H, W, 3), where that saves a copy.

        Returns:
            False for longer windows and wherever `read` is needed: a frame that is cached, bad, or of another size, and
            a stream whose frames all fit the cache, which then keeps them for the next epoch.
        """
        if self.frame_rows.shape[1] > 1 or len(self) * target.nbytes <= self.cache.budget:
            return False
        return self.cache.read_into(int(self.frame_rows[self._rows[index], 0]), target)

    def describe(self, steps: IntArray) -> Sequence:
        """Collate all fields but pixels of `steps` (B,): numbers (B, L), texts as lists."""
        rows = self._rows[steps]
        frame_rows = self.frame_rows[rows]
        return {
            "row": rows,
            **{name: names.texts(rows) for name, names in self._names.items()},
            "positions": self._numbers["position"][frame_rows],
            "easting": self._numbers["easting"][frame_rows],
            "northing": self._numbers["northing"][frame_rows],
            "keys": [[key.decode() for key in keys] for keys in self._keys[frame_rows].tolist()],
        }

    def batches(
        self, batch_size: int, *, rank: int = 0, world: int = 1, threads: int = 2, drop_last: bool = False
    ) -> Batches:
        """Read the epoch in batches; see `Batches`.

        Args:
            batch_size: Windows of a batch, over all ranks.
            rank: Number of this process.
            world: Number of processes.
            threads: Threads that read ahead.
            drop_last: Whether a short last batch is left out.

        Raises:
            ContractError: If a batch does not divide among the ranks.
        """
        return Batches(self, batch_size, rank=rank, world=world, threads=threads, drop_last=drop_last)

    def reordered(
        self, *, seed: int | None = None, epoch: int | None = None, shuffle: Shuffle | None = None
    ) -> "Stream":
        """Give the same windows another order, over the same decoded frames: `stream.reordered(epoch=1)`.

        Args:
            seed: Another seed; None keeps the stream's.
            epoch: Another epoch; None keeps the stream's.
            shuffle: Another kind of order; None keeps the stream's.
        """
        # A shallow copy shares the cache and the columns: a new epoch costs one permutation.
        other, old = copy.copy(self), self.settings
        seed, epoch = old.seed if seed is None else seed, old.epoch if epoch is None else epoch
        other.settings = replace(old, seed=seed, epoch=epoch, shuffle=shuffle or old.shuffle)
        other._rows = other._order()
        return other

    @cached_property
    def id(self) -> str:
        """What is streamed, whatever its order: SHA-256 of the dataset's id and the windows' frame rows."""
        rows = np.ascontiguousarray(self.frame_rows)
        windows = {"shape": list(rows.shape), "hash": xxh3_hex(cast(bytes, rows.data))}
        return sha256_json({"dataset": self._dataset, "windows": windows})

    @property
    def bad(self) -> dict[str, str]:
        """Key and fault of every frame that this process found bad."""
        return {self._keys[row].decode(): fault for row, fault in sorted(self.cache.bad.items())}

    def _order(self) -> IntArray:
        return orders.order(len(self.frame_rows), self.settings.seed, self.settings.epoch, self.settings.shuffle)


@dataclass(frozen=True)
class _Names:
    """A text column as codes into its distinct values, so that a million rows cost four bytes each."""

    codes: npt.NDArray[np.uint32]
    values: list[str]

    @classmethod
    def from_column(cls, column: pl.Series) -> "_Names":
        values = column.fill_null("").unique().sort()
        codes = column.fill_null("").replace_strict(values, range(len(values)), return_dtype=pl.UInt32)
        return cls(codes.to_numpy(), values.to_list())

    def texts(self, rows: IntArray) -> list[str]:
        return [self.values[code] for code in self.codes[rows].tolist()]
