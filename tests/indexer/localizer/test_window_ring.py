"""Which frames make a window: by metres, by time, or all; standing still, gaps, and clocks that go back."""

import numpy as np
import pytest

from indexer.localizer.window_ring import Cut, WindowRing
from seqdata.sequences.windows import centre_index


def taken(ring: WindowRing, moments: list[tuple[float | None, float | None]]) -> list[int]:
    """Numbers of the frames in the ring after these moments (time, odometry)."""
    for number, (time, odometry) in enumerate(moments):
        if ring.is_due(time, odometry):
            ring.add(np.zeros((1, 1), np.float32), time, odometry, number)
    return list(ring.labels)


def greedy(metres: list[float], spacing: float) -> list[int]:
    """The build's rule, literally: the first frame, then each that is a spacing away from the last one taken."""
    rows = [0]
    for row, metre in enumerate(metres):
        if metre - metres[rows[-1]] >= spacing:
            rows.append(row)
    return rows


def test_by_metres_it_is_the_rule_of_a_build() -> None:
    metres = np.cumsum(np.random.default_rng(0).uniform(0, 1.5, 60)).tolist()
    ring = WindowRing(Cut(length=100, spacing=2.0, interval=0.1))
    assert taken(ring, [(0.1 * number, metre) for number, metre in enumerate(metres)]) == greedy(metres, 2.0)


def test_standing_still_adds_nothing() -> None:
    ring = WindowRing(Cut(length=5, spacing=2.0))
    assert taken(ring, [(None, 2.0), (None, 4.0), *[(None, 4.1)] * 500, (None, 6.0)]) == [0, 1, 502]


def test_by_time_where_there_is_no_odometry() -> None:
    ring = WindowRing(Cut(length=9, spacing=2.0, interval=0.5))
    # Ten frames a second that are stamped up to 20 ms late or early.
    jitter = np.random.default_rng(1).uniform(-0.02, 0.02, 31)
    assert taken(ring, [(0.1 * number + jitter[number], None) for number in range(31)]) == [0, 5, 10, 15, 20, 25, 30]


def test_without_times_every_frame_counts() -> None:
    assert taken(WindowRing(Cut(length=3, spacing=2.0, interval=0.5)), [(None, None)] * 5) == [2, 3, 4]
    assert taken(WindowRing(Cut(length=3)), [(7.0, 7.0)] * 5) == [2, 3, 4]


@pytest.mark.parametrize("back", [-100.0, 60.0])
def test_a_gap_and_a_clock_that_goes_back_start_anew(back: float) -> None:
    ring = WindowRing(Cut(length=4, interval=1.0))
    times = [0.0, 1.0, 2.0, 2.0 + back, 3.0 + back]
    assert taken(ring, [(time, None) for time in times]) == [3, 4]


def test_frames_farther_apart_than_the_databases_still_fill_a_window() -> None:
    ring = WindowRing(Cut(length=4, spacing=1.0))
    assert taken(ring, [(None, 4.0 * number) for number in range(6)]) == [2, 3, 4, 5]
    assert ring.labels[centre_index(4)] == ring.centre == 3
