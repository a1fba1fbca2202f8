"""The one exact search: right where float32 products are not, in bounded memory and time."""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from indexer.search import exact, gpu_engines
from indexer.search.engines import NumpyEngine
from indexer.search.exact import ExactVectors, in_groups, nearest_row, nearest_rows
from indexer.search.pools import Engine
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array

ENGINES: list[Callable[[Float32Array], Engine]] = [
    NumpyEngine,
    lambda vectors: gpu_engines.TorchEngine(vectors, "cpu"),
]


def normal(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def units(count: int, size: int, seed: int = 0) -> np.ndarray:
    x = normal(count, size, seed)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def one_long_row(scale: float) -> np.ndarray:
    x = normal(3000, 24)
    x[17] *= scale
    return x


TABLES = {
    "plain": normal(3000, 24),
    "a common offset": normal(3000, 24) + 1000,
    "an offset in one value": normal(3000, 24) + np.eye(24)[3] * 1e5,
    "collapsed unit vectors": units(1, 24) + 1e-6 * normal(3000, 24, 1),
    "1e19": normal(3000, 24) * 1e19,
    "1e-25": normal(3000, 24) * 1e-25,
    "1e-25 about an offset": (normal(3000, 24) * 1e-3 + 1) * 1e-25,
    "one row of 1e6": one_long_row(1e6),
    "one row of 1e19": one_long_row(1e19),
    "rows of all lengths": normal(3000, 24) * 10.0 ** (np.arange(3000) % 20)[:, None],
    "zeros": np.zeros((3000, 24)),
    "equal rows": np.tile(normal(3, 24), (1000, 1)),
    "whole numbers": np.round(normal(3000, 24)),
    "one-hot": np.tile(np.eye(24), (125, 1)),
}


def assert_exact(queries: Float32Array, vectors: Float32Array, found: tuple[np.ndarray, np.ndarray]) -> None:
    """Distances are those of float64 to float32 rounding, in the order of (distance, row), and none is missed."""
    differences = vectors[None].astype(np.float64) - queries[:, None]
    truth = np.sqrt((differences**2).sum(axis=2))
    distances, rows = found
    k = rows.shape[1]
    mine = np.take_along_axis(truth, rows, 1)
    np.testing.assert_allclose(distances, mine, rtol=1e-6, atol=1e-45)
    least = np.sort(truth, axis=1)[:, :k]
    np.testing.assert_allclose(mine, least, rtol=2e-6, atol=1e-45)
    assert all(len(set(line)) == k for line in rows.tolist()), "each row once"
    is_tie = distances[:, 1:] == distances[:, :-1]
    assert (distances[:, 1:] >= distances[:, :-1]).all() and (rows[:, 1:] > rows[:, :-1])[is_tie].all()
    # Of rows exactly as far as the last the first are taken.
    for line, last, row_set in zip(truth, mine[:, -1], rows.tolist(), strict=True):
        ties = np.flatnonzero(line == last)
        taken = np.isin(ties, row_set)
        assert taken[: taken.sum()].all()


@pytest.mark.parametrize("engine", ENGINES, ids=["cpu", "torch"])
@pytest.mark.parametrize("table", TABLES)
def test_every_kind_of_vectors(engine: Callable[[Float32Array], Engine], table: str) -> None:
    vectors = TABLES[table].astype(np.float32)
    step = np.abs(vectors).max() * np.float32(1e-7)
    queries = np.concatenate([vectors[[5, 17, 2999]], vectors[7:12] + step, vectors[30:31] * np.float32(1.5)])
    assert_exact(queries, vectors, ExactVectors(vectors, engine(vectors)).nearest(queries, 7))


@pytest.mark.parametrize("engine", ENGINES, ids=["cpu", "torch"])
@pytest.mark.parametrize("table", TABLES)
def test_as_many_neighbours_as_there_are_rows(engine: Callable[[Float32Array], Engine], table: str) -> None:
    """Where every row is a candidate nothing is proposed by scores, which overflow for long vectors."""
    vectors = TABLES[table][:40].astype(np.float32)
    queries = vectors[[5, 17, 39]] * np.float32(1.01)
    for k in (1, 31, 33, 40, 100):
        assert_exact(queries, vectors, ExactVectors(vectors, engine(vectors)).nearest(queries, k))


@pytest.mark.parametrize("engine", ENGINES, ids=["cpu", "torch"])
@pytest.mark.parametrize("long_rows", [1, 10, 20, 25])
def test_rows_whose_scores_overflow_crowd_out_no_other(
    engine: Callable[[Float32Array], Engine], long_rows: int
) -> None:
    vectors = normal(30, 24).astype(np.float32)
    vectors[-long_rows:] *= np.float32(3e19)
    queries = vectors[[0, 3, 29]] * np.float32(1.01)
    for k in (1, 8, 15, 17, 21):
        assert_exact(queries, vectors, ExactVectors(vectors, engine(vectors)).nearest(queries, k))


def test_a_query_alone_has_the_answer_that_it_has_among_others() -> None:
    for vectors in (table.astype(np.float32) for table in TABLES.values()):
        queries = vectors[:40] * np.float32(1.0001)
        distances, rows = nearest_rows(queries, vectors, 5, engine="cpu")
        for line in (0, 17, 39):
            alone = nearest_rows(queries[line : line + 1], vectors, 5, engine="cpu")
            np.testing.assert_array_equal(alone[0][0], distances[line])
            np.testing.assert_array_equal(alone[1][0], rows[line])


@pytest.mark.parametrize("blocks", [1 << 8, 1 << 12])
def test_small_blocks_of_near_ties(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAIRS", "CLOSE_VALUES"):
        monkeypatch.setattr(exact, name, blocks)
    for table in TABLES.values():
        vectors = table[:400].astype(np.float32)
        assert_exact(vectors[:9], vectors, nearest_rows(vectors[:9], vectors, 6, engine="cpu"))
        among = np.random.default_rng(0).permutation(400)[:150]
        _, rows = ExactVectors(vectors, "cpu").nearest(vectors[:9], 6, among)
        expected = nearest_rows(vectors[:9], vectors[np.sort(among)], 6, engine="cpu")[1]
        np.testing.assert_array_equal(rows, np.sort(among)[expected])


def test_equal_vectors_take_bounded_memory_and_time() -> None:
    """1,000 queries of 20,000 equal vectors: 20 million ties."""
    vectors, queries = np.ones((20_000, 64), np.float32), np.ones((1000, 64), np.float32)
    tracemalloc.start()
    started = time.perf_counter()
    distances, rows = nearest_rows(queries, vectors, 20, engine="cpu")
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (rows == np.arange(20)).all() and not distances.any()
    assert peak < 350e6
    assert seconds < 15


def test_one_long_row_slows_no_other_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """No query is searched again, though the product's rounding is that of the long row."""
    vectors = one_long_row(1e6).astype(np.float32)
    searched: list[int] = []
    recount = ExactVectors._recount

    def count(self: ExactVectors, queries: Float32Array, *rest: object) -> object:
        searched.append(len(queries))
        return recount(self, queries, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ExactVectors, "_recount", count)
    queries = normal(200, 24, 3).astype(np.float32)
    assert_exact(queries, vectors, ExactVectors(vectors, "cpu").nearest(queries, 5))
    assert sum(searched) <= 2


def test_groups() -> None:
    vectors, queries = normal(60, 5).astype(np.float32), normal(9, 5, 1).astype(np.float32)
    cities = np.array(["a"] * 20 + ["b"] * 37 + ["c"] * 3)
    own = np.array(["b", "c", "a", "a", "d", "b", "c", "a", "b"])
    distances, rows = nearest_rows(queries, vectors, 5, groups=(own, cities), engine="cpu")
    for line, city in enumerate(own):
        among = np.flatnonzero(cities == city)
        truth = np.linalg.norm(vectors[among] - queries[line], axis=1)
        expected = among[np.argsort(truth)][:5]
        assert rows[line].tolist() == [*expected.tolist(), *[-1] * (5 - len(expected))]
        assert np.isinf(distances[line]).sum() == 5 - len(expected)
    with pytest.raises(ContractError, match="one label"):
        nearest_rows(queries, vectors, 5, groups=(own, cities[1:]))
    empty = in_groups(lambda lines, among: (distances[lines], rows[lines]), (own[:0], cities), 5)
    assert empty[1].shape == (0, 5)


def test_refusals() -> None:
    vectors = normal(6, 4).astype(np.float32)
    for bad in (np.nan, np.inf):
        damaged = vectors.copy()
        damaged[2, 1] = bad
        for queries, database in ((vectors, damaged), (damaged, vectors)):
            with pytest.raises(ContractError, match="NaN or infinity"):
                nearest_rows(queries, database, 1)
    for queries, k in ((vectors[:, :3], 1), (vectors, 0), (vectors[0], 1)):
        with pytest.raises(ContractError, match="one width"):
            nearest_rows(queries, vectors, k)


@pytest.mark.parametrize("table", TABLES)
def test_the_one_nearest(table: str) -> None:
    vectors = TABLES[table].astype(np.float32)
    centres = vectors[::40]
    expected = ExactVectors(centres, "cpu").nearest(vectors, 1)[1][:, 0]
    np.testing.assert_array_equal(nearest_row(vectors, centres), expected)
    blocks = [nearest_row(vectors[start : start + 7], centres) for start in range(0, 210, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), expected[:210])
