"""RobotCar's positions: looked up in time against a literal walk over the rows, gaps, angles, and real laps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata import geometry
from seqdata.geometry import heading_difference, to_latlon
from seqdata.sequences.resampling import greedy_mask
from seqdata.sources.robotcar.pose import Log, clock_hint, look_up, read_log

START = 1_416_316_812_000_000
STEP = 62_500
OTHER = "2014-12-16-18-44-24"


def literal_look_up(log: Log, time: int, mode: str, gap: float) -> tuple[float, float, float] | None:
    """Latitude, easting and heading, by walking over all rows."""
    before = [i for i in range(len(log.time)) if log.time[i] <= time]
    after = [i for i in range(len(log.time)) if log.time[i] >= time]
    if not before or not after:
        return None
    a, b = before[-1], after[0]
    apart = int(log.time[b]) - int(log.time[a])
    if apart > gap * 1e6:
        return None
    if mode == "nearest":
        a = b = a if time - int(log.time[a]) <= int(log.time[b]) - time else b
    share = (time - int(log.time[a])) / apart if a != b else 0.0
    assert log.yaw is not None
    # The angle by the mean of unit vectors' arc: rotate from a towards b.
    first, second = (
        complex(math.cos(log.yaw[a]), math.sin(log.yaw[a])),
        complex(math.cos(log.yaw[b]), math.sin(log.yaw[b])),
    )
    turn = math.atan2((second / first).imag, (second / first).real)
    heading = math.degrees(log.yaw[a] + share * turn) % 360
    latitude = log.latitude[a] + share * (log.latitude[b] - log.latitude[a])
    return latitude, log.easting[a] + share * (log.easting[b] - log.easting[a]), heading


@given(
    gaps=st.lists(st.integers(1, 900_000), min_size=1, max_size=12),
    offsets=st.lists(st.integers(-500_000, 8_000_000), min_size=1, max_size=12),
    mode=st.sampled_from(["interpolate", "nearest"]),
    gap=st.sampled_from([0.1, 0.5, 2.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_positions_against_a_literal_walk(
    gaps: list[int], offsets: list[int], mode: Any, gap: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    time = START + np.cumsum([0, *gaps])
    n = len(time)
    log = Log(
        time, rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), rng.uniform(-4, 4, n)
    )
    asked = np.array([*(START + np.array(offsets)), *time])
    poses = look_up(log, asked, mode, gap)
    for i, one in enumerate(asked):
        wanted = literal_look_up(log, int(one), mode, gap)
        assert poses.has_pose[i] == (wanted is not None)
        if wanted is not None:
            assert poses.latitude[i] == pytest.approx(wanted[0], abs=1e-12)
            assert poses.easting[i] == pytest.approx(wanted[1], abs=1e-12)
            assert heading_difference(poses.heading[i], wanted[2]) < 1e-6
            assert 0 <= poses.heading[i] < 360


def test_headings_cross_north_the_short_way() -> None:
    log = Log(np.array([0, 100]), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2), yaw=np.radians([350.0, 10.0]))
    headings = look_up(log, np.array([0, 25, 50, 75, 100]), "interpolate", 1).heading
    assert heading_difference(headings, [350, 355, 0, 5, 10]).max() < 1e-9


def test_of_two_rows_equally_near_the_earlier_counts() -> None:
    line = np.array([1.0, 2.0])
    log = Log(np.array([0, 100]), line, line, line, line, yaw=None)
    assert look_up(log, np.array([49, 50, 51]), "nearest", 1).easting.tolist() == [1.0, 1.0, 2.0]


def test_a_gap_of_just_the_limit_is_none() -> None:
    still = np.zeros(3)
    log = Log(np.array([0, 500_000, 1_000_001]), still, still, still, still, yaw=None)
    asked = np.array([-1, 0, 250_000, 500_000, 500_001, 1_000_001, 1_000_002])
    for mode in ("interpolate", "nearest"):
        known = look_up(log, asked, mode, 0.5).has_pose  # type: ignore[arg-type]
        assert known.tolist() == [False, True, True, True, False, True, False]


def real_lap(real: Path, lap: str, role: str) -> Log:
    """A 10 Hz log along the published 2 m points of a real lap."""
    parts = [pl.read_csv(real / "robotcar-positions" / f"{lap}-{role}-{part}.csv") for part in ("train", "test")]
    points = pl.concat(parts).sort("timestamp_us").unique("timestamp_us", keep="first", maintain_order=True)
    seconds = (points["timestamp_us"] - points["timestamp_us"][0]).to_numpy() / 1e6
    rows = np.arange(0, seconds[-1], 0.1)
    easting, northing = (np.interp(rows, seconds, points[name].to_numpy()) for name in ("easting", "northing"))
    latitude, longitude = to_latlon(easting, northing, "30N")
    return Log(np.asarray(rows * 1e6, np.int64), latitude, longitude, easting, northing, yaw=None)


@pytest.mark.parametrize(
    ("lap", "role", "nearest", "interpolated"),
    [(OTHER, "query", 3918, 4108), ("2015-03-17-11-08-44", "database", 3882, 4143)],
)
def test_real_laps_at_16_hz_by_the_greedy_rule(
    real: Path, lap: str, role: str, nearest: int, interpolated: int
) -> None:
    """With nearest rows the counts are those of the format notes (published: 3,922 and 3,861)."""
    log = real_lap(real, lap, role)
    frames = np.arange(0, int(log.time[-1]), STEP)
    for mode, wanted in (("nearest", nearest), ("interpolate", interpolated)):
        poses = look_up(log, frames, mode, 0.5)  # type: ignore[arg-type]
        assert poses.has_pose.all()
        assert abs(int(greedy_mask(poses.easting, poses.northing, 2.0).sum()) - wanted) <= 2


def test_a_row_whose_metres_disagree_with_its_degrees_is_passed_over() -> None:
    easting, northing = geometry.to_utm([51.76, 51.7601, 51.7602], [-1.26] * 3, "30N")
    for offset, rows in ((500.0, 2), (5.0, 3)):
        metres = northing + np.array([0.0, offset, 0.0])
        table = pl.DataFrame(
            {"timestamp": [1, 2, 3], "latitude": [51.76, 51.7601, 51.7602], "longitude": [-1.26] * 3}
        ).with_columns(pl.Series("easting", easting), pl.Series("northing", metres), pl.lit(0.0).alias("yaw"))
        assert len(read_log(table.write_csv().encode(), "rtk.csv", "rtk").time) == rows
    # All of another zone's metres are no damage: the build projects them again.
    other = geometry.to_utm([51.76, 51.7601, 51.7602], [-1.26] * 3, "31N")
    table = table.with_columns(pl.Series("easting", other[0]), pl.Series("northing", other[1]))
    assert len(read_log(table.write_csv().encode(), "rtk.csv", "rtk").time) == 3


@pytest.mark.parametrize(
    ("scale", "shift", "hint"),
    [
        (1000, 0, "the log's times are nanoseconds, and microseconds are expected"),
        (1, 3600, "the log's clock is 1 h ahead of the camera's"),
        (1, -7200, "the log's clock is 2 h behind the camera's"),
        (1, 0, ""),
        (1, 86_400 * 3 + 1700, ""),
    ],
)
def test_a_log_whose_clock_is_wrong_says_so(scale: int, shift: int, hint: str) -> None:
    frames = 1_416_315_000_000_000 + np.arange(10) * 62_500
    nothing = np.zeros(10)
    log = Log((frames + shift * 1_000_000) * scale, nothing, nothing, nothing, nothing, yaw=None)
    assert clock_hint(log, frames).removeprefix(": ") == hint
