"""Windows whose frames turned bad since the build: each bad frame shows its nearest good neighbour instead.

Convention: nearest in the same window by frames of the window, the earlier of two equally near; where the whole window
is bad, nearest in the same trajectory by frame rows, among frames that the windows in use show (so never one that
was withdrawn or left out by a policy). Which window stands where in an epoch never changes.
"""

from functools import cached_property

import numpy as np
import polars as pl

from seqdata.errors import ContractError
from seqdata.frames.cache import DecodeCache
from seqdata.frames.images import Pixels
from seqdata.geometry import BoolArray, IntArray


class Neighbours:
    """Which frames may replace one: those of its trajectory that a window shows.

    Args:
        frame_rows: Frame rows of all windows in use, int64 of any shape.
        trajectories: The trajectory of every frame of the dataset, in the order of the frames table.
    """

    def __init__(self, frame_rows: IntArray, trajectories: pl.Series) -> None:
        # Runs of equal names, not distinct names: frames of a trajectory lie side by side in the table.
        runs = np.diff(trajectories.rle_id().to_numpy().astype(np.int64), prepend=-1)
        self._starts = np.append(np.flatnonzero(runs), len(trajectories))
        self._frame_rows = frame_rows

    def nearest(self, row: int) -> list[int]:
        """List the frame rows of the trajectory that holds `row`, the nearest first, without `row`."""
        number = int(np.searchsorted(self._starts, row, side="right"))
        first, stop = self._starts[number - 1 : number + 1]
        rows = first + np.flatnonzero(self._is_shown[first:stop])
        rows = rows[rows != row]
        nearest: list[int] = rows[np.lexsort((rows, np.abs(rows - row)))].tolist()
        return nearest

    @cached_property
    def _is_shown(self) -> BoolArray:
        # Filled at the first bad frame only: a stream of a whole dataset never pays for it.
        is_shown = np.zeros(self._starts[-1], dtype=np.bool_)
        is_shown[self._frame_rows.ravel()] = True
        return is_shown


def read_window(cache: DecodeCache, rows: IntArray, neighbours: Neighbours) -> tuple[list[Pixels], BoolArray]:
    """Read one window.

    Args:
        cache: Decoded frames.
        rows: Frame rows (L,) of the window.
        neighbours: What may replace a bad frame.

    Returns:
        Pixels (H, W, 3) of each frame, and which of them are a neighbour's: bool (L,).

    Raises:
        InputError: If a shard cannot be read.
        ContractError: If a trajectory has no good frame.
    """
    frames = cache.frames(rows.tolist())
    visible = visible_rows(cache, rows, neighbours)
    is_replaced = visible != rows
    if is_replaced.any():
        frames |= cache.frames(row for row in visible.tolist() if row not in frames)
    return [frame for row in visible.tolist() if (frame := frames[row]) is not None], is_replaced


def visible_rows(cache: DecodeCache, rows: IntArray, neighbours: Neighbours) -> IntArray:
    """Choose the frame that each frame of a window shows, now that all of them were read through `cache`.

    Args:
        cache: Knows which frames are bad.
        rows: Frame rows (L,) of the window.
        neighbours: What may replace a bad frame.

    Returns:
        Frame rows (L,), all good: `rows` themselves but for bad ones.

    Raises:
        ContractError: If a trajectory has no good frame.
    """
    is_good = np.array([row not in cache.bad for row in rows.tolist()])
    if is_good.all():
        return rows
    if not is_good.any():
        return np.array([_nearest_of_trajectory(cache, row, neighbours) for row in rows.tolist()], dtype=np.int64)
    good = np.flatnonzero(is_good)
    # argmin takes the first of equally near positions, so the earlier frame wins a tie, as the convention says.
    offsets = np.abs(good - np.arange(len(rows))[:, None])
    substitutes: IntArray = rows[good[offsets.argmin(axis=1)]]
    return substitutes


def _nearest_of_trajectory(cache: DecodeCache, row: int, neighbours: Neighbours) -> int:
    """The nearest good frame of the trajectory that holds frame `row`."""
    for candidate in neighbours.nearest(row):
        if cache.frames([candidate])[candidate] is not None:
            return candidate
    raise ContractError(f"no frame of the trajectory around frame {row} decodes; run seqdata verify on the dataset")
