"""The filter against a literal sum over all pairs of windows, and what it is for: one wrong neighbour does not jump."""

import numpy as np

from indexer.localizer.forward_filter import CONTRAST, LOST, MOST_STEPS, ForwardFilter


def literal(belief: list[float], drives: list[int], distances: list[float], rows: list[int]) -> list[float]:
    """One step of the Bayes filter by its definition."""
    n = len(belief)
    moved = [0.0] * n
    for start in range(n):
        for step in range(MOST_STEPS + 1):
            end = start + step
            if end < n and drives[end] == drives[start]:
                moved[end] += belief[start] * (1 - LOST) / (MOST_STEPS + 1)
    rest = 1 - sum(moved)
    moved = [value + rest / n for value in moved]
    span = distances[-1] - distances[0]
    weighted = []
    for row in range(n):
        apart = distances[rows.index(row)] - distances[0] if row in rows else span
        weighted.append(moved[row] * CONTRAST ** (-apart / span))
    return [value / sum(weighted) for value in weighted]


def test_a_step_is_the_literal_sum() -> None:
    generator = np.random.default_rng(0)
    drives = np.repeat([0, 1, 2], [9, 4, 7])
    follower = ForwardFilter(drives)
    belief = [1 / 20] * 20
    for _ in range(6):
        rows = generator.permutation(20)[:5]
        distances = np.sort(generator.random(5)).astype(np.float32)
        follower.update(distances, rows)
        belief = literal(belief, drives.tolist(), distances.astype(float).tolist(), rows.tolist())
        np.testing.assert_allclose(follower.belief, belief, rtol=1e-9)


def test_one_wrong_neighbour_does_not_jump_and_several_do() -> None:
    follower = ForwardFilter(np.repeat([0, 1], 50))

    def see(best: int, second: int) -> int:
        rows = np.array([best, second, *range(90, 95)])
        return follower.update(np.linspace(0.3, 0.9, len(rows)).astype(np.float32), rows)

    assert [see(row, row + 30) for row in range(5, 10)] == [5, 6, 7, 8, 9]
    assert see(70, 10) == 10, "one wrong neighbour in another drive, the true window second"
    assert [see(row, row + 10) for row in range(71, 77)][-1] == 76, "the camera really is elsewhere"
    follower.reset()
    np.testing.assert_allclose(follower.belief, 1 / 100)


def test_equal_distances_say_nothing() -> None:
    follower = ForwardFilter(np.zeros(4, np.int64))
    assert follower.update(np.full(4, 0.5, np.float32), np.array([2, 0, 1, 3])) in range(4)
    assert np.isfinite(follower.belief).all()
