"""The reject threshold against a literal computation over all thresholds, and what a confidence is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.localizer.reject import Calibration, calibrate
from seqdata.errors import ContractError, NotEnoughDataError

LABELS = {"protocol": "own@1", "split": "val", "dataset": "d"}


def literal(distances: list[float], right: list[bool], wanted: float) -> tuple[float, float, int, int] | None:
    """(threshold, precision, right and accepted, accepted) of the greatest distance that is precise enough."""
    best = None
    for threshold in sorted(set(distances)):
        accepted = [hit for apart, hit in zip(distances, right, strict=True) if apart <= threshold]
        if sum(accepted) / len(accepted) >= wanted:
            best = (threshold, sum(accepted) / len(accepted), sum(accepted), len(accepted))
    return best


def literal_confidence(distances: list[float], right: list[bool], distance: float) -> float:
    """The best precision of any threshold at or beyond the distance."""
    shares = [0.0]
    for threshold in {each for each in distances if each >= distance}:
        accepted = [hit for apart, hit in zip(distances, right, strict=True) if apart <= threshold]
        shares.append(sum(accepted) / len(accepted))
    return max(shares)


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None, max_examples=150)
@given(PAIRS, st.sampled_from([0.01, 0.5, 0.75, 0.9, 1.0]))
def test_threshold_is_the_literal_one(pairs: list[tuple[int, bool]], wanted: float) -> None:
    distances, right = [each / 8 for each, _ in pairs], [hit for _, hit in pairs]
    expected = literal(distances, right, wanted)
    if expected is None:
        with pytest.raises(NotEnoughDataError, match="the best is"):
            calibrate(distances, right, len(pairs), wanted=wanted, **LABELS)
        return
    found = calibrate(distances, right, len(pairs), wanted=wanted, **LABELS)
    assert (found.threshold, found.precision, found.accepted) == (expected[0], expected[1], expected[3])
    assert found.recall == expected[2] / len(pairs)
    for distance in [*distances, -1.0, 0.0, 0.3, 99.0]:
        assert found.confidence(distance) == literal_confidence(distances, right, distance)
        assert (found.confidence(distance) >= wanted) == (distance <= found.threshold)


def test_confidence_falls_with_distance_and_is_zero_beyond() -> None:
    generator = np.random.default_rng(0)
    distances = generator.random(300)
    right = generator.random(300) > distances
    found = calibrate(distances, right, 200, wanted=0.8, **LABELS)
    steps = [found.confidence(each) for each in np.linspace(0, 1.2, 200)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0.0
    assert found.recall == (right & (distances <= found.threshold)).sum() / 200
    assert Calibration.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("distances", "right", "wanted"),
    [([1.0, 2.0], [True], 0.5), ([np.nan], [True], 0.5), ([[1.0]], [[True]], 0.5), ([1.0], [True], 0.0)],
)
def test_arrays_that_do_not_fit_are_refused(distances: list[float], right: list[bool], wanted: float) -> None:
    with pytest.raises(ContractError, match="calibration"):
        calibrate(distances, right, 1, wanted=wanted, **LABELS)


def test_no_right_answer_is_one_line_with_the_best_there_is() -> None:
    with pytest.raises(NotEnoughDataError, match=r"precision of 0.9 on 2 queries of own@1 val: the best is 0.0000"):
        calibrate([1.0, 2.0], [False, False], 2, wanted=0.9, **LABELS)
