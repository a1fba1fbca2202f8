"""SeqSLAM: contrast-enhanced frame distances, added up along the best straight line through each pair of windows.

Source: Milford & Wyeth 2012, section III (difference matrix, local contrast enhancement, search over velocities); the
parameters of P1's comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.matching.aligned import Metric, check_windows, frame_distances, smallest, window_blocks
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

BLOCK_VALUES = 1 << 22  # values of one block of the difference matrix: 16 MiB in float32, some 150 MiB at work
FLAT = 1e-12  # variance, as a share of the mean square, below which a neighbourhood is rounding noise


@dataclass(frozen=True)
class SeqSlam:
    """Parameters: contrast is taken over `neighbours` // 2 frames on each side, lines have these `velocities`.

    Convention: a velocity is database frames a query frame.
    """

    neighbours: int = 10
    velocities: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1, 1.2)


def match_seqslam(
    query_frames: Float32Array,
    query_windows: IntArray,
    database_frames: Float32Array,
    database_windows: IntArray,
    k: int,
    *,
    settings: SeqSlam | None = None,
    metric: Metric = "l1",
    block: int = BLOCK_VALUES,
    progress: Callable[[int], None] | None = None,
) -> tuple[Float32Array, IntArray]:
    """The k nearest database windows by the mean enhanced distance along the best line through both centres.

    Parameters and returns as `indexer.matching.aligned.match_aligned`; distances have no unit and may be negative,
    inf where
    no line stays inside the database. Several blocks of about `block` values are held, never the whole matrix.

    Convention: rows of `database_windows` rise along the drive, and the frames of a window follow each other without
    one that another window uses between them. Frames that stand side by side in some window are neighbours; contrast
    and lines never cross from one such run into the next. The line of velocity v pairs query frame l of L with the
    database frame v·(l - c) after the window's centre c = (L - 1) // 2, rounded to the nearest, halves upward. Only
    whole query windows have a score: of a drive of n frames the first and last about L/2 have none.

    Raises: ContractError on shapes that do not fit, k < 1, windows of one frame, or windows that skip frames.
    """
    check_windows(query_frames, query_windows, database_frames, database_windows, k)
    chosen = settings or SeqSlam()
    used, back = np.unique(database_windows, return_inverse=True)
    columns: IntArray = back.reshape(database_windows.shape)
    runs = _runs(columns, len(used))
    lines = line_offsets(query_windows.shape[1], chosen.velocities)
    centres = columns[:, (columns.shape[1] - 1) // 2]
    database, k = database_frames[used], min(k, len(centres))
    distances = np.empty((len(query_windows), k), np.float32)
    rows = np.empty((len(query_windows), k), np.int64)
    for part in window_blocks(query_windows, len(used), block):
        frames, of_block = np.unique(query_windows[part], return_inverse=True)
        contrast = enhance(frame_distances(query_frames[frames], database, metric), runs, chosen.neighbours)
        best = _best_lines(contrast, of_block.reshape(-1, columns.shape[1]), lines, runs)
        distances[part], rows[part] = smallest(best[:, centres], k)
        if progress is not None:
            progress(part.stop)
    return distances, rows


def enhance(apart: Float32Array, runs: IntArray, neighbours: int) -> Float32Array:
    """Local contrast (q, d) float32 of distances (q, d): (value - mean) / deviation over the database neighbours.

    `runs` (d,) rises and labels the run of each database frame. Convention: the neighbourhood is the frame itself and
    `neighbours` // 2 on each side, cut at its run's ends; the deviation has ddof 1; a flat one gives zeros.
    """
    half = neighbours // 2
    at = np.arange(len(runs))
    low = np.maximum(at - half, np.searchsorted(runs, runs, side="left"))
    high = np.minimum(at + half + 1, np.searchsorted(runs, runs, side="right"))
    count = (high - low).astype(np.float64)
    centred = apart - apart.mean(axis=1, keepdims=True, dtype=np.float64)
    mean = _window_sums(centred, low, high) / count
    spread = _window_sums(np.square(centred), low, high) - count * np.square(mean)
    deviation = np.sqrt(np.maximum(spread, 0) / np.maximum(count - 1, 1))
    floor = np.sqrt(FLAT * np.mean(np.square(apart, dtype=np.float64), axis=1, keepdims=True))
    enhanced = np.divide(centred - mean, deviation, out=np.zeros_like(centred), where=deviation > floor)
    return np.asarray(enhanced, np.float32)


def line_offsets(length: int, velocities: tuple[float, ...]) -> IntArray:
    """Database offsets (v, L) from the centre of the distinct lines through a window of `length` frames."""
    steps = np.arange(length) - (length - 1) // 2
    # A velocity of 0.8 + 0.1 is not quite 0.9: without the rounding, exact halves would fall by chance.
    products = np.round(np.outer(np.asarray(velocities, np.float64), steps), 9)
    return np.unique(np.floor(products + 0.5).astype(np.int64), axis=0)


def _window_sums(values: npt.NDArray[np.float64], low: IntArray, high: IntArray) -> npt.NDArray[np.float64]:
    """Sums (q, d) of values[:, low:high] for every column."""
    running = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=running[:, 1:])
    sums: npt.NDArray[np.float64] = running[:, high]
    sums -= running[:, low]
    return sums


def _best_lines(contrast: Float32Array, of_block: IntArray, lines: IntArray, runs: IntArray) -> Float32Array:
    """Least mean (b, d) over the lines, for every query window and every database frame as the centre."""
    best = np.full((len(of_block), contrast.shape[1]), np.inf, np.float32)
    at = np.arange(len(runs))
    for line in lines:
        first, last = at + line.min(), at + line.max()
        inside = (first >= 0) & (last < len(runs))
        inside[inside] = runs[first[inside]] == runs[last[inside]]
        total = np.zeros_like(best)
        for place, offset in enumerate(line):
            # Columns that the shift leaves out lie outside their run for this line, and are dropped below.
            source = slice(max(0, offset), len(runs) + min(0, offset))
            target = slice(max(0, -offset), len(runs) + min(0, -offset))
            total[:, target] += contrast[of_block[:, place], source]
        total /= len(line)
        total[:, ~inside] = np.inf
        np.minimum(best, total, out=best)
    return best


def _runs(columns: IntArray, frames: int) -> IntArray:
    """Label (frames,), rising, of the run of each used database frame. Raises: ContractError."""
    if columns.shape[1] < 2:
        raise ContractError("SeqSLAM adds up along a line: windows need two frames or more")
    if (np.diff(columns, axis=1) != 1).any():
        raise ContractError("SeqSLAM follows neighbouring frames: these windows skip frames that others use")
    begins = np.ones(frames, np.bool_)
    begins[columns[:, 1:]] = False
    return np.cumsum(begins) - 1
