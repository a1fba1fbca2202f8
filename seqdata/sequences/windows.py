"""Tracks and windows: which frames remain of each trajectory, and the sequences that can be cut from them.

A *track* is the list of frame rows that one panorama policy, clean list and spacing rule leave. A *window* is
three integers into it: (first, length, step). No pixels are touched and nothing is ever padded.

Convention: a window of length L holds the track rows first, first + step, …, first + (L−1)·step, all of one
*run*. Its centre is the row at index (L−1)//2: symmetric for odd L, −(L/2−1)…+L/2 around it for even L
(docs/methods.md#windows). A run is a stretch without a break; runs end at a trajectory's end, where positions do not
step by exactly 1, and where two neighbouring frames are more than `max_step` metres apart.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, Float64Array, IntArray, steps
from seqdata.sequences.resampling import keep_mask

TRACK_SCHEMA = {"trajectory": pl.String, "frame": pl.Int32, "run": pl.Int32, "rank": pl.Int32}
WINDOW_SCHEMA = {"first": pl.Int32, "length": pl.Int16, "step": pl.Int16}


def reversed_windows(windows: pl.DataFrame) -> pl.DataFrame:
    """Turn windows round, last frame first.

    Table III of Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022,
    turns the database round in this way.

    Convention: rows stay as they are, `first` is the last frame's row and `step` negative; a window keeps its centre
    frame, so its truth and place are those of the forward window.

    Example:
        >>> forward = pl.DataFrame({"first": [0, 1], "length": [5, 5], "step": [1, 1]})
        >>> reversed_windows(forward).rows()
        [(4, 5, -1), (5, 5, -1)]
    """
    last = (pl.col("length").cast(pl.Int32) - 1) * pl.col("step")
    return windows.with_columns(first=pl.col("first") + last, step=-pl.col("step"))


def centre_index(length: int) -> int:
    """Index of the centre frame inside a window of `length` frames.

    Example:
        >>> centre_index(5), centre_index(4)
        (2, 1)
    """
    return (length - 1) // 2


def track(
    frames: pl.DataFrame,
    *,
    panoramas: str = "keep",
    clean: bool = False,
    spacing: float | None = None,
    max_step: float | None = None,
    rule: str = "greedy",
    flagged: bool = False,
) -> pl.DataFrame:
    """Select the frames that remain of each trajectory, and the runs in which windows may lie.

    Panoramas are left out first, then frames off the clean list, then each trajectory is resampled.

    Args:
        frames: One row a frame, each trajectory's rows together and by rising position; columns frame (row number in
            the dataset), trajectory, position, easting, northing (metres), panorama, clean_position where `clean`,
            and resampled where `flagged`.
        panoramas: "drop" or "keep".
        clean: Whether only frames of the clean list remain.
        spacing: Spacing in metres that each trajectory is resampled to; None leaves all frames.
        max_step: Greatest distance in metres of neighbouring frames in a run; None sets no limit.
        rule: Resampling rule, "greedy" or "arc".
        flagged: Whether the column `resampled` marks the frames that remain, instead of the rule.

    Returns:
        One row a remaining frame: trajectory (string), frame (int32), run (int32, counted over the whole table),
        rank (int32: clean_position where `clean`, else position; with `spacing` the index among the trajectory's
        remaining frames).

    Convention: with `spacing` frames missing from a trajectory do not break a run (a lap is resampled whole, as the
    papers do), only `max_step` does; without it every gap in the positions breaks one.

    Raises:
        ContractError: If a policy or rule is unknown, a limit is not positive, or the frames are unsorted.
    """
    _check_options(panoramas, max_step)
    remaining = frames.filter(~pl.col("panorama").fill_null(False)) if panoramas == "drop" else frames
    remaining = remaining.filter(pl.col("clean_position").is_not_null()) if clean else remaining
    starts = trajectory_starts(remaining["trajectory"])
    rank = remaining["clean_position" if clean else "position"].cast(pl.Int64).to_numpy()
    _check_sorted(rank, starts)
    east, north = (remaining[name].cast(pl.Float64).to_numpy() for name in ("easting", "northing"))
    if spacing is not None:
        mask = remaining["resampled"].to_numpy() if flagged else _spaced(east, north, starts, spacing, rule)
        remaining, east, north = remaining.filter(pl.Series(mask)), east[mask], north[mask]
        starts = trajectory_starts(remaining["trajectory"])
        # After resampling, gaps of the positions mean nothing: ranks count what remains, so runs break at jumps alone.
        rank = np.arange(len(remaining)) - np.repeat(starts, np.diff(np.append(starts, len(remaining))))
    breaks = run_breaks(rank, steps(east, north), starts, max_step)
    columns = [remaining["trajectory"], remaining["frame"], np.cumsum(breaks) - 1, rank]
    return pl.DataFrame(dict(zip(TRACK_SCHEMA, columns, strict=True))).cast(pl.Schema(TRACK_SCHEMA))


def trajectory_starts(trajectory: pl.Series) -> IntArray:
    """Find the row of each trajectory's first frame.

    Returns:
        Rising rows, int64 (t,).

    Raises:
        ContractError: If a trajectory's rows do not lie together.

    Example:
        >>> trajectory_starts(pl.Series(["a", "a", "b"])).tolist()
        [0, 2]
    """
    runs = trajectory.rle_id().to_numpy().astype(np.int64)
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    if trajectory.n_unique() != len(starts):
        raise ContractError("frames: the rows of a trajectory do not lie together; sort by trajectory and position")
    return starts


def run_breaks(rank: IntArray, step_metres: Float64Array, starts: IntArray, max_step: float | None) -> BoolArray:
    """Mark every row that begins a run: a trajectory's start, a rank that does not step by 1, or a jump.

    Args:
        rank: Rank of each frame, (n,).
        step_metres: Metres from the previous row, (n,).
        starts: Rows at which trajectories begin, (t,).
        max_step: Metres; a longer step is a jump, one of exactly that is none. None knows no jumps.

    Returns:
        Bool (n,).
    """
    breaks: BoolArray = np.diff(rank, prepend=rank[:1] - 2) != 1
    breaks[starts] = True
    if max_step is not None:
        # Written as a negation, so that a step that is no number breaks the run.
        breaks |= ~(step_metres <= max_step)
    return breaks


def windows(track: pl.DataFrame, *, length: int, stride: int = 1, edges: str = "drop", step: int = 1) -> pl.DataFrame:
    """Cut windows of `length` frames, one every `stride` frames of each run of `track`.

    Args:
        track: Track table of `track`; only the column run is read.
        length: Frames of a window.
        stride: Frames from window to window.
        edges: What happens at a run's ends, "drop" or "shift".
        step: Rows from frame to frame of a window.

    Returns:
        Columns first (int32, row in `track`), length (int16), step (int16), by rising `first`.

    Convention: "drop" cuts a run from its first frame on and leaves out what does not fill a window (both papers);
    "shift" gives one window for every `stride`-th frame as its centre, moved inward where it would cross the run's
    ends, so neighbouring windows may be equal there (seqNet). A run shorter than a window gives none. See
    docs/methods.md#windows.

    Raises:
        ContractError: If length, stride or step is not positive, or `edges` is unknown.

    Example:
        >>> windows(pl.DataFrame({"run": [0, 0, 0, 0, 1, 1, 1]}), length=3)["first"].to_list()
        [0, 1, 4]
    """
    if min(length, stride, step) < 1:
        raise ContractError(f"length {length}, stride {stride}, step {step}: all must be at least 1")
    if edges not in ("drop", "shift"):
        raise ContractError(f"edges {edges!r}: expected drop or shift")
    span = (length - 1) * step + 1
    starts = np.flatnonzero(np.diff(track["run"].to_numpy().astype(np.int64), prepend=-1))
    sizes = np.diff(np.append(starts, len(track)))
    starts, sizes = starts[sizes >= span], sizes[sizes >= span]
    # Rounded up division: a stride longer than what is left still gives the window at the run's start.
    counts = (sizes if edges == "shift" else sizes - span + 1) + stride - 1
    counts //= stride
    # One running number over all windows, minus the number at which each run begins, counts the windows of every run
    # from 0 without a loop over runs (of which a city has tens of thousands).
    local = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
    if edges == "shift":
        local = np.clip(local - centre_index(length) * step, 0, np.repeat(sizes - span, counts))
    first = np.repeat(starts, counts) + local
    table = {"first": first, "length": np.full(len(first), length), "step": np.full(len(first), step)}
    return pl.DataFrame(table).cast(pl.Schema(WINDOW_SCHEMA))


def window_frames(
    track: pl.DataFrame, first: npt.ArrayLike, length: npt.ArrayLike, step: npt.ArrayLike = 1
) -> IntArray:
    """Look up the frame rows of windows.

    Args:
        track: Track table with the column frame.
        first: Row of each window's first frame in `track`, (n,).
        length: Frames of a window: a number, or (n,) of one value.
        step: Rows from frame to frame: a number, or (n,).

    Returns:
        Frame row of every frame of every window, int64 (n, L).

    Raises:
        ContractError: If the windows' lengths differ.

    Example:
        >>> window_frames(pl.DataFrame({"frame": [7, 8, 9]}), first=[0, 1], length=2).tolist()
        [[7, 8], [8, 9]]
    """
    lengths = np.unique(np.asarray(length, np.int64))
    if len(lengths) > 1:
        raise ContractError(
            f"windows of lengths {lengths.tolist()} cannot stand in one array; take one length at a time"
        )
    count = int(lengths[0]) if len(lengths) else 0
    row_steps = np.asarray(step, np.int64).reshape(-1, 1)
    rows = np.asarray(first, np.int64).reshape(-1, 1) + np.arange(count) * row_steps
    frames: IntArray = track["frame"].to_numpy().astype(np.int64)[rows]
    return frames


def _spaced(east: Float64Array, north: Float64Array, starts: IntArray, spacing: float, rule: str) -> BoolArray:
    """Mark the frames that `keep_mask` leaves of every trajectory: (n,) bool."""
    masks = [
        keep_mask(e, n, spacing, rule)
        for e, n in zip(np.split(east, starts[1:]), np.split(north, starts[1:]), strict=True)
    ]
    return np.concatenate(masks)


def _check_options(panoramas: str, max_step: float | None) -> None:
    if panoramas not in ("keep", "drop"):
        raise ContractError(f"panoramas {panoramas!r}: expected keep or drop")
    if max_step is not None and not max_step > 0:
        raise ContractError(f"max_step {max_step}: expected a positive number of metres")


def _check_sorted(rank: IntArray, starts: IntArray) -> None:
    rising = np.diff(rank) >= 0
    rising[starts[1:] - 1] = True
    if not rising.all():
        raise ContractError("frames: positions do not rise within a trajectory; sort by trajectory and position")
