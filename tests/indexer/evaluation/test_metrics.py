"""Ranks, average precision and precision-recall against literal versions and scikit-learn; groups; comparisons."""

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from indexer.evaluation import predictions
from indexer.evaluation.breakdowns import UNKNOWN, heading_groups
from indexer.evaluation.comparison import gap
from indexer.evaluation.intervals import Units, draw_weights
from indexer.evaluation.metrics import Answers, CurveStatistics, answers, measure
from indexer.evaluation.recall import Evaluation, evaluate
from indexer.evaluation.text_tables import flat_rows, format_against, format_table
from seqdata.errors import ContractError
from tests.support.indexes import make_places, make_truth, pairs


def literal_points(distance: list[float], right: list[bool]) -> list[tuple[float, float, float]]:
    """Every threshold that is some answer's distance, everything counted anew."""
    found = []
    for threshold in sorted({d for d in distance if np.isfinite(d)}):
        accepted = [ok for d, ok in zip(distance, right, strict=True) if d <= threshold]
        found.append((threshold, sum(accepted) / len(distance), sum(accepted) / len(accepted)))
    return found


scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(scored)
def test_curve_equals_literal_and_scikit_learn(answered: list[tuple[int, bool]]) -> None:
    distance = [float(d) if d < 6 else np.inf for d, _ in answered]
    right = [ok for _, ok in answered]
    found = CurveStatistics(Answers(1, np.ones(len(right)), np.ones(len(right)), np.array(distance), np.array(right)))
    expected = literal_points(distance, right)
    assert np.array(found.points()).reshape(-1, 3) == pytest.approx(np.array(expected).reshape(-1, 3))
    once = np.ones((1, len(right)))
    full = [recall for _, recall, precision in expected if precision == 1.0]
    assert found.recall_at_full_precision(once)[0] == pytest.approx(max(full, default=0.0))
    finite = np.isfinite(distance)
    truth, score = np.array(right)[finite], -np.array(distance)[finite]
    if truth.any():
        precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=False)
        share = truth.sum() / len(right)  # scikit-learn's recall is among the right answers alone
        assert found.auc(once)[0] == pytest.approx(share * auc(recall, precision))
    else:
        assert found.auc(once)[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_and_average_precision(data: st.DataObject) -> None:
    queries, database = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    rows = np.array([data.draw(st.permutations(range(database))) for _ in range(queries)])
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, database - 1))
    positives = data.draw(st.sets(pair, min_size=1, max_size=20))
    depth = data.draw(st.integers(1, database))
    counted = np.array([any(q == query for q, _ in positives) for query in range(queries)])
    distances = np.arange(queries * depth, dtype=np.float64).reshape(queries, depth)
    found = answers(predictions.table(distances, rows[:, :depth]), pairs(*positives, *positives), counted)
    assert found.distance.tolist() == distances[counted, 0].tolist()
    for at, query in enumerate(np.flatnonzero(counted)):
        truth = np.array([(query, row) in positives for row in rows[query]])
        hits = np.flatnonzero(truth[:depth])
        assert found.rank[at] == (hits[0] + 1 if len(hits) else depth + 1)
        precisions = [(number + 1) / (hit + 1) for number, hit in enumerate(hits)]
        assert found.average_precision[at] == pytest.approx(sum(precisions) / min(truth.sum(), depth))
        if depth == database:
            assert found.average_precision[at] == pytest.approx(average_precision_score(truth, -np.arange(database)))


def run(
    count: int = 240, trajectories: int = 12, groups: dict | None = None, size: int | None = None, **fields: Any
) -> Evaluation:
    """Queries right with a chance that falls with their distance; every tenth has no positive."""
    rng = np.random.default_rng(3)
    apart = rng.random(count).astype("f4")
    right = rng.random(count) > apart * 0.7
    rows = np.where(right, np.arange(count), (np.arange(count) + 1) % count)[:, None]
    rows = np.hstack([rows, (rows + 7) % count])
    table = predictions.table(np.stack([apart, apart + 1], axis=1), rows)
    positives = pairs(*[(i, i) for i in range(count) if i % 10])
    places = make_places(count, trajectories=trajectories)
    provenance = predictions.Provenance("ours", "test", size=size)
    return evaluate(
        table, make_truth(positives, places, count, **fields), provenance, ranks=(1, 2), full=True, groups=groups
    )


def test_queries_without_a_positive() -> None:
    """Left out of precision and recall both, or wrong wherever they are accepted."""
    left, miss = run(), run(no_positive="miss")
    assert left.metrics.precision_recall[-1][1:] == pytest.approx((left.recall[1], left.recall[1]))
    assert miss.metrics.precision_recall[-1][1:] == pytest.approx((miss.recall[1], miss.recall[1]))
    assert (left.queries, miss.queries) == (216, 240)
    assert miss.metrics.auc.value < left.metrics.auc.value
    assert miss.metrics.mean_rank.value > left.metrics.mean_rank.value


def test_intervals_are_of_resampled_trajectories() -> None:
    found = run().metrics
    assert found.interval_method.startswith("bootstrap over 12 trajectories")
    for name in ("mean_rank", "mean_average_precision", "auc", "recall_at_full_precision"):
        value = getattr(found, name)
        assert value.interval[0] <= value.value <= value.interval[1]
        assert value.interval[0] < value.interval[1]
    few = run(count=30, trajectories=1).metrics
    assert few.auc.interval is None
    assert "only" in few.interval_method


def test_bootstrap_of_a_mean_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(0)
    rank = rng.integers(1, 9, 60).astype(float)
    units_of = np.sort(rng.integers(0, 12, 60))
    found = Answers(8, rank, rank / 9, np.full(60, np.nan), np.ones(60, bool))
    made = measure(found, Units(units_of, "unit", "units"), np.ones(60, bool), seed=4)
    drawn = []
    for weights in draw_weights(12, 4):
        members = [value for unit in range(12) for _ in range(weights[unit]) for value in rank[units_of == unit]]
        drawn.append(np.mean(members))
    assert made.mean_rank.interval == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert made.auc is None
    assert made.precision_recall == ()


def test_long_curves_are_thinned_and_json_round_trips() -> None:
    result = run(count=900)
    assert len(result.metrics.precision_recall) == 200
    assert Evaluation.model_validate_json(result.model_dump_json()) == result
    assert "recall at 100 % precision" in format_table([result])


def test_evaluations_written_before_still_read() -> None:
    old = run().model_dump(mode="json")
    for new in ("length", "size", "shared", "metrics", "by", "unanswered"):
        old.pop(new)
    read = Evaluation.model_validate(old)
    assert (read.metrics, read.unanswered) == (None, 0)


def test_groups_of_queries() -> None:
    night = np.arange(240) % 3 == 0
    result = run(groups={"night": {"day": ~night, "night": night, "empty": np.zeros(240, bool)}})
    by = result.by["night"]
    assert set(by) == {"day", "night"}
    assert by["day"].queries + by["night"].queries == result.queries
    assert by["day"].left_out + by["night"].left_out == result.left_out
    total = sum(group.recall[1] * group.queries for group in by.values())
    assert total / result.queries == pytest.approx(result.recall[1])
    assert "night day" in format_table([result])
    rows = flat_rows([result])
    assert [row["group"] for row in rows] == [None, "day", "night"]
    assert rows[0]["r1"] == result.recall[1]
    assert rows[0]["auc"] == result.metrics.auc.value


def test_heading_groups_take_the_least_difference() -> None:
    turned = pl.DataFrame(
        {"query": [0, 0, 1, 2, 3, 4, 5], "heading_difference": [170.0, 10.0, 90.0, 180.0, None, 45.0, float("nan")]}
    )
    groups = heading_groups(7, turned)
    assert [np.flatnonzero(mask).tolist() for mask in groups.values()] == [[0, 4], [1], [2], [3, 5]]
    assert list(groups)[-1] == UNKNOWN


def literal_gap(first: np.ndarray, second: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    names = np.unique(labels)
    drawn = []
    for weights in draw_weights(len(names), seed):
        chosen = np.concatenate([np.tile(np.flatnonzero(labels == n), w) for n, w in zip(names, weights, strict=True)])
        drawn.append(first[chosen].mean() - second[chosen].mean())
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def test_paired_gap_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(5)
    labels = np.sort(rng.integers(0, 15, 200)) * 3
    first = rng.random(200) < 0.7
    second = np.where(rng.random(200) < 0.3, rng.random(200) < 0.5, first)
    found = gap(first, second, labels, seed=1)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.interval == pytest.approx(literal_gap(first, second, labels, 1))
    units = [int(first[labels == n].sum()) - int(second[labels == n].sum()) for n in np.unique(labels)]
    better, worse = sum(u > 0 for u in units), sum(u < 0 for u in units)
    assert (found.better, found.worse, found.equal) == (better, worse, len(units) - better - worse)
    assert found.sign_p == pytest.approx(binomtest(better, better + worse).pvalue)
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    assert (found.only_first, found.only_second) == alone
    assert found.mcnemar_p == pytest.approx(binomtest(alone[0], sum(alone)).pvalue)


def test_paired_gap_knows_a_real_one_from_none() -> None:
    labels = np.repeat(np.arange(20), 10)
    hard = np.repeat(np.arange(20) % 2 == 0, 10)  # half of the units are hard for both
    better = ~hard | (np.arange(200) % 10 < 3)
    assert gap(better, ~hard, labels, 0).beyond_chance is True
    assert gap(~hard, ~hard, labels, 0).beyond_chance is False
    assert gap(~hard, ~hard, labels, 0).sign_p == 1.0
    assert gap(better, ~hard, labels // 100, 0).beyond_chance is None


def test_against_keeps_each_protocol_in_its_column() -> None:
    near, far = run(), run(radius=50.0)
    text = format_against([far, near], "radius")
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["radius", "25", "50"]
    assert lines[1] == ["protocol", near.label, far.label]
    with pytest.raises(ContractError, match="size is not known"):
        format_against([near], "size")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert format_against([run(size=64), run(size=256)], "size").splitlines()[0].split() == ["size", "64", "256"]
