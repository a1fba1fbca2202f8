"""Replacement of bad frames: ties go to the earlier frame, and only frames that a window shows stand in."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from seqdata.errors import ContractError
from seqdata.streaming.bad_frames import Neighbours, visible_rows

TRAJECTORIES = pl.Series(["a"] * 6 + ["b"] * 3 + ["a"] * 2)


class Cache:
    """Knows which frames are bad."""

    def __init__(self, *bad: int) -> None:
        self.bad = dict.fromkeys(bad, "reason")

    def frames(self, rows: Any) -> dict[int, Any]:
        return {row: None if row in self.bad else np.zeros((1, 1, 3), np.uint8) for row in rows}


def neighbours(*shown: int) -> Neighbours:
    return Neighbours(np.array(shown), TRAJECTORIES)


@pytest.mark.parametrize(
    ("row", "nearest"),
    [(2, [1, 3, 0, 4, 5]), (0, [1, 2, 3, 4, 5]), (5, [4, 3, 2, 1, 0]), (6, [7, 8]), (9, [10])],
)
def test_the_earlier_of_two_equally_near_frames_comes_first(row: int, nearest: list[int]) -> None:
    assert neighbours(*range(11)).nearest(row) == nearest


def test_frames_that_no_window_shows_stand_in_for_none() -> None:
    assert neighbours(0, 2, 5, 8).nearest(2) == [0, 5]
    assert neighbours(0, 2, 5).nearest(7) == []


@pytest.mark.parametrize(
    ("bad", "visible"),
    [
        ((), [0, 1, 2, 3, 4]),
        ((2,), [0, 1, 1, 3, 4]),
        ((0, 1), [2, 2, 2, 3, 4]),
        ((1, 2, 3), [0, 0, 0, 4, 4]),
        ((0, 1, 2, 3, 4), [5, 5, 5, 5, 5]),
    ],
)
def test_a_window_shows_its_nearest_good_frames(bad: tuple[int, ...], visible: list[int]) -> None:
    rows = visible_rows(Cache(*bad), np.arange(5), neighbours(*range(6)))
    assert rows.tolist() == visible


def test_a_trajectory_without_a_good_frame_is_named() -> None:
    with pytest.raises(ContractError, match="around frame 6"):
        visible_rows(Cache(6, 7, 8), np.array([6, 7]), neighbours(*range(11)))
