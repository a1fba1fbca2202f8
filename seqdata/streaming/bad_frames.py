"""Windows whose frames turned bad since the build: each bad frame shows its nearest good neighbour instead.

Convention: nearest in the same window by frames of the window, the earlier of two equally near; where the whole window
is bad, nearest in the same trajectory by frame rows, among frames that the stream's windows show (so never one that
was withdrawn or left out by a policy). Which window stands where in an epoch never changes.
"""

from functools import cached_property

import numpy as np

from seqdata.errors import ContractError
from seqdata.frames.cache import DecodeCache
from seqdata.frames.images import Pixels
from seqdata.geometry import BoolArray, IntArray


class Neighbours:
    """Which frames may stand in for one: `frame_rows` (n, L) of all windows, `starts` (t + 1,) of all trajectories.

    `starts` holds the first frame row of every trajectory, and the number of frames.
    """

    def __init__(self, frame_rows: IntArray, starts: IntArray) -> None:
        self._frame_rows, self._starts = frame_rows, starts

    def of(self, row: int) -> list[int]:
        """Frame rows of the trajectory that holds `row`, the nearest first, without `row`."""
        number = int(np.searchsorted(self._starts, row, side="right"))
        first, stop = self._starts[number - 1 : number + 1]
        rows = first + np.flatnonzero(self._shown[first:stop])
        rows = rows[rows != row]
        nearest: list[int] = rows[np.lexsort((rows, np.abs(rows - row)))].tolist()
        return nearest

    @cached_property
    def _shown(self) -> BoolArray:
        shown = np.zeros(self._starts[-1], dtype=np.bool_)
        shown[self._frame_rows.ravel()] = True
        return shown


def read_window(cache: DecodeCache, rows: IntArray, neighbours: Neighbours) -> tuple[list[Pixels], BoolArray]:
    """Pixels (H, W, 3) of the frames `rows` (L,) of one window, and which of them are a neighbour's: bool (L,).

    Raises: InputError when a shard cannot be read, ContractError when a trajectory has no good frame.
    """
    wanted = rows.tolist()
    found = cache.frames(wanted)
    good = np.flatnonzero([found[row] is not None for row in wanted])
    replaced = np.ones(len(wanted), dtype=np.bool_)
    replaced[good] = False
    if not len(good):
        return [_from_trajectory(cache, row, neighbours) for row in wanted], replaced
    nearest = good[np.abs(good - np.arange(len(wanted))[:, None]).argmin(axis=1)]
    frames = (found[wanted[at]] for at in nearest)
    return [frame for frame in frames if frame is not None], replaced


def _from_trajectory(cache: DecodeCache, row: int, neighbours: Neighbours) -> Pixels:
    """The nearest good frame of the trajectory that holds frame `row`."""
    for candidate in neighbours.of(row):
        frame = cache.frames([candidate])[candidate]
        if frame is not None:
            return frame
    raise ContractError(f"no frame of the trajectory around frame {row} decodes; run seqdata verify on the dataset")
