"""Nearest distances against brute force over every frame pair, and against the pair tables."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.contracts.tables import table_contract
from seqdata.sequences import nearest as module
from seqdata.sequences.nearest import distance_to, nearest
from seqdata.sequences.positives import positives
from seqdata.sequences.tiles import WindowSet


def window_set(rng: Any, count: Any, groups: Any, mixed: Any = False) -> Any:
    """Windows in any order over a walk on a grid, some of it far away; `mixed` lengths and steps."""
    xy = rng.integers(-5, 6, (count + 12, 2)).cumsum(0) * 5.0 + [4e5, 6e6]
    xy[rng.integers(0, count) :] += 30_000.0 * rng.integers(0, 2)
    length = rng.integers(1, 7, count) if mixed else int(rng.integers(1, 7))
    step = rng.integers(1, 3, count) if mixed else 1
    return WindowSet.from_coordinates(
        xy, rng.permutation(count), length, step=step, group=rng.integers(0, groups, count)
    )


def literal(query: Any, database: Any) -> Any:
    """Every window with every other of its group, in plain Python."""
    rows = []
    for i in range(len(query)):
        a = query.xy[query.first[i] + np.arange(query.length[i]) * query.step[i]]
        least = centre = None
        for j in np.flatnonzero(database.group == query.group[i]):
            b = database.xy[database.first[j] + np.arange(database.length[j]) * database.step[j]]
            d = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
            between = d[(len(a) - 1) // 2, (len(b) - 1) // 2]
            least = d.min() if least is None else min(least, d.min())
            centre = between if centre is None else min(centre, between)
        rows.append((i, least, centre))
    return pl.DataFrame(rows, schema=module.NEAREST_SCHEMA, orient="row")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 25), st.integers(0, 25), st.integers(1, 3), st.booleans())
def test_nearest_equals_brute_force(seed: int, queries: Any, maps: Any, groups: Any, mixed: Any) -> None:
    rng = np.random.default_rng(seed)
    query = window_set(rng, queries, groups, mixed)
    database = window_set(rng, maps, groups, mixed) if maps else WindowSet.from_coordinates(np.zeros((0, 2)), [], 5)
    found = nearest(query, database)
    assert found.equals(literal(query, database), null_equal=True)
    table_contract("nearest").validate(found, "nearest")


def test_nearest_reaches_beyond_every_radius_and_agrees_with_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    rng = np.random.default_rng(3)
    along = np.arange(200.0)
    walks = [np.column_stack([5 * along + 4e5, slope * along + 6e6]) + rng.normal(0, 3, (200, 2)) for slope in (0, 0.4)]
    query, database = (WindowSet.from_coordinates(walk, range(196), 5) for walk in walks)
    found, pairs = nearest(query, database), positives(query, database, radius=25.0)
    of_pairs = pairs.group_by("query").agg(pl.col("min_distance").min()).sort("query")
    near = found.filter(pl.col("min_distance") < 25.0)
    assert 0 < near.height < found.height
    assert near["query"].to_list() == of_pairs["query"].to_list()
    assert near["min_distance"].to_numpy() == pytest.approx(of_pairs["min_distance"].to_numpy(), rel=1e-12)
    assert found["min_distance"].max() > 25.0


def test_ranks_and_empty_sets() -> None:
    ranks = WindowSet.from_coordinates(np.column_stack([np.arange(10.0), np.zeros(10)]), [0, 5], 3)
    far = WindowSet.from_coordinates(np.column_stack([np.arange(10.0) + 20, np.zeros(10)]), [0], 5)
    assert nearest(ranks, far).rows() == [(0, 18.0, 21.0), (1, 13.0, 16.0)]
    none = WindowSet.from_coordinates(np.zeros((0, 2)), [], 5)
    assert nearest(none, far).rows() == []
    assert nearest(ranks, none).rows() == [(0, None, None), (1, None, None)]
    assert distance_to(np.zeros((2, 2)), np.zeros((0, 2))).tolist() == [np.inf, np.inf]
