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

SLOTS = 16  # windows a tile at stride 1
LONGEST_STRIDE = 1024  # a greater step between windows is a gap, not a stride
CELLS = 4.0  # side of a grid cell in radii


@dataclass(frozen=True)
class WindowSet:
    """Windows over one array of frames, ready to be compared; make it with `WindowSet.of`.

    Fields: xy float64 (F, 2), coordinates of the track's frames, metres of one zone a group or (rank, 0) for
    frames as unit; heading float64 (F,), degrees, NaN where unknown; first, length, step, group int64 (n,),
    the windows. Only windows of equal group are ever compared.
    """

    xy: Float64Array
    heading: Float64Array
    first: IntArray
    length: IntArray
    step: IntArray
    group: IntArray

    @classmethod
    def of(
        cls,
        xy: npt.ArrayLike,
        first: npt.ArrayLike,
        length: npt.ArrayLike,
        *,
        step: npt.ArrayLike = 1,
        group: npt.ArrayLike = 0,
        heading: npt.ArrayLike | None = None,
    ) -> "WindowSet":
        """A checked window set; `length`, `step` and `group` are one number for all windows or (n,) each.

        Raises: ContractError when a coordinate is not finite or a window leaves the array of frames.
        """
        points = np.ascontiguousarray(xy, np.float64).reshape(-1, 2)
        rows = np.asarray(first, np.int64)
        columns = [np.broadcast_to(np.asarray(column, np.int64), rows.shape) for column in (length, step, group)]
        headings = np.full(len(points), np.nan) if heading is None else np.asarray(heading, np.float64)
        made = cls(points, headings, rows, *columns)
        made._check()
        return made

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
    """Put the windows `rows` of a set into tiles; they may stand in any order there.

    Scattered windows (a sample, a shuffled table) share no frames: they get tiles of a single slot.
    """
    shared = _cut(windows, rows, stride, max(1, SLOTS // stride))
    if shared.frames().sum() <= ((windows.length - 1) * windows.step + 1)[rows.start : rows.stop].sum():
        return shared
    return _cut(windows, rows, stride, 1)


def _cut(windows: WindowSet, rows: range, stride: int, slots: int) -> Tiles:
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
    """Box every tile's frames, one box for those inside each cell of a grid of side `cell`.

    The boxes are `margin` wider on every side than their frames.
    """
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
    """The database's tiles in R-trees, one a group: which of them may lie within `radius` of query tiles.

    A superset is found, never too few. Searching changes nothing.
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
