"""Tracks, runs and windows against a literal loop, and the real jumps of MSLS."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.errors import ContractError
from seqdata.sequences.resampling import greedy_mask
from seqdata.sequences.windows import centre_index, track, window_frames, windows

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "msls-positions"
real = pytest.mark.skipif(not REAL.is_dir(), reason="real MSLS positions are not at ../shared/data")


def table(trajectory: Any, position: Any, easting: Any = None, panorama: Any = None, clean: Any = None) -> Any:
    count = len(position)
    columns = {
        "frame": range(100, 100 + count),
        "trajectory": trajectory,
        "position": position,
        "clean_position": clean if clean is not None else [None] * count,
        "easting": [float(p) for p in position] if easting is None else easting,
        "northing": [0.0] * count,
        "panorama": panorama or [False] * count,
    }
    return pl.DataFrame(columns, schema_overrides={"clean_position": pl.Int32, "frame": pl.UInt32})


def literal_windows(made: Any, length: Any, stride: Any, edges: Any, step: Any) -> Any:
    """Window by window, run by run, in plain Python."""
    runs = {}
    for row, run in enumerate(made["run"].to_list()):
        runs.setdefault(run, []).append(row)
    firsts, span = [], (length - 1) * step + 1
    for rows in runs.values():
        if len(rows) < span:
            continue
        if edges == "drop":
            firsts += [rows[i] for i in range(0, len(rows) - span + 1, stride)]
        else:
            for i in range(0, len(rows), stride):
                wanted = i - centre_index(length) * step
                firsts.append(rows[min(max(wanted, 0), len(rows) - span)])
    return firsts


def test_gaps_trajectories_and_panoramas_break_runs() -> None:
    frames = table(["a"] * 5 + ["b"] * 3, [0, 1, 3, 4, 5, 6, 7, 8], panorama=[False] * 6 + [True, False])
    assert track(frames)["run"].to_list() == [0, 0, 1, 1, 1, 2, 2, 2]
    dropped = track(frames, panoramas="drop")
    assert dropped["run"].to_list() == [0, 0, 1, 1, 1, 2, 3]
    assert dropped["frame"].to_list() == [100, 101, 102, 103, 104, 105, 107]
    assert dropped["rank"].to_list() == [0, 1, 3, 4, 5, 6, 8]
    assert dict(dropped.schema) == {"trajectory": pl.String, "frame": pl.Int32, "run": pl.Int32, "rank": pl.Int32}


def test_clean_positions_cross_removed_stretches() -> None:
    made = track(table(["a"] * 6, range(6), clean=[0, 1, None, None, 2, 4]), clean=True)
    assert made["rank"].to_list() == [0, 1, 2, 4]
    assert made["run"].to_list() == [0, 0, 0, 1]


def test_max_step_breaks_beyond_and_not_at_the_limit() -> None:
    frames = table(["a"] * 4, range(4), easting=[0.0, 100.0, 200.5, 205.0])
    assert track(frames, max_step=100.0)["run"].to_list() == [0, 0, 1, 1]
    assert track(frames)["run"].to_list() == [0, 0, 0, 0]


def test_spacing_ignores_gaps_but_not_jumps() -> None:
    east = [0.0, 1.0, 2.0, 3.0, 4.0, 500.0, 502.0, 0.0, 2.5]
    frames = table(["a"] * 7 + ["b"] * 2, [0, 1, 2, 5, 6, 7, 8, 0, 1], easting=east)
    made = track(frames, spacing=2.0)
    assert made["frame"].to_list() == [100, 102, 104, 105, 106, 107, 108]
    assert made["rank"].to_list() == [0, 1, 2, 3, 4, 0, 1]
    assert made["run"].to_list() == [0, 0, 0, 0, 0, 1, 1]
    assert track(frames, spacing=2.0, max_step=100.0)["run"].to_list() == [0, 0, 0, 1, 1, 2, 2]


def test_every_trajectory_is_resampled_from_its_own_first_frame() -> None:
    rng = np.random.default_rng(0)
    east = rng.normal(1, 1, 60).cumsum()
    made = track(table(["a"] * 25 + ["b"] * 35, [*range(25), *range(35)], easting=east), spacing=3.0)
    kept = [np.flatnonzero(greedy_mask(part, 0 * part, 3.0)) for part in (east[:25], east[25:])]
    assert made["frame"].to_list() == [*(kept[0] + 100), *(kept[1] + 125)]


def test_unsorted_frames_are_refused() -> None:
    with pytest.raises(ContractError, match="do not lie together"):
        track(table(["a", "b", "a"], [0, 0, 1]))
    with pytest.raises(ContractError, match="do not rise"):
        track(table(["a", "a"], [1, 0]))
    with pytest.raises(ContractError, match="panoramas 'some'"):
        track(table(["a"], [0]), panoramas="some")
    with pytest.raises(ContractError, match="max_step"):
        track(table(["a"], [0]), max_step=0.0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 12), max_size=6),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from(["drop", "shift"]),
    st.integers(1, 3),
)
def test_windows_equal_literal_loop(runs: Any, length: int, stride: Any, edges: Any, step: Any) -> None:
    made = pl.DataFrame({"run": np.repeat(np.arange(len(runs)), runs)})
    cut = windows(made, length=length, stride=stride, edges=edges, step=step)
    assert cut["first"].to_list() == literal_windows(made, length, stride, edges, step)
    assert dict(cut.schema) == {"first": pl.Int32, "length": pl.Int16, "step": pl.Int16}


def test_window_frames_are_rows_of_the_frames_table() -> None:
    made = track(table(["a"] * 6, range(6), panorama=[True] + [False] * 5), panoramas="drop")
    cut = windows(made, length=3)
    rows = window_frames(made, cut["first"], cut["length"], cut["step"])
    assert rows.tolist() == [[101, 102, 103], [102, 103, 104], [103, 104, 105]]
    assert rows.dtype == np.int64
    assert window_frames(made, [0], 3, 2).tolist() == [[101, 103, 105]]
    assert window_frames(made, cut["first"][:0], cut["length"][:0], cut["step"][:0]).shape[0] == 0
    with pytest.raises(ContractError, match="lengths"):
        window_frames(made, [0, 1], [2, 3])


def test_centre_is_symmetric_for_odd_and_left_of_the_middle_for_even() -> None:
    assert [centre_index(length) for length in (1, 2, 3, 4, 5, 10, 15)] == [0, 0, 1, 1, 2, 4, 7]


@pytest.mark.parametrize("bad", [{"length": 0}, {"length": 2, "stride": 0}, {"length": 2, "edges": "pad"}])
def test_bad_window_options_are_refused(bad: Any) -> None:
    with pytest.raises(ContractError):
        windows(pl.DataFrame({"run": [0, 0, 0]}), **bad)


def test_empty_tables() -> None:
    made = track(table([], []), spacing=2.0)
    assert len(made) == 0
    assert len(windows(made, length=5)) == 0


def msls(name: Any) -> Any:
    raw = pl.read_csv(REAL / f"{name}.csv").with_row_index("frame")
    position = pl.int_range(pl.len()).over("sequence_start").alias("position")
    return raw.with_columns(
        pl.col("sequence_start").cast(pl.String).alias("trajectory"), position, panorama=pl.lit(False)
    )


@real
@pytest.mark.real
@pytest.mark.parametrize("length", [5, 10, 15])
@pytest.mark.parametrize("name", ["amman-database", "amman-query", "austin-database", "austin-query"])
def test_real_msls_windows_with_and_without_jumps(name: str, length: int) -> None:
    frames = msls(name)
    whole, cut = track(frames), track(frames, max_step=100.0)
    sizes = frames.group_by("trajectory").len()["len"].to_numpy().astype(int)
    assert len(windows(whole, length=length)) == np.maximum(sizes - length + 1, 0).sum()
    assert windows(whole, length=length)["first"].to_list() == literal_windows(whole, length, 1, "drop", 1)
    firsts = windows(cut, length=length)["first"].to_numpy()
    xy = frames.select("easting", "northing").to_numpy()
    steps = np.sqrt((np.diff(xy[window_frames(cut, firsts, length)], axis=1) ** 2).sum(-1))
    assert steps.max() <= 100.0
    jumps = {"amman-database": 9, "amman-query": 9, "austin-database": 0, "austin-query": 3}
    assert cut["run"].n_unique() - whole["run"].n_unique() == jumps[name]
