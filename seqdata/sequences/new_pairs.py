"""Pairs of which one window at least is new: what an append or a withdrawal adds to the ground truth.

New queries meet the whole database, old queries the new database windows. Only windows near new ones are compared; of
all others it is looked up once which cell of a grid they lie in. Values are those of `seqdata.sequences.positives`,
whose code measures them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sequences.positives import pair_blocks
from seqdata.sequences.tiles import WindowSet

# Frame distances are decided by distance, not by cells: a part in a billion and a millimetre more than the radius, as
# for the boxes of tiles.
_MARGIN = 1e-3


@dataclass(frozen=True)
class NumberedWindows:
    """Windows of one role with their numbers.

    Attributes:
        windows: The windows.
        numbers: Number of each, int64 (n,) (see `seqdata.sequences.window_numbers`).
        is_new: Whether it is new, bool (n,).
    """

    windows: WindowSet
    numbers: IntArray
    is_new: BoolArray

    def subset(self, rows: IntArray) -> "NumberedWindows":
        """Select windows by their rows (m,)."""
        return NumberedWindows(self.windows.subset(rows), self.numbers[rows], self.is_new[rows])


def new_pairs(
    query: NumberedWindows, database: NumberedWindows, radius: float, unit: str
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the pairs of a split of which one window at least is new.

    Args:
        query: The query windows.
        database: The database windows.
        radius: Greatest least distance, in the unit.
        unit: "metres" or "frames".

    Yields:
        Query windows finished, and pairs as of `pair_blocks`, with numbers in place of rows.
    """
    new_queries = query.subset(np.flatnonzero(query.is_new))
    new_places = database.subset(np.flatnonzero(database.is_new))
    old_queries = query.subset(np.flatnonzero(~query.is_new))
    for queries, places in ((new_queries, database), (old_queries, new_places)):
        near_places = places.subset(near(places.windows, queries.windows, radius))
        near_queries = queries.subset(near(queries.windows, near_places.windows, radius))
        if not len(near_places.numbers) or not len(near_queries.numbers):
            continue
        for block in pair_blocks(near_queries.windows, near_places.windows, radius=radius, unit=unit):
            numbered = block.with_columns(
                _replaced(block["query"], near_queries.numbers), _replaced(block["database"], near_places.numbers)
            )
            yield len(near_queries.numbers), numbered


def _replaced(rows: pl.Series, numbers: IntArray) -> pl.Series:
    return pl.Series(rows.name, numbers[rows.to_numpy()], dtype=pl.Int32)


def near(windows: WindowSet, others: WindowSet, radius: float) -> IntArray:
    """Find the windows that may lie within a radius of others: rows (m,), rising; never too few.

    Args:
        windows: The windows to select from.
        others: Windows over the same frames or others of the same unit and groups.
        radius: Greatest least distance, in the unit.

    Example:
        >>> street = WindowSet.from_coordinates([[0.0, 0.0], [9.0, 0.0], [400.0, 0.0]], first=[0, 1, 2], length=1)
        >>> near(street, street.subset(np.array([0])), radius=10.0).tolist()
        [0, 1]
    """
    if not len(windows) or not len(others):
        return np.empty(0, dtype=np.int64)
    # Cells of at least the radius: a point within the radius lies in the same cell or in one of the eight around it.
    side = max(1.0, radius * (1 + 1e-9) + _MARGIN)
    mine, theirs = _frames(windows), _frames(others)
    cells, ground = np.floor(windows.xy[mine[0]] / side), np.floor(others.xy[theirs[0]] / side)
    around = [(ground + np.array([dx, dy]), theirs[1]) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    occupied = pl.concat([_cells(*part) for part in around]).unique()
    is_near = np.zeros(len(windows.xy), dtype=bool)
    # A frame may lie in windows of two groups (a window's group is its centre's): it is near when it is so in one.
    frames = _cells(cells, mine[1]).with_columns(pl.Series("frame", mine[0]))
    is_near[frames.join(occupied, on=["x", "y", "group"], how="semi")["frame"].to_numpy()] = True
    has_near = np.zeros(len(windows), dtype=bool)
    for index in range(int(windows.length.max())):
        inside = windows.length > index
        has_near[inside] |= is_near[windows.first[inside] + index * windows.step[inside]]
    return np.flatnonzero(has_near)


def _cells(cells: Float64Array, group: IntArray) -> pl.DataFrame:
    """Grid cells of points (n, 2) with their groups (n,), as a table to be joined."""
    whole = cells.astype(np.int64)
    return pl.DataFrame({"x": whole[:, 0], "y": whole[:, 1], "group": group})


def _frames(windows: WindowSet) -> tuple[IntArray, IntArray]:
    """Give the rows of all frames that the windows hold, and a window's group with each; each pair once: two (f,)."""
    frames = []
    for index in range(int(windows.length.max())):
        inside = windows.length > index
        frames.append((windows.first[inside] + index * windows.step[inside], windows.group[inside]))
    rows, groups = (np.concatenate(part) for part in zip(*frames, strict=True))
    distinct = pl.DataFrame({"frame": rows, "group": groups}).unique(maintain_order=True)
    return distinct["frame"].to_numpy(), distinct["group"].to_numpy()
