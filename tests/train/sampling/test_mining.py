"""Partial mining against brute force over several trajectories."""

import inspect
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqdata.errors import ContractError, NotEnoughDataError
from tests.support.fake_dataset import Drive, FakeDataset
from tests.support.rank_threads import together
from train.devices.ranks import ALONE
from train.sampling import mining
from train.sampling.mining import RoundSizes, draw, mine, near_mask
from train.sampling.pairs import PairGraph, Radii, pairs_within

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
    found = mine(
        data,
        queries,
        database,
        RADII,
        lambda rows: table[rows],
        RoundSizes(queries=20, negatives=3, positives=100),
        key=(0, 1, 2),
    )
    drawn = draw(data, queries, database, RADII, RoundSizes(queries=20, positives=100), key=(0, 1, 2))
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
    first, same = (
        draw(data, queries, database, RADII, RoundSizes(queries=8, positives=2), key=(3, 1, 0)) for _ in range(2)
    )
    other = draw(data, queries, database, RADII, RoundSizes(queries=8, positives=2), key=(3, 1, 1))
    assert np.array_equal(first.query, same.query) and np.array_equal(first.candidates, same.candidates)
    assert not np.array_equal(first.query, other.query)
    assert all(1 <= len(rows) <= 2 for rows in first.positives)
    assert len(set(first.candidates.tolist())) == len(first.candidates) == 8


def test_every_distinct_window_is_described_once_and_in_blocks(
    data: FakeDataset, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All positives, some of them candidates too, in blocks of 3: the same triplets as at once."""
    queries, database = tables
    table, blocks = vectors(len(queries) + len(database)), []

    def mined(cap: int | None) -> Any:
        blocks.clear()
        describe = lambda rows: blocks.append(rows) or table[rows]  # noqa: E731
        return mine(
            data, queries, database, RADII, describe, RoundSizes(queries=10, negatives=2, positives=cap), key=(1, 0, 0)
        )

    whole = mined(None)
    assert len(blocks) == 2
    monkeypatch.setattr(mining, "POSITIVES_AT_ONCE", 3)
    in_blocks = mined(None)
    assert len(blocks) > 3 and max(map(len, blocks[1:])) == 3
    every = np.concatenate(blocks)
    assert len(np.unique(every)) == len(every)
    for name in ("query", "positive", "negatives"):
        assert np.array_equal(getattr(whole, name), getattr(in_blocks, name))


@pytest.mark.parametrize("size", [2, 3, 40])
def test_processes_mine_what_one_does(
    data: FakeDataset, tables: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Each describes a share of the round, more processes than windows too; many descriptors are equal."""
    monkeypatch.setattr(mining, "POSITIVES_AT_ONCE", 3)
    queries, database = tables
    table = np.random.default_rng(2).integers(0, 3, (len(queries) + len(database), 2)).astype(np.float32)
    blocks: list[list[Any]] = []

    def mined(ranks: Any, frames: int | None) -> Any:
        own: list[Any] = []
        blocks.append(own)
        describe = lambda rows: own.append(rows) or table[rows]  # noqa: E731
        sizes = RoundSizes(queries=20, database=15, negatives=3)
        return mine(data, queries, database, RADII, describe, sizes, key=(0, 1, 2), frames=frames, ranks=ranks)

    for frames in (None, 2):
        blocks.clear()
        whole = mined(ALONE, frames)
        (rows,) = [np.concatenate(own) for own in blocks]
        blocks.clear()
        for part in together(size, lambda ranks: mined(ranks, frames)):  # noqa: B023
            for name in ("query", "positive", "negatives"):
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        assert len({len(own) for own in blocks}) == 1, "all call equally often"
        counts = [len(np.concatenate(own)) for own in blocks]
        assert sorted(np.concatenate([row for own in blocks for row in own])) == sorted(rows)
        assert max(counts) <= -(-len(rows) // size) + 1 + max(map(len, blocks))


def test_all_positives_are_candidates_without_a_cap(data: FakeDataset, tables: Any) -> None:
    """The true nearest of every query, which a cap of one positive loses for some."""
    queries, database = tables
    table = vectors(len(queries) + len(database))
    distances = data.distances(queries, database).min((2, 3))
    gap = np.linalg.norm(table[: len(queries), None] - table[None, len(queries) :], axis=2)
    gap[distances >= 2.5] = np.inf

    def shares(cap: int | None) -> float:
        sizes = RoundSizes(queries=20, negatives=1, positives=cap)
        found = mine(data, queries, database, RADII, lambda rows: table[rows], sizes, key=(0, 0, 0))
        return float((found.positive == gap[found.query].argmin(1)).mean())

    assert shares(None) == 1.0 and shares(1) < 1.0


def test_the_cache_of_negatives_has_a_size_of_its_own(data: FakeDataset, tables: Any) -> None:
    queries, database = tables
    sample = draw(data, queries, database, RADII, RoundSizes(queries=20, database=7), key=(0, 0, 0))
    assert (len(sample.query), len(sample.candidates)) == (20, 7)


def test_nothing_to_mine_is_said() -> None:
    far = FakeDataset(drives=(Drive("map", "database", 0.0, 9), Drive("query", "query", 900.0, 9)))
    queries, database = (far.sequences(role=role, length=3) for role in ("query", "database"))
    with pytest.raises(NotEnoughDataError, match="has a positive"):
        draw(far, queries, database, RADII)
    near = FakeDataset(drives=(Drive("map", "database", 0.0, 4), Drive("query", "query", 0.0, 4)))
    queries, database = (near.sequences(role=role, length=3) for role in ("query", "database"))
    with pytest.raises(NotEnoughDataError, match="lower the negative radius"):
        mine(near, queries, database, RADII, lambda rows: vectors(len(rows)))


def test_negatives_may_be_judged_by_another_rule_than_positives(data: FakeDataset, tables: Any) -> None:
    """Positives by the centre frames, negatives beyond the radius with any frame, as the program of STA does."""
    queries, database = tables
    rules = []

    class ByCentre(FakeDataset):
        """Answers with the distance of centres too, and notes which rule selects the pairs."""

        def positives(
            self, query: Any, database: Any, radius: Any = 25.0, rule: Any = "any", unit: Any = "metres"
        ) -> Any:
            rules.append(rule)
            pairs = super().positives(query, database, radius)
            x, q, d = self.table["easting"].to_numpy(), pairs["query"].to_numpy(), pairs["database"].to_numpy()
            gap = np.abs(x[query["centre"].to_numpy()[q]] - x[database["centre"].to_numpy()[d]])
            return pairs.with_columns(centre_distance=gap)

    other: Any = ByCentre()
    radii = Radii(2.5, 6.0, "centre", negative_rule="any")
    positives = radii.positives(pairs_within(other, queries, database, radii))
    assert rules == ["any"] and float(positives["distance"].max()) < 2.5
    assert 0 < len(positives) < len(RADII.positives(pairs_within(other, queries, database, RADII)))
    assert np.array_equal(near_mask(other, queries, database, radii), near_mask(data, queries, database, RADII))


def test_radii_must_not_cross() -> None:
    with pytest.raises(ContractError, match="positive and negative at once"):
        Radii(10.0, 5.0)
    frames = Radii(0.0, 1.0, "any", "frames")
    assert frames.positives(FakeDataset().table.select(distance="easting").head(0)).is_empty()


def test_pair_graph_equals_brute_force(data: FakeDataset, tables: Any) -> None:
    table = pl.concat(tables)
    least = data.distances(table, table).min((2, 3))
    rows = np.random.default_rng(1).permutation(len(table))[:25]
    positive, negative = PairGraph.from_windows(data, table, RADII).masks(rows)
    part = least[np.ix_(rows, rows)]
    off = ~np.eye(len(rows), dtype=bool)
    assert np.array_equal(positive, (part < 2.5) & off)
    assert np.array_equal(negative, (part >= 6.0) & off)


@pytest.mark.parametrize(("unit", "nearer"), [("metres", [True, False, False]), ("frames", [True, True, False])])
def test_a_radius_in_metres_is_open_and_one_in_frames_is_closed(unit: Any, nearer: list[bool]) -> None:
    pairs = pl.DataFrame({"distance": [1.0, 2.0, 3.0]})
    positives = Radii(2.0, 4.0, "any", unit).positives(pairs)["distance"].to_list()
    assert positives == [distance for distance, near in zip([1.0, 2.0, 3.0], nearer, strict=True) if near]


def test_capped_positives_are_drawn_from_all_of_them(data: FakeDataset, tables: Any) -> None:
    """Over many keys every positive is drawn, and each draw is of distinct ones."""
    queries, database = tables
    everything = draw(data, queries, database, RADII, RoundSizes(queries=100, positives=100), key=(0,))
    positives = dict(zip(everything.query.tolist(), everything.positives, strict=True))
    seen: dict[int, set[int]] = {query: set() for query in positives}
    for key in range(30):
        drawn = draw(data, queries, database, RADII, RoundSizes(queries=100, positives=2), key=(key,))
        for query, rows in zip(drawn.query.tolist(), drawn.positives, strict=True):
            assert len(np.unique(rows)) == len(rows) == min(2, len(positives[query]))
            assert np.array_equal(rows, np.sort(rows))
            seen[query] |= set(rows.tolist())
    assert seen == {query: set(rows.tolist()) for query, rows in positives.items()}


def test_candidates_are_distinct_and_rise(data: FakeDataset, tables: Any) -> None:
    queries, database = tables
    for size in (5, 30, len(database), 10**6):
        candidates = draw(data, queries, database, RADII, RoundSizes(queries=size)).candidates
        assert len(candidates) == min(size, len(database))
        assert (np.diff(candidates) > 0).all()


def test_a_query_with_just_enough_far_windows_is_mined() -> None:
    """Two windows lie beyond the negative radius: two negatives can be mined, three cannot."""
    drives = (Drive("map", "database", 0.0, 3), Drive("far", "database", 100.0, 4), Drive("query", "query", 0.0, 3))
    dataset = FakeDataset(drives=drives)
    queries, database = (dataset.sequences(role=role, length=3) for role in ("query", "database"))
    assert (len(queries), len(database)) == (1, 3)
    options = {"describe": lambda rows: vectors(len(rows)), "key": (0,)}
    assert mine(dataset, queries, database, RADII, sizes=RoundSizes(negatives=2), **options).negatives.shape == (1, 2)
    with pytest.raises(NotEnoughDataError, match="has 3 database windows beyond 6 metres among 3 drawn"):
        mine(dataset, queries, database, RADII, sizes=RoundSizes(negatives=3), **options)


def test_an_unknown_heading_makes_no_positive() -> None:
    pairs = pl.DataFrame({"distance": [1.0] * 4, "heading_difference": [0.0, 45.0, 45.5, None]})
    assert Radii(2.0, 4.0, heading_max=45.0).positives(pairs)["heading_difference"].to_list() == [0.0, 45.0]
    assert Radii(2.0, 4.0).positives(pairs).height == 4


def test_a_round_is_that_of_the_paper_by_default() -> None:
    """1,000 queries and windows, five negatives; ten positives at most are ours."""
    assert RoundSizes() == RoundSizes(queries=1000, database=None, negatives=5, positives=10)
    for function in (draw, mine):
        defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        assert (defaults["sizes"], defaults["key"]) == (RoundSizes(), (0,))
