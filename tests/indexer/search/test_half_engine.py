"""Exact search among float16 vectors: FAISS's own distances and products of widened vectors find the same rows."""

from pathlib import Path

import numpy as np
import pytest

from indexer.search import half_engine
from indexer.search.engines import NumpyEngine
from indexer.search.exact import ExactVectors, choose_engine
from indexer.search.half_engine import HalfEngine


@pytest.fixture(autouse=True)
def _every_pool_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_engine, "LEAST_VALUES", 0)


def vectors(rows: int = 300, size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float16)


def literal(stored: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """The k nearest rows by differences in float64, equal distances by row."""
    distances = np.linalg.norm(stored[None].astype(np.float64) - queries[:, None], axis=2)
    return np.lexsort((np.broadcast_to(np.arange(len(stored)), distances.shape), distances), axis=1)[:, :k]


@pytest.mark.parametrize("count", [1, 3, half_engine.FEW, half_engine.FEW + 1])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rows", [300, 12])
def test_the_nearest_are_those_of_a_literal_search(
    count: int, workers: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_engine, "threads", lambda: workers)
    stored, queries = vectors(rows), vectors(count, seed=1).astype(np.float32)
    search = ExactVectors(stored, "cpu")
    assert isinstance(search._engine, HalfEngine)
    distances, nearest = search.nearest(queries, 5)
    np.testing.assert_array_equal(nearest, literal(stored, queries, 5))
    np.testing.assert_array_equal(search.nearest(stored[:count].astype(np.float32), 1)[0], 0.0)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_a_run_of_rows_and_any_rows_are_searched_alone() -> None:
    stored, queries = vectors(), vectors(2, seed=1).astype(np.float32)
    search = ExactVectors(stored, "cpu")
    for among in (np.arange(50, 120), np.array([3, 50, 77, 200, 201, 202, 203, 250, 251, 252, 253, 254, 255, 299])):
        _, nearest = search.nearest(queries, 3, among)
        np.testing.assert_array_equal(nearest, among[literal(stored[among], queries, 3)])


def test_repeated_rows_and_a_common_offset_are_told_apart() -> None:
    """Where FAISS's float32 sums cannot tell rows apart, they are recomputed, as behind a product."""
    stored = np.repeat(vectors(40, 16), 3, axis=0) + np.float16(200)
    queries = stored[:4].astype(np.float32) + np.float32(0.01)
    np.testing.assert_array_equal(ExactVectors(stored, "cpu").nearest(queries, 7)[1], literal(stored, queries, 7))


def test_vectors_of_a_map_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors(64).tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float16, "r", shape=(64, 40))
    index = half_engine._scanner(mapped)
    assert not index.codes.is_owned
    queries = vectors(1, seed=1).astype(np.float32)
    monkeypatch.setattr(half_engine, "widen", None)
    monkeypatch.setattr("indexer.search.engines.widen", None)  # what is found needs no widened copy
    _, rows = HalfEngine(mapped).best(queries, 5, slice(0, 64))
    assert rows[0, 0] == literal(np.asarray(mapped), queries, 1)[0, 0]


def test_an_older_faiss_and_other_types_are_searched_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, queries = vectors(), vectors(2, seed=1).astype(np.float32)
    monkeypatch.setattr(half_engine, "_scanner", lambda part: None)
    np.testing.assert_array_equal(ExactVectors(stored, "cpu").nearest(queries, 5)[1], literal(stored, queries, 5))
    assert type(choose_engine(stored.astype(np.float32), "cpu")) is NumpyEngine
