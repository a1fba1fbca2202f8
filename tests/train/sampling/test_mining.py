"""Partial mining against brute force over several trajectories."""

from typing import Any

import numpy as np
import pytest

from seqdata.errors import ContractError, NotEnoughDataError
from tests.support.fake_dataset import Drive, FakeDataset
from train.sampling.mining import draw, mine, near_mask
from train.sampling.pairs import PairGraph, Radii

RADII = Radii(2.5, 6.0)


@pytest.fixture
def tables(data: Any) -> Any:
    make = lambda role: data.sequences(split="train", role=role, length=3)  # noqa: E731
    return make("query"), make("database")


def vectors(count: Any, seed: Any = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_near_mask_equals_brute_force(data: FakeDataset, tables: Any) -> None:
    """Window ids against window ids, with several drives in each role, where frame ids would be off by L-1 a drive."""
    queries, database = tables
    assert queries["trajectory"].n_unique() == 2 and database["trajectory"].n_unique() == 2
    x = data.table["easting"].to_numpy()
    expected = np.zeros((len(queries), len(database)), bool)
    for i, q in enumerate(data.frame_rows(queries)):
        for j, d in enumerate(data.frame_rows(database)):
            expected[i, j] = min(abs(x[a] - x[b]) for a in q for b in d) < 6.0
    assert np.array_equal(near_mask(data, queries, database, RADII), expected)


def test_triplets_equal_brute_force(data: FakeDataset, tables: Any) -> None:
    queries, database = tables
    table = vectors(len(queries) + len(database))
    found = mine(data, queries, database, RADII, lambda rows: table[rows], size=20, negatives=3, cap=100, key=(0, 1, 2))
    drawn = draw(data, queries, database, RADII, size=20, cap=100, key=(0, 1, 2))
    distances = data.distances(queries, database).min((2, 3))
    gap = np.linalg.norm(table[: len(queries), None] - table[None, len(queries) :], axis=2)
    assert len(found.query) == 20
    for query, positive, negatives in zip(found.query, found.positive, found.negatives, strict=True):
        positives = np.flatnonzero(distances[query] < 2.5)
        assert positive == positives[gap[query, positives].argmin()]
        far = [d for d in drawn.candidates if distances[query, d] >= 6.0]
        assert negatives.tolist() == sorted(far, key=lambda d: gap[query, d])[:3]


def test_draw_is_pure_capped_and_without_lonely_queries(data: FakeDataset, tables: Any) -> None:
    queries, database = tables
    first, same = (draw(data, queries, database, RADII, size=8, cap=2, key=(3, 1, 0)) for _ in range(2))
    other = draw(data, queries, database, RADII, size=8, cap=2, key=(3, 1, 1))
    assert np.array_equal(first.query, same.query) and np.array_equal(first.candidates, same.candidates)
    assert not np.array_equal(first.query, other.query)
    assert all(1 <= len(rows) <= 2 for rows in first.positives)
    assert len(set(first.candidates.tolist())) == len(first.candidates) == 8


def test_every_distinct_window_is_described_once(data: FakeDataset, tables: Any) -> None:
    queries, database = tables
    asked = []
    mine(data, queries, database, RADII, lambda rows: asked.append(rows) or vectors(len(rows)), size=10, negatives=2)
    assert len(asked) == 1 and len(np.unique(asked[0])) == len(asked[0])


def test_nothing_to_mine_is_said() -> None:
    far = FakeDataset(drives=(Drive("map", "database", 0.0, 9), Drive("query", "query", 900.0, 9)))
    queries, database = (far.sequences(role=role, length=3) for role in ("query", "database"))
    with pytest.raises(NotEnoughDataError, match="has a positive"):
        draw(far, queries, database, RADII)
    near = FakeDataset(drives=(Drive("map", "database", 0.0, 4), Drive("query", "query", 0.0, 4)))
    queries, database = (near.sequences(role=role, length=3) for role in ("query", "database"))
    with pytest.raises(NotEnoughDataError, match="lower the negative radius"):
        mine(near, queries, database, RADII, lambda rows: vectors(len(rows)))


def test_radii_must_not_cross() -> None:
    with pytest.raises(ContractError, match="positive and negative at once"):
        Radii(10.0, 5.0)
    frames = Radii(0.0, 1.0, "any", "frames")
    assert frames.positives(FakeDataset().table.select(distance="easting").head(0)).is_empty()


def test_pair_graph_equals_brute_force(data: FakeDataset, tables: Any) -> None:
    import polars as pl

    table = pl.concat(tables)
    least = data.distances(table, table).min((2, 3))
    rows = np.random.default_rng(1).permutation(len(table))[:25]
    positive, negative = PairGraph.of(data, table, RADII).masks(rows)
    part = least[np.ix_(rows, rows)]
    off = ~np.eye(len(rows), dtype=bool)
    assert np.array_equal(positive, (part < 2.5) & off)
    assert np.array_equal(negative, (part >= 6.0) & off)
