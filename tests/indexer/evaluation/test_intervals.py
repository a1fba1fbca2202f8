"""Intervals: deterministic, wide enough for dependent windows, Wilson where resampling cannot move."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from indexer.evaluation.intervals import Units, recall_intervals, resampling_units, wilson
from tests.support.indexes import make_places


def everything(count: int) -> np.ndarray:
    return np.ones(count, np.bool_)


def clustered(trajectories: int, each: int, seed: int = 0) -> np.ndarray:
    """Hits (n, 1) that are equal within a trajectory: the extreme of dependent windows."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.random(trajectories) < 0.6, each)[:, None]


def test_ten_trajectories_are_resampled_whole() -> None:
    queries = make_places(200, trajectories=10)
    units = resampling_units(queries, everything(200))
    assert units.plural == "trajectories"
    assert len(np.unique(units.labels)) == 10
    for name in queries["trajectory"].unique():
        assert len(np.unique(units.labels[(queries["trajectory"] == name).to_numpy()])) == 1


def test_only_trajectories_with_counted_queries_number() -> None:
    queries = make_places(200, trajectories=10)
    counted = (queries["trajectory"] != "drive-000").to_numpy()
    assert resampling_units(queries, counted).plural.startswith("blocks")


@pytest.mark.parametrize(("spacing", "length", "size"), [(5.0, 5, 20), (1.0, 15, 100), (50.0, 5, 5), (250.0, 15, 15)])
def test_blocks_are_long_enough(spacing: float, length: int, size: int) -> None:
    """At least 100 m, at least a window's own extent, runs of one trajectory, a short rest joined to the last."""
    queries = make_places(660, trajectories=3, spacing=spacing, length=length)
    labels = resampling_units(queries, everything(660)).labels
    for name in ("drive-000", "drive-001", "drive-002"):
        mine = labels[(queries["trajectory"] == name).to_numpy()]
        _, counts = np.unique(mine, return_counts=True)
        assert (np.diff(mine) >= 0).all()
        assert (counts[:-1] == size).all()
        assert size <= counts[-1] < 2 * size
    seams = queries["trajectory"].to_numpy()[1:] != queries["trajectory"].to_numpy()[:-1]
    assert (np.diff(labels)[seams] != 0).all()


def test_blocks_follow_the_track_not_the_table() -> None:
    queries = make_places(200)
    shuffled = queries.sample(fraction=1.0, shuffle=True, seed=3)
    labels = resampling_units(shuffled, everything(200)).labels
    expected = resampling_units(queries, everything(200)).labels
    np.testing.assert_array_equal(labels, expected[shuffled["first"].to_numpy()])


def test_short_trajectory_is_one_block() -> None:
    assert set(resampling_units(make_places(6), everything(6)).labels) == {0}
    assert set(resampling_units(make_places(1), everything(1)).labels) == {0}


def test_deterministic_and_seeded() -> None:
    hits, units = clustered(20, 15), resampling_units(make_places(300, trajectories=20), everything(300))
    first, methods = recall_intervals(hits, everything(300), units, seed=4)
    np.testing.assert_array_equal(first, recall_intervals(hits, everything(300), units, seed=4)[0])
    assert (first != recall_intervals(hits, everything(300), units, seed=5)[0]).any()
    assert methods == ["bootstrap over 20 trajectories, 2000 draws, seed 4"]


def test_wider_than_resampling_windows_one_by_one() -> None:
    hits, count = clustered(30, 20), 600
    units = resampling_units(make_places(count, trajectories=30), everything(count))
    naive = Units(np.arange(count), "window", "windows")
    wide, _ = recall_intervals(hits, everything(count), units, 0)
    narrow, _ = recall_intervals(hits, everything(count), naive, 0)
    assert np.diff(wide)[0, 0] > 3 * np.diff(narrow)[0, 0]


def test_equals_literal_bootstrap() -> None:
    hits = np.random.default_rng(1).random((120, 2)) < [0.3, 0.7]
    counted = np.random.default_rng(2).random(120) < 0.8
    labels = np.arange(120) // 10
    bounds, _ = recall_intervals(hits, counted, Units(labels, "trajectory", "trajectories"), seed=9)
    draws = np.random.default_rng(9).multinomial(12, np.full(12, 1 / 12), size=2000)
    recalls = []
    for weights in draws:
        chosen = [
            row for unit, weight in enumerate(weights) for _ in range(weight) for row in np.flatnonzero(labels == unit)
        ]
        chosen = [row for row in chosen if counted[row]]
        recalls.append(hits[chosen].mean(axis=0))
    np.testing.assert_allclose(bounds, np.percentile(recalls, [2.5, 97.5], axis=0).T, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilson_where_recall_cannot_move(share: float) -> None:
    hits = np.stack([np.full(300, bool(share)), clustered(20, 15)[:, 0]], axis=1)
    units = resampling_units(make_places(300, trajectories=20), everything(300))
    bounds, methods = recall_intervals(hits, everything(300), units, 0)
    assert methods[0] == "Wilson over 20 trajectories"
    assert methods[1].startswith("bootstrap")
    assert bounds[0].tolist() == pytest.approx(list(wilson(share, 20)))
    assert bounds[0, 1] - bounds[0, 0] > 0.1


def test_wilson_below_ten_blocks() -> None:
    queries = make_places(100)
    hits = np.random.default_rng(0).random((100, 1)) < 0.5
    bounds, methods = recall_intervals(hits, everything(100), resampling_units(queries, everything(100)), 0)
    assert methods == ["Wilson over 5 blocks of 100 m or more"]
    assert bounds[0].tolist() == pytest.approx(list(wilson(float(hits.mean()), 5)))


@pytest.mark.parametrize(("hits", "units"), [(0, 7), (3, 7), (7, 7), (50, 200), (1, 1)])
def test_wilson_against_scipy(hits: int, units: int) -> None:
    expected = binomtest(hits, units).proportion_ci(0.95, method="wilson")
    assert wilson(hits / units, units) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_missing_headings_do_not_matter() -> None:
    assert make_places(3)["heading"].dtype == pl.Float32
