"""Recall against literal loops, what is counted, and the tables."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import indexer
from indexer.evaluation import predictions
from indexer.evaluation.metrics import chance_recall
from indexer.evaluation.predictions import Provenance
from indexer.evaluation.recall import RANKS, Evaluation, evaluate, recall_at
from indexer.evaluation.scoring import ranks_within, read_recorded, record
from indexer.evaluation.text_tables import flat_rows, format_against, format_table
from indexer.evaluation.truth import common_depth
from indexer.versions.checks import check_version
from indexer.versions.folders import evaluations_folder
from indexer.versions.listing import entries
from indexer.versions.tags import collect
from seqdata.errors import ContractError, NotEnoughDataError, OutputError
from seqdata.storage.files import write_json_atomic
from tests.support.indexes import make_places, make_truth, pairs

PROVENANCE = Provenance("ours", "test")


def run(
    rows: np.ndarray,
    positives: pl.DataFrame,
    database: int,
    *,
    ranks: tuple[int, ...] = RANKS,
    provenance: Provenance = PROVENANCE,
    **fields: Any,
) -> Evaluation:
    """Evaluate predicted rows (q, k) under the demo protocol with other `fields`."""
    table = predictions.table(np.zeros(rows.shape), rows)
    truth = make_truth(positives, make_places(len(rows)), database, **fields)
    return evaluate(table, truth, provenance, ranks=ranks)


def literal_recall(rows: np.ndarray, positives: set[tuple[int, int]], n: int, count_all: bool) -> float:
    """The definition, spelled out."""
    hits = counted = 0
    for query in range(len(rows)):
        has_positive = any(pair[0] == query for pair in positives)
        if not has_positive and not count_all:
            continue
        counted += 1
        found = False
        for rank in range(min(n, rows.shape[1])):
            if (query, int(rows[query, rank])) in positives:
                found = True
        hits += found
    return hits / counted


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_recall_equals_literal_loops(data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, 12))
    database = data.draw(st.integers(1, 15))
    count_all = data.draw(st.booleans())
    k = min(database, 20)
    orders = [data.draw(st.permutations(range(database)))[:k] for _ in range(queries)]
    rows = np.array(orders, dtype=np.int64)
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, database - 1))
    positives = data.draw(st.sets(pair, min_size=1, max_size=30))
    result = run(rows, pairs(*positives), database, no_positive="miss" if count_all else "leave-out")
    for n in (1, 5, 10, 20):
        assert result.recall[n] == pytest.approx(literal_recall(rows, positives, n, count_all))
    fields = {"no_positive": result.no_positive}
    truth = make_truth(pairs(*positives), make_places(queries), database, **fields)
    short = recall_at(predictions.table(np.zeros(rows.shape), rows), truth)
    assert short == {n: result.recall[n] for n in (1, 5, 10)}  # training's validation counts as eval does
    assert result.queries + result.left_out == queries
    assert result.left_out == (0 if count_all else queries - len({query for query, _ in positives}))
    assert list(result.curve) == sorted(result.curve)
    assert len(result.curve) == len(result.curve_interval) == max(result.recall)
    for n, (low, high) in result.interval.items():
        assert 0 <= low <= result.recall[n] + 1e-12
        assert result.recall[n] - 1e-12 <= high <= 1


def test_duplicated_positive_pairs_change_nothing() -> None:
    rows = np.array([[0, 1], [1, 0]])
    once, twice = pairs((0, 0), (1, 0)), pairs((0, 0), (0, 0), (1, 0))
    assert run(rows, once, 2, ranks=(1, 2)) == run(rows, twice, 2, ranks=(1, 2))


def test_query_without_predictions_is_a_miss() -> None:
    table = predictions.table(np.zeros((1, 2)), np.array([[0, 1]]), np.array([1]))
    truth = make_truth(pairs((0, 0), (1, 0)), make_places(2), 2)
    result = evaluate(table, truth, PROVENANCE, ranks=(1, 2))
    assert result.recall == recall_at(table, truth, (1, 2)) == {1: 0.5, 2: 0.5}
    assert result.unanswered == 1
    assert "1 of them without any prediction, a miss" in format_table([result])


def test_recall_is_reported_to_the_depth_that_all_queries_have() -> None:
    """One query has 20 ranks, another 2, a third none: R@5 of the second is not known, the third is a miss."""
    deep = predictions.table(np.zeros((1, 20)), np.arange(20)[None])
    short = predictions.table(np.zeros((1, 2)), np.array([[1, 2]]), np.array([1]))
    table = pl.concat([deep, short])
    truth = make_truth(pairs((0, 3), (1, 1), (2, 0)), make_places(3), 50)
    assert common_depth(table, truth.shared, truth.pool_sizes) == 2
    with pytest.raises(ContractError, match="predictions hold 2 ranks, R@5 needs 5: search again with -k 5"):
        evaluate(table, truth, PROVENANCE, ranks=(1, 5))
    result = evaluate(table, truth, PROVENANCE, ranks=(1, 2), full=True)
    assert (result.recall[1], result.queries, result.unanswered) == (pytest.approx(1 / 3), 3, 1)
    assert result.metrics.depth == 2  # the first query's ranks beyond it count for nothing


def test_a_whole_pool_lacks_no_rank() -> None:
    """Three windows in all, each ranked: a shared pair takes one away, and still nothing is missing."""
    table = predictions.table(np.zeros((2, 3)), np.array([[0, 1, 2], [2, 1, 0]]))
    shared, pools = pairs((0, 0)), np.array([3, 3])
    assert common_depth(table, shared, pools) == 3
    assert common_depth(table, shared, np.array([4, 3])) == 2  # a fourth window of the first query is not ranked


@pytest.mark.parametrize(("policy", "words"), [("leave-out", "left out"), ("miss", "counted as misses")])
def test_conditions_say_what_happens_without_a_positive(policy: str, words: str) -> None:
    result = run(np.array([[0, 1], [1, 0]]), pairs((0, 0)), 2, ranks=(1,), no_positive=policy)
    assert result.conditions.endswith(f"queries without a positive {words}")
    assert result.queries == (1 if policy == "leave-out" else 2)


def test_rescoring_needs_no_search() -> None:
    rows = np.array([[0, 1], [1, 0], [1, 0]])
    narrow, wide = pairs((0, 0), (1, 0)), pairs((0, 0), (1, 0), (1, 1), (2, 1))
    assert run(rows, narrow, 2, ranks=(1,)).recall[1] == 0.5
    assert run(rows, wide, 2, ranks=(1,), radius=50.0).recall[1] == 1.0


def test_refusals() -> None:
    rows = np.array([[0, 1, 2]])
    with pytest.raises(NotEnoughDataError, match="none of 1 queries has a positive"):
        run(rows, pairs(), 3)
    with pytest.raises(ContractError, match="3 ranks, R@20 needs 20: search again with -k 20"):
        run(rows, pairs((0, 0)), 100)
    with pytest.raises(ContractError, match="predictions: column 'database'"):
        run(rows, pairs((0, 0)), 2)
    with pytest.raises(ContractError, match="positives: column 'query'"):
        run(rows, pairs((4, 0)), 3)


def test_cities_each_alone_are_averaged_over_queries() -> None:
    cities = ["a", "a", "a", "b"]
    database = np.array(["a", "a", "b", "b", "b"])
    stored = np.array([0.0, 10.0, 0.0, 10.0, 20.0])
    asked = np.array([1.0, 9.0, 11.0, 19.0])

    def search(queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        apart = np.abs(asked[queries, None] - stored[None, rows])
        order = np.argsort(apart, axis=1)
        return np.take_along_axis(apart, order, 1), rows[order]

    table = predictions.by_city(cities, database.tolist(), search)
    assert table.filter(pl.col("query") < 3)["database"].is_between(0, 1).all()
    assert table.filter(pl.col("query") == 3)["database"].to_list() == [4, 3, 2]
    positives, queries = pairs((0, 0), (1, 0), (2, 1), (3, 4)), make_places(4, city=pl.Series(cities))
    truth = make_truth(positives, queries, 5, pools=np.array([2, 2, 2, 3]), pool="each")
    result = evaluate(table, truth, PROVENANCE, ranks=(1, 5))
    assert result.recall == {1: 0.75, 5: 1.0}
    assert result.cities["a"].recall[1] == pytest.approx(2 / 3)
    assert (result.cities["b"].queries, result.cities["b"].recall[1]) == (1, 1.0)


def test_json_round_trip() -> None:
    result = run(np.array([[0, 1]]), pairs((0, 1)), 2, ranks=(1, 2), heading_max=45.0)
    again = Evaluation.model_validate(json.loads(json.dumps(result.model_dump(mode="json"))))
    assert again == result


def test_table_keeps_protocols_apart() -> None:
    rows = np.array([[0, 1], [1, 0]])
    one = run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2))
    others = [
        run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2), provenance=Provenance("baseline", "test")),
        run(rows, pairs((0, 0)), 2, ranks=(1, 2), radius=5.0),
        run(rows, pairs((0, 0)), 2, ranks=(1, 2), version=2),
    ]
    text = format_table([one, *others], wide=True)
    blocks = text.split("\n\n")
    assert len(blocks) == 3
    assert f"{one.label}: test split, any rule < 25 metres" in blocks[0]
    assert [line.split()[0] for line in blocks[0].splitlines()[1:4]] == ["method", "ours", "baseline"]
    assert "50.0 [" in blocks[0]
    assert "95 % intervals: " in blocks[0]
    assert "queries  left out  database  R@1" in blocks[0]


def test_the_table_fits_eighty_columns_and_says_chance() -> None:
    rows = np.array([[0, 1], [1, 0]])
    provenance = Provenance("a model of a rather long name + PCA 4096", "test", dataset="0a518deece51" * 5)
    one = run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2), provenance=provenance)
    text = format_table([one])
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"{one.label}, dataset 0a518deece51: ")
    words = text.split()
    assert words[words.index("2", words.index("4096:")) :][:2] == ["2", "queries,"]
    assert "chance (a random order):" in text
    assert text.split("order):")[1].split()[:2] == ["50.0", "100"]
    four = one.model_copy(
        update={"recall": dict.fromkeys((1, 5, 10, 20), 1.0), "interval": dict.fromkeys((1, 5, 10, 20), (0.5, 1.0))}
    )
    (line,) = [line for line in format_table([four]).splitlines() if "[50.0" in line]
    assert line.split() == ["100", "[50.0,", "100]"] * 4
    assert len(line) <= 80
    other = one.model_copy(update={"dataset": "1b" * 32})
    assert len(format_table([one, other]).split("\n\n")) == 2  # two datasets, two blocks


def test_chance_is_the_mean_of_random_orders() -> None:
    """Against a literal count over many shuffles, and in closed form for one query."""
    random = np.random.default_rng(0)
    positives = pairs((0, 0), (0, 3), (0, 3), (1, 2))
    pools, counted = np.array([8, 5, 3]), np.array([True, True, False])
    hits = dict.fromkeys((1, 2, 4), 0.0)
    for _ in range(4000):
        for size, answers in ((8, {0, 3}), (5, {2})):
            order = random.permutation(size)
            for n in hits:
                hits[n] += bool(answers & set(order[:n].tolist())) / 8000
    chance = chance_recall(positives, pools, counted, ranks=(1, 2, 4))
    assert chance == pytest.approx(hits, abs=0.02)
    assert chance[1] == pytest.approx((2 / 8 + 1 / 5) / 2)
    assert chance_recall(pairs((0, 0)), np.array([1]), np.array([True]), ranks=(1, 5)) == {1: 1.0, 5: 1.0}


def test_evaluations_without_a_chance_are_stored_as_before() -> None:
    rows = np.array([[0, 1], [1, 0]])
    one = run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2))
    assert one.model_dump(mode="json")["chance"] == {"1": 0.5, "2": 1.0}
    before = one.model_copy(update={"chance": {}})
    assert "chance" not in before.model_dump(mode="json")
    assert "chance" not in format_table([before])


def test_against_drops_no_result() -> None:
    """Two indexes of one model, two runs without an index, and two splits: each has a cell of its own."""
    rows = np.array([[0, 1], [1, 0], [1, 0]])
    hit = [pairs(*((query, int(rows[query, 0])) for query in range(count))) for count in (1, 2, 3)]
    every = {"no_positive": "miss", "ranks": (1,)}
    found = [
        run(rows, hit[0], 2, provenance=Provenance("ours", "test", index="a" * 16), **every),
        run(rows, hit[1], 2, provenance=Provenance("ours", "test", index="b" * 16), **every),
        run(rows, hit[2], 2, provenance=Provenance("ours", "val", index="b" * 16), **every),
        run(rows, hit[0], 2, provenance=Provenance("theirs", "test"), **every),
        run(rows, hit[2], 2, provenance=Provenance("theirs", "test"), **every),
    ]
    lines = format_against(found, "radius").splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["radius", "25", "25"],
        ["protocol", found[0].label, found[0].label],
        ["split", "test", "val"],
    ]
    cells = {line[: line.index("R@1")].strip(): line.split("R@1")[1].split("[")[0].strip() for line in lines[4:]}
    assert cells == {
        "ours [aaaaaaaa]": "33.3",
        "ours [bbbbbbbb]": "66.7",
        "theirs": "33.3",
        "theirs #2": "100.0",
    }
    assert lines[5].count("100.0 [") == 1  # index b under val, beside its test figure
    block = format_table(found[:2])
    assert "ours [aaaaaaaa]" in block
    assert "ours [bbbbbbbb]" in block
    alone = format_table([found[0], found[2]])
    assert "[aaaaaaaa]" not in alone  # another split is another column: the name says enough


def test_csv_columns_carry_their_protocol() -> None:
    rows = np.array([[0, 1], [1, 0]])
    one = run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2))
    other = run(rows, pairs((0, 0), (1, 0)), 2, ranks=(1, 2), version=2)
    assert "r1" in flat_rows([one, one])[0]
    both = flat_rows([one, other])
    assert both[0][f"{one.label} r1"] == one.recall[1]
    assert f"{one.label} r1" not in both[1]
    assert both[1][f"{other.label} r2_low"] == other.interval[2][0]
    assert not {name for row in both for name in row if name.startswith("r1")}
    val = run(rows, pairs((0, 0)), 2, ranks=(1, 2), provenance=Provenance("ours", "val"))
    assert f"{one.label} val r1" in flat_rows([one, val])[1]


def build_index(out: Path, name: str) -> indexer.PlaceIndex:
    block = np.random.default_rng(len(name)).normal(size=(9, 4)).astype(np.float32)
    indexer.build(out, blocks=iter([block]), places=make_places(9), transform=None, inputs={"dataset": name})
    return indexer.open(out)


def test_evaluations_lie_beside_the_versions_and_go_with_them(tmp_path: Path) -> None:
    result = run(np.array([[0, 1]]), pairs((0, 1)), 2, ranks=(1, 2))
    index = build_index(tmp_path / "town", "a")
    before = sorted(index.path.iterdir())
    folder = evaluations_folder(index.path)
    assert record(folder, result) == tmp_path / "town" / "evaluations" / index.id / "recall.json"
    assert json.loads((folder / "recall.json").read_text())["schema_version"] == 1
    assert sorted(index.path.iterdir()) == before
    assert read_recorded(index.path) == [result]
    write_json_atomic(  # as older programs left it: one that was measured anew since, one that was not
        index.path / "recall.json",
        {"evaluations": [result.model_copy(update=change).model_dump(mode="json") for change in OLDER]},
    )
    assert read_recorded(index.path) == [result.model_copy(update=OLDER[1]), result]
    assert record(folder, result.model_copy(update={"queries": 7})).is_file()
    assert [each.queries for each in read_recorded(index.path)] == [1, 7]
    newer = build_index(tmp_path / "town", "bb")  # an evaluated index still takes versions
    check_version(newer.path)
    assert len(entries(tmp_path / "town")) == 2
    record(evaluations_folder(newer.path), result)
    (removed,) = [index.id]
    del index
    assert collect(tmp_path / "town", dry_run=True).removed == (removed,)
    assert folder.is_dir()
    assert collect(tmp_path / "town").removed == (removed,)
    assert not folder.exists()
    assert read_recorded(newer.path) == [result]


OLDER = ({"queries": 99}, {"method": "older"})


def test_recording_at_once_loses_nothing(tmp_path: Path) -> None:
    result = run(np.array([[0, 1]]), pairs((0, 1)), 2, ranks=(1, 2))
    each = [result.model_copy(update={"method": f"model {number}"}) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: record(tmp_path / "new", one), each))
    assert {one.method for one in read_recorded(tmp_path / "new")} == {one.method for one in each}
    (tmp_path / "new" / "recall.json").write_text("{}")
    with pytest.raises(ContractError, match=r"recall\.json: not a list of evaluations"):
        record(tmp_path / "new", result)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        record(tmp_path / "file" / "below", result)


@pytest.mark.parametrize(
    ("depth", "ranks"), [(0, (1,)), (1, (1,)), (4, (1,)), (5, (1, 5)), (20, (1, 5, 10, 20)), (19, (1, 5, 10))]
)
def test_ranks_are_reported_as_far_as_predictions_reach(depth: int, ranks: tuple[int, ...]) -> None:
    assert ranks_within(depth)[: len(ranks)] == ranks
    assert all(rank <= max(depth, 1) for rank in ranks_within(depth))
