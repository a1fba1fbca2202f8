"""SeqSLAM: contrast-enhanced frame distances, added up along the best straight line through each pair of windows.

M. Milford and G. Wyeth, SeqSLAM, ICRA 2012, sec. III: difference matrix, local contrast enhancement, search over
velocities. The parameters are those of docs/methods.md#seqslam.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from indexer.matching.aligned import Metric, check_windows, frame_distances, smallest, window_blocks
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, Float64Array, IntArray

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
    """Find the k nearest database windows by the mean enhanced distance along the best line through both centres.

    Several blocks of about `block` values are in memory, never the whole matrix.

    Convention: rows of `database_windows` rise along the drive, and the frames of a window follow each other without
    one that another window uses between them. Frames that stand side by side in some window are neighbours; contrast
    and lines never cross from one such run into the next. The line of velocity v pairs query frame l of L with the
    database frame v·(l - c) after the window's centre c = (L - 1) // 2, rounded to the nearest, halves upward. Only
    whole query windows have a score: of a drive of n frames the first and last about L/2 have none.

    Args:
        query_frames: Descriptors (fq, p) float32, each distinct frame once.
        query_windows: Rows (nq, L) of `query_frames`.
        database_frames: Descriptors (fd, p) float32.
        database_windows: Rows (nd, L) of `database_frames`.
        k: Neighbours of each query, cut to nd.
        settings: Neighbourhood and velocities; None for SeqSLAM's own.
        metric: How two frames are compared.
        block: Values of the difference matrix at once.
        progress: Called with the number of queries finished.

    Returns:
        Distances (nq, k) float32, nearest first with ties by row, and rows (nq, k) of the database windows. Distances
        have no unit and may be negative; infinity where no line stays inside the database.

    Raises:
        ContractError: If shapes do not fit, k < 1, windows have one frame or skip frames.
    """
    check_windows(query_frames, query_windows, database_frames, database_windows, k)
    parameters = settings or SeqSlam()
    used, inverse = np.unique(database_windows, return_inverse=True)
    columns: IntArray = inverse.reshape(database_windows.shape)
    runs = _runs(columns, len(used))
    lines = line_offsets(query_windows.shape[1], parameters.velocities)
    centres = columns[:, (columns.shape[1] - 1) // 2]
    database, k = database_frames[used], min(k, len(centres))
    distances = np.empty((len(query_windows), k), np.float32)
    rows = np.empty((len(query_windows), k), np.int64)
    for part in window_blocks(query_windows, len(used), block):
        frames, inverse = np.unique(query_windows[part], return_inverse=True)
        contrast = enhance(frame_distances(query_frames[frames], database, metric), runs, parameters.neighbours)
        best = _best_lines(contrast, inverse.reshape(-1, columns.shape[1]), lines, runs)
        distances[part], rows[part] = smallest(best[:, centres], k)
        if progress is not None:
            progress(part.stop)
    return distances, rows


def enhance(distances: Float32Array, runs: IntArray, neighbours: int) -> Float32Array:
    """Enhance local contrast: (value - mean) / deviation over the neighbours along the database.

    Convention: the neighbourhood is the frame itself and `neighbours` // 2 on each side, cut at its run's ends; the
    deviation has one degree of freedom less; a flat neighbourhood gives zeros.

    Args:
        distances: Frame distances (q, d).
        runs: Label (d,), rising, of the run that each database frame belongs to.
        neighbours: Width of the neighbourhood without the frame itself.

    Returns:
        Contrast (q, d) float32.
    """
    half = neighbours // 2
    columns = np.arange(len(runs))
    # Labels rise, so a run's ends are found by bisection.
    low = np.maximum(columns - half, np.searchsorted(runs, runs, side="left"))
    high = np.minimum(columns + half + 1, np.searchsorted(runs, runs, side="right"))
    count = (high - low).astype(np.float64)
    # Squares of values around zero keep their digits in the difference of running sums below.
    centred = distances - distances.mean(axis=1, keepdims=True, dtype=np.float64)
    mean = _window_sums(centred, low, high) / count
    spread = _window_sums(np.square(centred), low, high) - count * np.square(mean)
    deviation = np.sqrt(np.maximum(spread, 0) / np.maximum(count - 1, 1))
    floor = np.sqrt(FLAT * np.mean(np.square(distances, dtype=np.float64), axis=1, keepdims=True))
    enhanced = np.divide(centred - mean, deviation, out=np.zeros_like(centred), where=deviation > floor)
    return np.asarray(enhanced, np.float32)


def line_offsets(length: int, velocities: tuple[float, ...]) -> IntArray:
    """List the distinct lines through a window of `length` frames, as database offsets (v, L) from the centre.

    Example:
        >>> line_offsets(5, (0.5, 1.0)).tolist()
        [[-2, -1, 0, 1, 2], [-1, 0, 0, 1, 1]]
    """
    steps = np.arange(length) - (length - 1) // 2
    # A velocity of 0.8 + 0.1 is not quite 0.9: without the rounding, exact halves would fall by chance.
    products = np.round(np.outer(np.asarray(velocities, np.float64), steps), 9)
    return np.unique(np.floor(products + 0.5).astype(np.int64), axis=0)


def _window_sums(values: Float64Array, low: IntArray, high: IntArray) -> Float64Array:
    """Sums (q, d) of values[:, low:high] for every column, as differences of running sums: one pass, any width."""
    running = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=running[:, 1:])
    sums: Float64Array = running[:, high]
    sums -= running[:, low]
    return sums


def _best_lines(contrast: Float32Array, windows: IntArray, lines: IntArray, runs: IntArray) -> Float32Array:
    """Least mean (b, d) over the lines, for windows (b, L) of rows of `contrast` and every database frame as centre."""
    best = np.full((len(windows), contrast.shape[1]), np.inf, np.float32)
    columns = np.arange(len(runs))
    for line in lines:
        first, last = columns + line.min(), columns + line.max()
        inside = (first >= 0) & (last < len(runs))
        inside[inside] = runs[first[inside]] == runs[last[inside]]
        total = np.zeros_like(best)
        # Adding whole shifted rows follows the line through all centres at once, without gathering single values.
        for position, offset in enumerate(line):
            # Columns that the shift leaves out lie outside their run for this line, and are dropped below.
            source = slice(max(0, offset), len(runs) + min(0, offset))
            target = slice(max(0, -offset), len(runs) + min(0, -offset))
            total[:, target] += contrast[windows[:, position], source]
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
    begins[columns[:, 1:]] = False  # a frame that follows another in some window begins no run
    return np.cumsum(begins) - 1
