"""Re-ranking against a direct loop, and windows that share frames."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.evaluation import predictions
from indexer.evaluation.recall import evaluate
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.matching.frame_vectors import read_once
from indexer.matching.rerank import rerank
from seqdata.errors import ContractError
from tests.indexer.evaluation.test_recall import PROVENANCE
from tests.indexer.matching.test_aligned import METRICS, windows
from tests.support.indexes import make_places, make_truth, pairs


def shuffled(queries: int, database: int, k: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(database)[:k] for _ in range(queries)])
    return predictions.table(np.sort(rng.random((queries, k)), axis=1), rows)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize(("k", "block"), [(1, 1), (4, 100), (6, 1 << 24), (50, 1 << 24)])
def test_rerank_equals_direct_loop(metric: str, k: int, block: int) -> None:
    frames = np.random.default_rng(2).normal(size=(60, 9)).astype("f4")
    asked, stored = windows(30, 3), 30 + windows(30, 3)
    table = shuffled(len(asked), len(stored), 10, 0)
    asked_for: list[np.ndarray] = []

    def read(rows: np.ndarray) -> np.ndarray:
        asked_for.append(rows)
        return frames[rows]

    made = rerank(table, asked, stored, read, k, metric=metric, block=block)
    for query in range(len(asked)):
        before = table.filter(pl.col("query") == query)["database"].to_list()
        apart = {
            row: np.mean(
                [METRICS[metric](frames[a], frames[b]) for a, b in zip(asked[query], stored[row], strict=True)]
            )
            for row in before[:k]
        }
        after = made.filter(pl.col("query") == query)
        assert after["rank"].to_list() == list(range(1, 11))
        assert after["database"].to_list() == sorted(before[:k], key=lambda row: apart[row]) + before[k:]
        told = after["distance"].to_numpy()
        np.testing.assert_allclose(told[:k], sorted(apart.values()), rtol=1e-4, atol=1e-5)
        assert np.isinf(told[k:]).all()
    assert all((np.diff(rows) > 0).all() for rows in asked_for)
    predictions.table_contract("predictions").validate(made, file="made")


def test_equal_distances_keep_their_order_and_ragged_shortlists_work() -> None:
    frames = np.ones((20, 4), np.float32)
    table = predictions.table([[0.1, 0.2, 0.3]], [[7, 2, 5]], [1])
    made = rerank(table, windows(10, 2), windows(20, 2), lambda rows: frames[rows], 3)
    assert made["database"].to_list() == [7, 2, 5]
    assert made["query"].unique().to_list() == [1]
    empty = rerank(table.head(0), windows(10, 2), windows(20, 2), lambda rows: frames[rows], 3)
    assert empty.height == 0
    with pytest.raises(ContractError, match="at least one"):
        rerank(table, windows(10, 2), windows(20, 2), lambda rows: frames[rows], 0)


def test_reader_reads_once_and_refuses_strangers() -> None:
    frames = np.random.default_rng(0).normal(size=(600, 3)).astype("f4")
    seen: list[int] = []

    def read(rows: np.ndarray) -> np.ndarray:
        seen.extend(rows.tolist())
        return frames[rows]

    rows = np.arange(0, 600, 2)
    again = read_once(read, rows)
    np.testing.assert_array_equal(again(np.array([4, 2, 4])), frames[[4, 2, 4]])
    np.testing.assert_array_equal(again(rows), frames[rows])
    assert seen == rows.tolist()
    for stranger in (3, 1000):
        with pytest.raises(ContractError, match="not read before"):
            again(np.array([stranger]))
    with pytest.raises(ContractError, match="finite"):
        read_once(lambda rows: np.full((len(rows), 2), np.nan), rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=0, max_size=8),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(0, 15)), min_size=0, max_size=8),
)
def test_shared_pairs_equal_direct_loop(query: list, database: list) -> None:
    found = shared_pairs(np.array(query, np.int64).reshape(-1, 2), np.array(database, np.int64).reshape(-1, 3))
    wanted = [(i, j) for i, q in enumerate(query) for j, d in enumerate(database) if set(q) & set(d)]
    assert found.rows() == sorted(wanted)


def test_ranks_close_up() -> None:
    table = predictions.table([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], [[0, 1, 2], [2, 0, 1]])
    left = without_pairs(table, shared_pairs(np.array([[0], [5]]), np.array([[0], [1], [2]])))
    assert left.select("query", "rank", "database").rows() == [(0, 1, 1), (0, 2, 2), (1, 1, 2), (1, 2, 0), (1, 3, 1)]
    assert left.schema == table.schema


def test_no_query_matches_itself() -> None:
    """One drive plays both roles: each query finds itself first, and that must not count."""
    table = windows(12, 3)
    shared = shared_pairs(table, table)
    rows = np.stack([np.argsort(np.abs(np.arange(10) - query), kind="stable") for query in range(10)])
    everything = [(q, d) for q in range(10) for d in range(10) if abs(q - d) <= 3]
    nearest = predictions.table(np.zeros(rows.shape), rows)
    fooled = evaluate(
        nearest, make_truth(pairs(*[(q, q) for q in range(10)]), make_places(10), 10), PROVENANCE, ranks=(1,)
    )
    assert fooled.recall[1] == 1.0
    honest = evaluate(
        nearest, make_truth(pairs(*everything), make_places(10), 10, shared=shared), PROVENANCE, ranks=(1, 5)
    )
    assert honest.shared == shared.height == 10 + 2 * 9 + 2 * 8
    assert honest.recall[1] == 1.0  # three windows on, the nearest that shares nothing
    only_itself = [(q, q) for q in range(1, 10)] + [(0, 3)]
    left = evaluate(
        nearest, make_truth(pairs(*only_itself), make_places(10), 10, shared=shared), PROVENANCE, ranks=(1,)
    )
    assert (left.queries, left.left_out, left.recall[1]) == (1, 9, 1.0)
