"""New pairs against all pairs, of which those of two old windows are left out."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqdata.sequences.new_pairs import NumberedWindows, near, new_pairs
from seqdata.sequences.positives import positives
from seqdata.sequences.tiles import WindowSet


def walks(seed: int, windows: int, length: int, unit: str = "metres") -> WindowSet:
    """Windows over some walks in two zones, one far away from the others."""
    rng = np.random.default_rng(seed)
    xy = np.cumsum(rng.normal(0, 6, (4, 60, 2)), axis=1) + np.array([0, 0, 40, 5_000])[:, None, None]
    first = rng.integers(0, 4, windows) * 60 + rng.integers(0, 60 - 2 * length, windows)
    points = xy.reshape(-1, 2) if unit == "metres" else np.column_stack([np.arange(240.0) % 90, np.zeros(240)])
    group = rng.integers(0, 2, windows) if unit == "metres" else 0
    return WindowSet.from_coordinates(points, first, length, step=2 if seed % 2 else 1, group=group)


@pytest.mark.parametrize("unit", ["metres", "frames"])
@pytest.mark.parametrize("seed", range(4))
def test_only_pairs_of_two_old_windows_are_left_out(seed: int, unit: str) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    for number, count in enumerate((70, 90)):
        windows = walks(seed + 10 * number, count, 4, unit)
        is_new = rng.random(count) < (0.0 if seed == 3 and number == 0 else 0.2)
        sides.append(NumberedWindows(windows, 1_000 * number + rng.permutation(count), is_new))
    query, database = sides
    radius = 9.0 if unit == "metres" else 3.0
    blocks = [block for _, block in new_pairs(query, database, radius, unit)]
    every = positives(query.windows, database.windows, radius=radius, unit=unit)
    rows = every["query"].to_numpy(), every["database"].to_numpy()
    is_new = query.is_new[rows[0]] | database.is_new[rows[1]]
    expected = every.with_columns(
        pl.Series("query", query.numbers[rows[0]], dtype=pl.Int32),
        pl.Series("database", database.numbers[rows[1]], dtype=pl.Int32),
    ).filter(pl.Series(is_new))
    assert expected.height > 10
    assert_frame_equal(pl.concat(blocks).sort("query", "database"), expected.sort("query", "database"))


@pytest.mark.parametrize("radius", [0.0, 0.4, 9.0, 300.0])
def test_near_windows_are_never_too_few(radius: float) -> None:
    windows, others = walks(1, 80, 4), walks(2, 5, 4)
    pairs = positives(windows, others, radius=max(radius, 1e-9))
    rows = near(windows, others, radius)
    assert set(pairs["query"].unique()) <= set(rows.tolist())
    assert rows.tolist() == sorted(set(rows.tolist()))
    if radius == 9.0:
        assert len(rows) < 70, "windows that are far away are left out"
    nobody = others.subset(np.empty(0, dtype=np.int64))
    assert len(near(windows, nobody, radius)) == len(near(nobody, windows, radius)) == 0
