"""Tiles of windows, and which tiles of two window sets can hold pairs: the coarse half of the ground truth.

Consecutive windows of one stride are put into *tiles* of a few slots, so that windows which share frames are
compared together. A tile's frames are boxed in pieces that never leave one cell of a grid, so a jump of
kilometres inside a window makes two small boxes and not one over half a city. The boxes of the database stand
in an R-tree.

Convention: slot k of a tile holds the windows whose first frame is `start + k·stride`; it may hold none (a
window that does not exist) or several (windows shifted inward at a run's ends are equal).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from seqdata.errors import ContractError
from seqdata.geometry import Float64Array, IntArray

# Windows of a tile at stride 1. Consecutive windows share L-1 frames: two tiles of 16 windows of 5 frames take 20 × 20
# frame distances instead of 80 × 80, and one query of the R-tree instead of 16 (timed by bench_truth.py).
SLOTS = 16
LONGEST_STRIDE = 1024  # a greater step between windows is a gap, not a stride
# Side of a grid cell in radii: smaller cells make more boxes, greater ones boxes with more empty ground. A guess.
CELLS = 4.0


@dataclass(frozen=True)
class WindowSet:
    """Windows over one array of frames, ready to be compared; make it with `WindowSet.of`.

    Attributes:
        xy: Coordinates of the track's frames, float64 (F, 2): metres of one zone a group, or (rank, 0) where the unit
            is frames.
        heading: Headings of the frames in degrees, float64 (F,), NaN where unknown.
        first: Row in `xy` of each window's first frame, int64 (n,).
        length: Frames of each window, int64 (n,).
        step: Rows from frame to frame of a window, int64 (n,).
        group: Group of each window, int64 (n,); only windows of equal group are compared.
    """

    xy: Float64Array
    heading: Float64Array
    first: IntArray
    length: IntArray
    step: IntArray
    group: IntArray

    @classmethod
    def from_coordinates(
        cls,
        xy: npt.ArrayLike,
        first: npt.ArrayLike,
        length: npt.ArrayLike,
        *,
        step: npt.ArrayLike = 1,
        group: npt.ArrayLike = 0,
        heading: npt.ArrayLike | None = None,
    ) -> "WindowSet":
        """Check windows and put them into one set.

        Args:
            xy: Coordinates (F, 2) of the track's frames.
            first: Row of each window's first frame (n,).
            length: Frames of the windows: one number, or (n,).
            step: Rows from frame to frame: one number, or (n,).
            group: Group of the windows: one number, or (n,).
            heading: Headings (F,) of the frames in degrees; None where all are unknown.

        Raises:
            ContractError: If a coordinate is not finite or a window leaves the array of frames.

        Example:
            >>> len(WindowSet.from_coordinates([[0.0, 0.0], [0.0, 2.0], [0.0, 4.0]], first=[0, 1], length=2))
            2
        """
        points = np.ascontiguousarray(xy, np.float64).reshape(-1, 2)
        rows = np.asarray(first, np.int64)
        columns = [np.broadcast_to(np.asarray(column, np.int64), rows.shape) for column in (length, step, group)]
        headings = np.full(len(points), np.nan) if heading is None else np.asarray(heading, np.float64)
        windows = cls(points, headings, rows, *columns)
        windows._check()
        return windows

    def _check(self) -> None:
        if not np.isfinite(self.xy).all():
            raise ContractError("windows cannot be compared: a frame's coordinates are not finite")
        if len(self.heading) != len(self.xy):
            raise ContractError(f"{len(self.heading)} headings for {len(self.xy)} frames")
        if len(self.first) == 0:
            return
        if min(self.length.min(), self.step.min()) < 1 or self.first.min() < 0:
            raise ContractError("windows need a length and step of at least 1 and a first row of at least 0")
        if (self.first + (self.length - 1) * self.step).max() >= len(self.xy):
            raise ContractError(f"a window reaches beyond the {len(self.xy)} frames of its track")

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.first)

    def subset(self, rows: IntArray) -> "WindowSet":
        """Select windows by their rows (n,); the frames stay."""
        columns = (self.first[rows], self.length[rows], self.step[rows], self.group[rows])
        return WindowSet(self.xy, self.heading, *columns)

    def centre_heading(self) -> Float64Array:
        """Heading of every window's centre frame, index (L−1)//2: (n,) degrees."""
        headings: Float64Array = self.heading[self.first + (self.length - 1) // 2 * self.step]
        return headings


@dataclass(frozen=True)
class Tiles:
    """Some windows of a set, cut into tiles.

    Fields: windows (the set); stride, slots (numbers); start, stop, length, step, group int64 (t,): first
    frame row, end of the used frame rows, and the windows' own; order int64 (m,): rows of the set by (tile,
    slot); offset int64 (t·slots + 1,): where each slot's windows begin in `order`.
    """

    windows: WindowSet
    stride: int
    slots: int
    start: IntArray
    stop: IntArray
    length: IntArray
    step: IntArray
    group: IntArray
    order: IntArray
    offset: IntArray

    def frames(self) -> IntArray:
        """Frames that each tile spans when all its slots are filled, what its distances cost: (t,)."""
        return (self.slots - 1) * self.stride + (self.length - 1) * self.step + 1


def common_stride(windows: WindowSet) -> int:
    """The commonest step between the windows' sorted first frames; 1 where there is none."""
    gaps = np.diff(np.sort(windows.first))
    gaps = gaps[(gaps > 0) & (gaps <= LONGEST_STRIDE)]
    return int(np.bincount(gaps).argmax()) if len(gaps) else 1


def cut_tiles(windows: WindowSet, rows: range, stride: int) -> Tiles:
    """Put windows of a set into tiles; they may stand in any order there.

    Scattered windows (a sample, a shuffled table) share no frames: they get tiles of a single slot.

    Args:
        windows: The set.
        rows: Rows of it.
        stride: Frames from window to window.
    """
    # Tiles pay where windows overlap; the cheaper of the two cuts is taken, counted in frames to measure.
    shared = _cut(windows, rows, stride, max(1, SLOTS // stride))
    if shared.frames().sum() <= ((windows.length - 1) * windows.step + 1)[rows.start : rows.stop].sum():
        return shared
    return _cut(windows, rows, stride, 1)


def _cut(windows: WindowSet, rows: range, stride: int, slots: int) -> Tiles:
    """Cut the windows `rows` into tiles of at most `slots` slots."""
    # Sorted by (group, length, step, first), windows that may share a tile stand side by side, so one pass over the
    # neighbours finds where a chain of windows ends.
    part = slice(rows.start, rows.stop)
    columns = (windows.first[part], windows.step[part], windows.length[part], windows.group[part])
    order = np.lexsort(columns)
    first, step, length, group = (column[order] for column in columns)
    joined = np.ones(len(order), bool)
    for column in (step, length, group):
        joined[1:] &= column[1:] == column[:-1]
    gap = np.diff(first, prepend=first[:1])
    joined &= (gap % stride == 0) & (gap < slots * stride)
    joined[:1] = False
    # The cumulative sum of "does not join its predecessor" numbers the chains; `heads[that number]` is a window's own
    # chain's first window, from which its slot is counted. A chain longer than a tile is cut every `slots` slots.
    heads = np.flatnonzero(~joined)
    index = (first - first[heads][np.cumsum(~joined) - 1]) // stride
    new = ~joined
    new[1:] |= index[1:] // slots != index[:-1] // slots
    heads = np.flatnonzero(new)
    offset = _slot_offsets(np.cumsum(new) - 1, index % slots, len(heads), slots)
    start = first[heads] - index[heads] % slots * stride
    stop = np.append(first[heads[1:] - 1], first[-1:]) + (length[heads] - 1) * step[heads] + 1
    return Tiles(
        windows,
        stride,
        slots,
        start,
        stop,
        length[heads],
        step[heads],
        group[heads],
        order + rows.start,
        offset,
    )


def _slot_offsets(tile: IntArray, slot: IntArray, tiles: int, slots: int) -> IntArray:
    """Where each slot's windows begin when windows are sorted by (tile, slot): int64 (tiles · slots + 1,)."""
    counts = np.bincount(tile * slots + slot, minlength=tiles * slots)
    offset = np.zeros(tiles * slots + 1, np.int64)
    np.cumsum(counts, out=offset[1:])
    return offset


@dataclass(frozen=True)
class Pieces:
    """Boxes around the frames of tiles: tile, group int64 (p,); boxes, shapely polygons (p,)."""

    tile: IntArray
    group: IntArray
    boxes: npt.NDArray[np.object_]


def box_pieces(tiles: Tiles, cell: float, margin: float) -> Pieces:
    """Box every tile's frames, one box for those inside each cell of a grid.

    Args:
        tiles: The tiles.
        cell: Side of a cell, in the unit of the coordinates.
        margin: How much wider than their frames the boxes are on every side.
    """
    # One row for each (tile, frame): rows of a tile count up from its start, so the running number minus the number at
    # which the tile begins is the frame's place in it.
    sizes = tiles.stop - tiles.start
    tile = np.repeat(np.arange(len(sizes)), sizes)
    frame = np.arange(len(tile)) + np.repeat(tiles.start - (np.cumsum(sizes) - sizes), sizes)
    points = tiles.windows.xy[frame]
    cells = np.floor(points / cell)
    order = np.lexsort((cells[:, 1], cells[:, 0], tile))
    tile, points, cells = tile[order], points[order], cells[order]
    new = np.ones(len(tile), bool)
    new[1:] = (np.diff(cells, axis=0) != 0).any(axis=1) | (np.diff(tile) != 0)
    heads = np.flatnonzero(new)
    if len(heads) == 0:
        return Pieces(tile, tile, np.empty(0, object))
    low, high = np.minimum.reduceat(points, heads) - margin, np.maximum.reduceat(points, heads) + margin
    boxes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    return Pieces(tile[heads], tiles.group[tile[heads]], boxes)


class TileFinder:
    """R-trees over the database's tiles, one a group: which tiles may lie within `radius` of query tiles.

    Its answers are a superset, never too few. Searching changes nothing, so threads may share one.
    """

    def __init__(self, database: Tiles, radius: float) -> None:
        self.database = database
        self._cell = max(CELLS * radius, 1.0)
        # A part in a billion and a millimetre more than the radius: pairs are decided by distance, not by
        # boxes.
        self._margin = radius * (1 + 1e-9) + 1e-3
        pieces = box_pieces(database, self._cell, 0.0)
        self._trees = {}
        for group in np.unique(pieces.group).tolist():
            rows = np.flatnonzero(pieces.group == group)
            self._trees[group] = (shapely.STRtree(pieces.boxes[rows]), pieces.tile[rows])

    def candidates(self, query: Tiles) -> tuple[IntArray, IntArray]:
        """Pairs of (query tile, database tile), each once, by rising query then database tile: int64 (c,)
        each.
        """
        pieces = box_pieces(query, self._cell, self._margin)
        width = max(1, len(self.database.start))
        keys = [np.empty(0, np.int64)]
        for group in np.unique(pieces.group).tolist():
            if group in self._trees:
                tree, tile = self._trees[group]
                rows = np.flatnonzero(pieces.group == group)
                hits = tree.query(pieces.boxes[rows])
                keys.append(pieces.tile[rows[hits[0]]] * width + tile[hits[1]])
        # Sorting beats np.unique, whose hashing is many times slower on keys like these.
        key = np.sort(np.concatenate(keys))
        key = key[np.diff(key, prepend=-1) != 0]
        return key // width, key % width
