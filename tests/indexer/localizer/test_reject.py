"""The reject threshold against a literal computation over all thresholds, and what a confidence is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.localizer.reject import Calibration, calibrate
from seqdata.errors import ContractError, NotEnoughDataError

LABELS = {"protocol": "own@1", "split": "val", "dataset": "d"}


def literal(distances: list[float], right: list[bool], target: float) -> tuple[float, float, int, int] | None:
    """(threshold, precision, right and accepted, accepted) of the greatest distance that is precise enough."""
    best = None
    for threshold in sorted(set(distances)):
        accepted = [hit for distance, hit in zip(distances, right, strict=True) if distance <= threshold]
        if sum(accepted) / len(accepted) >= target:
            best = (threshold, sum(accepted) / len(accepted), sum(accepted), len(accepted))
    return best


def literal_confidence(distances: list[float], right: list[bool], distance: float) -> float:
    """The best precision of any threshold at or beyond the distance."""
    shares = [0.0]
    for threshold in {other for other in distances if other >= distance}:
        accepted = [hit for distance, hit in zip(distances, right, strict=True) if distance <= threshold]
        shares.append(sum(accepted) / len(accepted))
    return max(shares)


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None, max_examples=150)
@given(PAIRS, st.sampled_from([0.01, 0.5, 0.75, 0.9, 1.0]))
def test_threshold_is_the_literal_one(pairs: list[tuple[int, bool]], target: float) -> None:
    distances, right = [eighth / 8 for eighth, _ in pairs], [hit for _, hit in pairs]
    expected = literal(distances, right, target)
    if expected is None:
        with pytest.raises(NotEnoughDataError, match="the best is"):
            calibrate(distances, right, len(pairs), target_precision=target, **LABELS)
        return
    result = calibrate(distances, right, len(pairs), target_precision=target, **LABELS)
    assert (result.threshold, result.precision, result.accepted) == (expected[0], expected[1], expected[3])
    assert result.recall == expected[2] / len(pairs)
    for distance in [*distances, -1.0, 0.0, 0.3, 99.0]:
        assert result.confidence(distance) == literal_confidence(distances, right, distance)
        assert (result.confidence(distance) >= target) == (distance <= result.threshold)


def test_confidence_falls_with_distance_and_is_zero_beyond() -> None:
    generator = np.random.default_rng(0)
    distances = generator.random(300)
    right = generator.random(300) > distances
    result = calibrate(distances, right, 200, target_precision=0.8, **LABELS)
    steps = [result.confidence(each) for each in np.linspace(0, 1.2, 200)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0.0
    assert result.recall == (right & (distances <= result.threshold)).sum() / 200
    assert Calibration.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("distances", "right", "target"),
    [([1.0, 2.0], [True], 0.5), ([np.nan], [True], 0.5), ([[1.0]], [[True]], 0.5), ([1.0], [True], 0.0)],
)
def test_arrays_that_do_not_fit_are_refused(distances: list[float], right: list[bool], target: float) -> None:
    with pytest.raises(ContractError, match="calibration"):
        calibrate(distances, right, 1, target_precision=target, **LABELS)


def test_no_right_answer_is_one_line_with_the_best_there_is() -> None:
    with pytest.raises(NotEnoughDataError, match=r"precision of 0.9 on 2 queries of own@1 val: the best is 0.0000"):
        calibrate([1.0, 2.0], [False, False], 2, target_precision=0.9, **LABELS)


def test_the_stored_name_of_the_target_stays() -> None:
    result = calibrate([0.1, 0.2], [True, True], 2, target_precision=0.5, **LABELS)
    stored = result.model_dump(mode="json", by_alias=True)
    assert stored["wanted"] == 0.5
    assert Calibration.model_validate(stored) == result
