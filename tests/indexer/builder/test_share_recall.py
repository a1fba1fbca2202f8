"""The nearest of vectors that come in shares: those of one search over all of them, ties by row."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from indexer.builder.held_arrays import write_arrays
from indexer.builder.share_recall import Nearest, held_out_of_shares
from indexer.search.exact import ExactVectors
from indexer.selection.held_out import CANDIDATES, NOT_A_ROW, hold_out


def grid(rows: int) -> np.ndarray:
    """Points of a small grid: many lie equally far from any query."""
    return np.random.default_rng(0).integers(0, 3, (rows, 3)).astype(np.float32)


def literal(queries: np.ndarray, vectors: np.ndarray) -> list[list[int]]:
    distances = np.linalg.norm(queries[:, None] - vectors[None], axis=2)
    return [sorted(range(len(vectors)), key=lambda row: (line[row], row))[: CANDIDATES + 1] for line in distances]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("block", [7, 60, 200])
def test_blocks_give_the_nearest_of_all_with_ties_by_row(block: int, backwards: bool) -> None:
    vectors, queries = grid(200), grid(9)
    nearest = Nearest(queries)
    starts = range(0, 200, block)
    for start in reversed(starts) if backwards else starts:
        part = vectors[start : start + block]
        assert [len(seen) for seen in nearest.watch(iter([part]), start)] == [len(part)]
    assert nearest.rows.tolist() == literal(queries, vectors)


def test_several_blocks_follow_each_other() -> None:
    vectors, queries = grid(120), grid(4)
    nearest = Nearest(queries)
    blocks = np.split(vectors, [31, 90])
    assert all(np.array_equal(seen, block) for seen, block in zip(nearest.watch(blocks, 5), blocks, strict=True))
    assert nearest.rows.tolist() == [[row + 5 for row in line] for line in literal(queries, vectors)]


def test_few_vectors_leave_places_empty() -> None:
    nearest = Nearest(grid(2))
    assert list(nearest.watch(iter([grid(3)]), 0))
    assert (nearest.rows[:, 3:] == NOT_A_ROW).all()
    assert np.isinf(nearest.distances[:, 3:]).all()


@pytest.mark.parametrize("rows", [20, CANDIDATES + 1, 90])
def test_held_out_queries_of_shares_are_those_of_one_search(rows: int, tmp_path: Path) -> None:
    """As many columns as a search over all rows gives, no empty ones beside."""
    vectors = np.random.default_rng(1).normal(size=(rows, 4)).astype(np.float32)
    whole = hold_out(vectors, ExactVectors(vectors, "cpu"), 0)
    write_arrays(tmp_path / "queries", rows=whole.rows, vectors=whole.queries)
    files = []
    for start in range(0, rows, 13):
        nearest = Nearest(whole.queries)
        assert list(nearest.watch(iter([vectors[start : start + 13]]), start))
        files.append(tmp_path / f"nearest-{start}")
        write_arrays(files[-1], apart=nearest.distances, rows=nearest.rows)
    plan = SimpleNamespace(rows=rows, queries_of="database rows")
    merged = held_out_of_shares(tmp_path / "queries", files, plan)
    assert np.array_equal(merged.rows, whole.rows)
    assert np.array_equal(merged.near, whole.near)
