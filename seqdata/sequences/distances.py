"""Distances of all windows of one tile to all windows of another: the fine half of the ground truth.

Many tile pairs are computed at once. Frame distances fill a block (query frames, database frames, tile
pairs); all four window distances are sliding minima, maxima and slices of it, so every frame pair is measured
once and not L² times. Pairs of tiles stand on the last axis: numpy's inner loops are then long.

Convention: a distance is sqrt(dx·dx + dy·dy) in float64. Squares are compared and the root is taken last;
both give the same pairs, since rounding keeps the order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.geometry import Float64Array, IntArray
from seqdata.sequences.tiles import Tiles

# Frame distances computed at once: 1 MiB of float64, so that a block stays in a core's own cache.
BLOCK = 1 << 17

Combine = Callable[[Any, Any], Any]
Columns = dict[str, npt.NDArray[Any]]
DISTANCES = ("min_distance", "centre_distance", "last_distance", "worst_distance")


@dataclass(frozen=True)
class Shape:
    """How windows of one kind lie in their tile.

    Attributes:
        length: Frames of a window.
        step: Rows from frame to frame.
        stride: Rows from slot to slot.
        slots: Windows of a tile.
    """

    length: int
    step: int
    stride: int
    slots: int

    @property
    def frames(self) -> int:
        """Frames that a tile spans."""
        return (self.slots - 1) * self.stride + (self.length - 1) * self.step + 1

    def frames_at(self, index: int) -> slice:
        """Slice the tile's frames to frame number `index` of every window."""
        begin = index * self.step
        return slice(begin, begin + (self.slots - 1) * self.stride + 1, self.stride)


def sliding(values: Float64Array, combine: Combine, shape: Shape, axis: int) -> Float64Array:
    """Combine the frames of every window along one axis.

    Widths double: a minimum over five frames takes three passes instead of four, over fifteen four.

    Args:
        values: Array with frames along the axis.
        combine: `np.minimum` or `np.maximum`.
        shape: Shape of the tile.
        axis: 0 or 1.

    Returns:
        Array with slots along the axis.
    """
    lead = (slice(None),) * axis
    width = 1
    while width < shape.length:
        shift = min(width, shape.length - width) * shape.step
        values = combine(values[(*lead, slice(None, -shift))], values[(*lead, slice(shift, None))])
        width += min(width, shape.length - width)
    combined: Float64Array = values[(*lead, shape.frames_at(0))]
    return combined


def squared_blocks(
    frames: Float64Array, query: Shape, database: Shape
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Compute the four squared distances of windows from squared distances of frames.

    Args:
        frames: (query frames, database frames, b), b tiles at once.
        query: Shape of the query tiles.
        database: Shape of the database tiles.

    Returns:
        Least, centre, last and worst (greatest over the query's frames of the least over the database window's), each
        (query slots, database slots, b).
    """
    nearest = sliding(frames, np.minimum, database, axis=1)
    least = sliding(nearest, np.minimum, query, axis=0)
    worst = sliding(nearest, np.maximum, query, axis=0)
    centre = frames[query.frames_at((query.length - 1) // 2), database.frames_at((database.length - 1) // 2)]
    last = frames[query.frames_at(query.length - 1), database.frames_at(database.length - 1)]
    return least, centre, last, worst


def tile_pairs(
    query: Tiles, database: Tiles, pairs: tuple[IntArray, IntArray], radius: float, inclusive: bool
) -> Columns:
    """Find all window pairs of the given tile pairs whose least distance is under `radius`.

    Args:
        query: Tiles of the query windows.
        database: Tiles of the database windows.
        pairs: Rows of query and database tiles, int64 (c,) each.
        radius: Greatest least distance, in the unit of the sets.
        inclusive: Whether a distance equal to `radius` counts.

    Returns:
        Columns query, database (int64 rows of the two sets) and the four distances (float64), by rising
        (query, database).
    """
    parts = [
        part
        for rows, shapes in _kinds(query, database, pairs)
        for part in _batches(query, database, (pairs[0][rows], pairs[1][rows]), shapes, radius, inclusive)
    ]
    names = ("query", "database", *DISTANCES)
    kinds = (np.int64, np.int64, *(np.float64,) * 4)
    columns = [
        np.concatenate([part[i] for part in parts]) if parts else np.empty(0, kind) for i, kind in enumerate(kinds)
    ]
    # No pair stands twice, so any sort gives the same order.
    order = np.argsort(columns[0] * len(database.windows) + columns[1])
    return {name: column[order] for name, column in zip(names, columns, strict=True)}


def _kinds(
    query: Tiles, database: Tiles, pairs: tuple[IntArray, IntArray]
) -> Iterator[tuple[IntArray, tuple[Shape, Shape]]]:
    """The tile pairs of each combination of window lengths and steps: mostly there is one."""
    q, d = pairs
    keys = np.stack([query.length[q], query.step[q], database.length[d], database.step[d]], axis=1)
    kinds, which = np.unique(keys, axis=0, return_inverse=True)
    for number, (q_length, q_step, d_length, d_step) in enumerate(kinds.tolist()):
        shapes = (
            Shape(q_length, q_step, query.stride, query.slots),
            Shape(d_length, d_step, database.stride, database.slots),
        )
        yield np.flatnonzero(which.reshape(-1) == number), shapes


def _batches(
    query: Tiles,
    database: Tiles,
    pairs: tuple[IntArray, IntArray],
    shapes: tuple[Shape, Shape],
    radius: float,
    inclusive: bool,
) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Window pairs of one kind, a cache-sized block at a time: rows and distances, unordered."""
    size = max(1, BLOCK // (shapes[0].frames * shapes[1].frames))
    # Squares are compared first, a part in a billion wider than the radius; the root decides.
    limit = radius * radius * (1 + 1e-9)
    for begin in range(0, len(pairs[0]), size):
        q, d = pairs[0][begin : begin + size], pairs[1][begin : begin + size]
        blocks = squared_blocks(_frame_distances(query, database, q, d, shapes), *shapes)
        exists = _exists(query, q)[:, None] & _exists(database, d)[None]
        hits = np.flatnonzero((blocks[0] <= limit) & exists)
        distances = [np.sqrt(np.ascontiguousarray(block).reshape(-1)[hits]) for block in blocks]
        within = distances[0] <= radius if inclusive else distances[0] < radius
        if not within.all():
            hits, distances = hits[within], [distance[within] for distance in distances]
        slot_pair, pair = np.divmod(hits, len(q))
        q_slot, d_slot = np.divmod(slot_pair, shapes[1].slots)
        q_slot, d_slot = q[pair] * query.slots + q_slot, d[pair] * database.slots + d_slot
        yield _expand(query, database, q_slot, d_slot, distances)


def _frame_distances(
    query: Tiles, database: Tiles, q: IntArray, d: IntArray, shapes: tuple[Shape, Shape]
) -> Float64Array:
    """Squared distances (query frames, database frames, tile pairs); past the end the last frame repeats."""
    a = _coordinates(query, q, shapes[0].frames)
    b = _coordinates(database, d, shapes[1].frames)
    squared = a[0][:, None] - b[0][None]
    squared *= squared
    north = a[1][:, None] - b[1][None]
    north *= north
    squared += north
    return np.asarray(squared)


def _coordinates(tiles: Tiles, rows: IntArray, frames: int) -> tuple[Float64Array, Float64Array]:
    """First and second coordinates of the first `frames` frames of the tiles `rows`: (frames, b) each."""
    index = tiles.start[rows] + np.arange(frames)[:, None]
    np.minimum(index, len(tiles.windows.xy) - 1, out=index)
    return tiles.windows.xy[index, 0], tiles.windows.xy[index, 1]


def _exists(tiles: Tiles, rows: IntArray) -> npt.NDArray[np.bool_]:
    """Whether each slot of the tiles `rows` holds a window: (slots, b)."""
    slot = rows * tiles.slots + np.arange(tiles.slots)[:, None]
    return np.asarray(tiles.offset[slot + 1] > tiles.offset[slot])


def _expand(
    query: Tiles, database: Tiles, q_slot: IntArray, d_slot: IntArray, distances: list[Float64Array]
) -> tuple[npt.NDArray[Any], ...]:
    """Rows of the windows in the slots; a slot pair stands once for every pair of equal windows in it."""
    q_begin, d_begin = query.offset[q_slot], database.offset[d_slot]
    q_count, d_count = query.offset[q_slot + 1] - q_begin, database.offset[d_slot + 1] - d_begin
    times = q_count * d_count
    # Equal windows (moved inward at a run's ends) share a slot. The k-th of a slot pair's `times` copies is query
    # window k // d_count and database window k % d_count; k is the row's number minus where its copies begin.
    if len(times) and times.max() > 1:
        which = np.repeat(np.arange(len(times)), times)
        number = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
        q_begin = q_begin[which] + number // d_count[which]
        d_begin = d_begin[which] + number % d_count[which]
        distances = [distance[which] for distance in distances]
    return (query.order[q_begin], database.order[d_begin], *distances)
