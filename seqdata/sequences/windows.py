"""Tracks and windows: which frames remain of each trajectory, and the sequences that can be cut from them.

A *track* is the list of frame rows that one panorama policy, clean list and spacing rule leave. A *window* is
three integers into it: (first, length, step). No pixels are touched and nothing is ever padded.

Convention: a window of length L holds the track rows first, first + step, …, first + (L−1)·step, all of one
*run*. Its centre is the row at index (L−1)//2: symmetric for odd L, −(L/2−1)…+L/2 around it for even L (P1's
practice). A run is a stretch without a break; runs end at a trajectory's end, where positions do not step by
exactly 1, and where two neighbouring frames are more than `max_step` metres apart.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, IntArray, steps
from seqdata.sequences.resampling import keep_mask

TRACK_SCHEMA = {"trajectory": pl.String, "frame": pl.Int32, "run": pl.Int32, "rank": pl.Int32}
WINDOW_SCHEMA = {"first": pl.Int32, "length": pl.Int16, "step": pl.Int16}


def reversed_windows(windows: pl.DataFrame) -> pl.DataFrame:
    """The same windows, last frame first: rows stay as they are, `first` is the last frame's and `step` negative.

    Convention: a window keeps its centre frame, so truth and places are those of the forward windows.
    Source: P1 Table III, which turns the database round.
    """
    last = (pl.col("length").cast(pl.Int32) - 1) * pl.col("step")
    return windows.with_columns(first=pl.col("first") + last, step=-pl.col("step"))


def centre_index(length: int) -> int:
    """Index of the centre frame inside a window of `length` frames: (length − 1)//2."""
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
    """The frames that remain of each trajectory, with the runs in which windows may lie.

    `frames`: one row a frame, each trajectory's rows together and by rising position; columns frame (row
    number in the dataset), trajectory, position, easting, northing (metres), panorama, and clean_position
    when `clean`. Panoramas are left out first when `panoramas` is "drop", then frames off the clean list when
    `clean`, then each trajectory is resampled to `spacing` metres by `rule` ("greedy" or "arc"), or, when `flagged`,
    to the frames that its column `resampled` marks.

    Returns one row a remaining frame: trajectory (str), frame (i32), run (i32, counted over the whole table),
    rank (i32: clean_position when `clean`, else position; with `spacing` the index among the trajectory's
    kept frames).

    Convention: with `spacing` frames missing from a trajectory do not break a run (a lap is resampled whole,
    as the papers do), only `max_step` does; without it every gap in the positions breaks one.

    Raises: ContractError for an unknown policy or rule, a limit that is not positive, or unsorted frames.
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
        rank = np.arange(len(remaining)) - np.repeat(starts, np.diff(np.append(starts, len(remaining))))
    breaks = run_breaks(rank, steps(east, north), starts, max_step)
    columns = [remaining["trajectory"], remaining["frame"], np.cumsum(breaks) - 1, rank]
    return pl.DataFrame(dict(zip(TRACK_SCHEMA, columns, strict=True))).cast(pl.Schema(TRACK_SCHEMA))


def trajectory_starts(trajectory: pl.Series) -> IntArray:
    """Row of each trajectory's first frame, (t,) int64 rising, for a column whose trajectories lie together.

    Raises: ContractError when a trajectory appears in two places.
    """
    runs = trajectory.rle_id().to_numpy().astype(np.int64)
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    if trajectory.n_unique() != len(starts):
        raise ContractError("frames: the rows of a trajectory do not lie together; sort by trajectory and position")
    return starts


def run_breaks(
    rank: IntArray, step_metres: npt.NDArray[np.float64], starts: IntArray, max_step: float | None
) -> BoolArray:
    """True at every row that begins a run: a trajectory's start, a rank that does not step by 1, or a jump.

    Shapes: rank (n,), step_metres (n,) metres from the previous row, starts (t,) rows -> (n,) bool. A step of
    exactly `max_step` is no jump.
    """
    breaks: BoolArray = np.diff(rank, prepend=rank[:1] - 2) != 1
    breaks[starts] = True
    if max_step is not None:
        breaks |= ~(step_metres <= max_step)
    return breaks


def windows(track: pl.DataFrame, *, length: int, stride: int = 1, edges: str = "drop", step: int = 1) -> pl.DataFrame:
    """All windows of `length` frames, one every `stride` frames of each run of `track`.

    Returns first (i32: row in `track`), length (i16), step (i16), by rising `first`.

    Convention: edges="drop" cuts a run from its first frame on and leaves out what does not fill a window
    (P1, P2); edges="shift" gives one window for every `stride`-th frame as its centre, moved inward where it
    would cross the run's ends, so neighbouring windows may be equal there (seqNet). A run shorter than a
    window gives none.

    Raises: ContractError when length, stride or step is not positive, or `edges` is unknown.
    """
    if min(length, stride, step) < 1:
        raise ContractError(f"length {length}, stride {stride}, step {step}: all must be at least 1")
    if edges not in ("drop", "shift"):
        raise ContractError(f"edges {edges!r}: expected drop or shift")
    span = (length - 1) * step + 1
    starts = np.flatnonzero(np.diff(track["run"].to_numpy().astype(np.int64), prepend=-1))
    sizes = np.diff(np.append(starts, len(track)))
    starts, sizes = starts[sizes >= span], sizes[sizes >= span]
    counts = (sizes if edges == "shift" else sizes - span + 1) + stride - 1
    counts //= stride
    local = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
    if edges == "shift":
        local = np.clip(local - centre_index(length) * step, 0, np.repeat(sizes - span, counts))
    first = np.repeat(starts, counts) + local
    table = {"first": first, "length": np.full(len(first), length), "step": np.full(len(first), step)}
    return pl.DataFrame(table).cast(pl.Schema(WINDOW_SCHEMA))


def window_frames(
    track: pl.DataFrame, first: npt.ArrayLike, length: npt.ArrayLike, step: npt.ArrayLike = 1
) -> IntArray:
    """Frame rows of every frame of the given windows: (n,) first rows in `track` -> int64 (n, L).

    `length` and `step` are numbers, or (n,) columns of one value each.

    Raises: ContractError when the windows' lengths differ.
    """
    lengths = np.unique(np.asarray(length, np.int64))
    if len(lengths) > 1:
        raise ContractError(
            f"windows of lengths {lengths.tolist()} cannot stand in one array; take one length at a time"
        )
    count = int(lengths[0]) if len(lengths) else 0
    steps_ = np.asarray(step, np.int64).reshape(-1, 1)
    rows = np.asarray(first, np.int64).reshape(-1, 1) + np.arange(count) * steps_
    frames: IntArray = track["frame"].to_numpy().astype(np.int64)[rows]
    return frames


def _spaced(
    east: npt.NDArray[np.float64], north: npt.NDArray[np.float64], starts: IntArray, spacing: float, rule: str
) -> BoolArray:
    """`keep_mask` of every trajectory, joined: (n,) bool."""
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
