"""Both spacing rules against literal loops, and the ways in which they differ."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.errors import ContractError
from seqdata.sequences.resampling import arc_mask, greedy_mask, keep_mask

STEPS = st.lists(st.tuples(st.integers(-4, 6), st.integers(-4, 6)), max_size=120)
SPACINGS = st.sampled_from([1.0, 2.0, 5.0, 7.5, 30.0])


def greedy_literal(east: Any, north: Any, spacing: Any) -> Any:
    kept = []
    for i in range(len(east)):
        if not kept:
            kept.append(i)
            continue
        dx, dy = east[i] - east[kept[-1]], north[i] - north[kept[-1]]
        if math.sqrt(dx * dx + dy * dy) >= spacing:
            kept.append(i)
    return kept


def arc_literal(east: Any, north: Any, spacing: Any) -> Any:
    path = [0.0]
    for i in range(1, len(east)):
        dx, dy = east[i] - east[i - 1], north[i] - north[i - 1]
        path.append(path[-1] + math.sqrt(dx * dx + dy * dy))
    kept, mark = set(), 0
    while len(east) and mark * spacing <= path[-1]:
        kept.add(min(range(len(path)), key=lambda i: (abs(path[i] - mark * spacing), i)))
        mark += 1
    return sorted(kept)


@settings(max_examples=200, deadline=None)
@given(STEPS, SPACINGS)
def test_greedy_equals_literal_loop(moves: Any, spacing: Any) -> None:
    xy = np.cumsum(np.array(moves, float).reshape(-1, 2), 0) + np.array([4e5, 6e6])
    assert np.flatnonzero(greedy_mask(xy[:, 0], xy[:, 1], spacing)).tolist() == greedy_literal(
        xy[:, 0], xy[:, 1], spacing
    )


@settings(max_examples=200, deadline=None)
@given(STEPS, SPACINGS)
def test_arc_equals_literal_loop(moves: Any, spacing: Any) -> None:
    xy = np.cumsum(np.array(moves, float).reshape(-1, 2), 0)
    assert np.flatnonzero(arc_mask(xy[:, 0], xy[:, 1], spacing)).tolist() == arc_literal(xy[:, 0], xy[:, 1], spacing)


def test_long_standstill_is_found_by_galloping() -> None:
    east = np.concatenate([np.zeros(5000), [1.9, 2.0, 2.1], np.full(3000, 4.0), [4.5]])
    assert np.flatnonzero(greedy_mask(east, 0 * east, 2.0)).tolist() == [0, 5001, 5003]
    assert np.flatnonzero(arc_mask(east, 0 * east, 2.0)).tolist() == [0, 5001, 5003]


def test_exactly_the_spacing_is_kept_and_wide_spacing_keeps_all() -> None:
    assert greedy_mask([0, 3, 6], [0, 4, 8], 5.0).all()
    assert not greedy_mask([0, 3, 6], [0, 4, 8], np.nextafter(5.0, 6.0))[1]
    assert greedy_mask(np.arange(50) * 25.0, np.zeros(50), 2.0).all()
    assert arc_mask(np.arange(50) * 25.0, np.zeros(50), 2.0).all()


def test_rules_differ_on_a_winding_drive() -> None:
    turn = np.linspace(0, 60, 6000)
    east, north = 5 * turn + np.cos(3 * turn), np.sin(3 * turn)
    assert keep_mask(east, north, 2.0, "arc").sum() > keep_mask(east, north, 2.0).sum()


def test_bad_rule_and_spacing_are_refused() -> None:
    with pytest.raises(ContractError, match="spacing rule 'both'"):
        keep_mask([0], [0], 2.0, "both")
    for spacing in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ContractError, match="positive"):
            greedy_mask([0], [0], spacing)


def test_empty_trajectory() -> None:
    assert greedy_mask([], [], 2.0).shape == arc_mask([], [], 2.0).shape == (0,)


def test_ties_of_the_arc_rule_go_to_the_earlier_frame() -> None:
    """Marks at 0 and 2 m: frames 1 and 2 stand at 1 m and frame 3 is as near; the first of those standing remains."""
    assert arc_mask([0.0, 1.0, 1.0, 3.0], [0.0] * 4, 2.0).tolist() == [True, True, False, False]
    assert arc_mask([0.0, 1.5, 1.5, 1.5, 9.0], [0.0] * 5, 2.0)[:4].tolist() == [True, True, False, False]
    assert arc_mask([0.0, 0.0, 0.0, 2.0], [0.0] * 4, 2.0).tolist() == [True, False, False, True]
