"""`auto`: recall against a literal count, no query matches itself, the cheapest within target and memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import indexer
from indexer.pca import fit as pca
from indexer.pca.project import project
from indexer.search.approximate import FaissVectors
from indexer.search.exact import ExactVectors
from indexer.search.kinds import KindSpec
from indexer.selection import choose as auto
from indexer.selection import held_out as held
from indexer.selection.choose import Point, choose, measure
from indexer.selection.held_out import NEVER, HeldOut, hold_out
from indexer.versions.manifest import read_manifest, read_measured
from seqdata.errors import ContractError, NotEnoughDataError
from tests.support.indexes import make_places


def clustered(rows: int, size: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, size))[rng.integers(0, 40, rows)]
    return (centres + 0.3 * rng.normal(size=(rows, size))).astype(np.float32)


class Fixed:
    """A searcher that answers what it is told, for all held-out queries or for one."""

    def __init__(self, queries: np.ndarray, rows: np.ndarray) -> None:
        self.answers = {query.tobytes(): line for query, line in zip(queries, rows, strict=True)}

    def nearest(self, queries: Any, k: Any, rows: Any = None) -> Any:
        found = np.stack([self.answers[query.tobytes()][:k] for query in queries])
        return np.zeros(found.shape, np.float32), found


def others(x: np.ndarray, held: HeldOut) -> np.ndarray:
    """All rows by rising distance from each query, its own row last; each distance from its difference."""
    apart = np.linalg.norm(held.queries[:, None].astype(np.float64) - x[None], axis=2)
    own = held.rows >= 0
    apart[np.flatnonzero(own), held.rows[own]] = np.inf
    return np.argsort(apart, axis=1, kind="stable")


def test_ten_rows_leave_no_query_to_judge_by() -> None:
    few = clustered(10)
    held = hold_out(few, ExactVectors(few, "cpu"), 0)
    assert (len(held.queries), len(held.rows), len(held.near)) == (0, 0, 0)


def test_recall_is_a_literal_count() -> None:
    """Half of the answers replaced by the farthest rows: recall by counting rows, the query itself left out."""
    x = clustered(400)
    found = hold_out(x, ExactVectors(x, "cpu"), 0)
    order = others(x, found)
    near = np.sort(found.near, axis=1)
    assert (near[:, :-10] == NEVER).all()
    np.testing.assert_array_equal(near[:, -10:], np.sort(order[:, :10], axis=1))
    answers = np.hstack([found.rows[:, None], order[:, :5], order[:, -6:-1]])
    point = measure(Fixed(found.queries, answers), found, Point("a", "a", {}, 0))
    assert point.recall == pytest.approx(0.5)
    assert point.one > 0 and point.batch > 0
    without_itself = np.hstack([order[:, :10], order[:, -2:-1]])
    assert measure(Fixed(found.queries, without_itself), found, Point("a", "a", {}, 0)).recall == 1.0


def test_given_queries_are_no_rows_and_all_their_neighbours_count() -> None:
    """Also one that lies exactly on a database vector: that row is another window, and its answer."""
    x = clustered(400)
    asked = np.vstack([clustered(30, seed=1), x[:5]])
    found = hold_out(x, ExactVectors(x, "cpu"), 0, asked, "val queries")
    assert (found.queries_of, found.rows.tolist()) == ("val queries", [-1] * 35)
    order = others(x, found)
    assert order[30:, 0].tolist() == list(range(5))
    assert found.recall(order[:, :10]) == 1.0
    assert found.recall(order[:, 1:11]) == pytest.approx(0.9)


def test_a_query_never_matches_itself() -> None:
    """Duplicates are other places and count; the row itself does not."""
    x = np.repeat(clustered(60), 3, axis=0)
    found = hold_out(x, ExactVectors(x, "cpu"), 0)
    assert len(found.queries) == 180
    assert (found.near != found.rows[:, None]).all()
    same = (found.near // 3 == found.rows[:, None] // 3) & (found.near >= 0)
    assert (same.sum(axis=1) == 2).all()
    counted = (found.near >= 0).sum(axis=1)
    assert (counted == 11).all(), "2 of its own place, 3 of three others: the tenth is as near as the eleventh"
    order = others(x, found)
    assert found.recall(np.hstack([order[:, :8], order[:, 9:12]])) == 1.0, "any equal one is as good"


def test_queries_whose_tenth_is_one_of_too_many_equals_are_left_out() -> None:
    """Forty pictures of one tunnel: which ten of them are the nearest is nobody's to say."""
    x = clustered(300)
    x[100:140] = x[100]
    found = hold_out(x, ExactVectors(x, "cpu"), 0)
    assert 240 < len(found.queries) <= 260, "and a few that lie beside the tunnel"
    assert not np.isin(found.rows, np.arange(100, 140)).any()
    same = np.ones((50, 4), np.float32)
    empty = hold_out(same, ExactVectors(same, "cpu"), 0)
    assert len(empty.queries) == 0
    assert choose(KindSpec("hnsw"), same).point.note == auto.UNMEASURED
    assert choose(KindSpec("auto"), same).point.kind == "flat"


def test_held_out_queries_are_spread() -> None:
    x = clustered(5000)
    found = hold_out(x, ExactVectors(x, "cpu"), 0)
    assert len(found.rows) == held.QUERIES
    assert (np.diff(found.rows) <= 2 * 5000 / held.QUERIES).all()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_parameters_are_chosen_by_the_given_queries(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are projected as the database is, their recall is that of a literal count, and whose they are is told."""
    x, asked = clustered(3000), clustered(80, seed=9) * np.float32(1.4)
    transform = pca.fit(x, 6)
    folder = indexer.build(
        tmp_path / "town", blocks=iter([x]), places=make_places(3000), transform=transform, inputs={}, normalise=True,
        kind=kind, queries=asked, queries_of="val queries",
    )  # fmt: skip
    measured = read_measured(folder)
    assert (measured.queries, measured.queries_of, measured.truth) == (80, "val queries", "float32 vectors")
    stored, q = project(x, transform, True), project(asked, transform, True)
    order = np.argsort(np.linalg.norm(q[:, None].astype(np.float64) - stored[None], axis=2), axis=1)[:, :10]
    found = indexer.open(folder).search(asked, 10)[1]
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(order.tolist(), found.tolist(), strict=True)])
    assert measured.recall[10] == pytest.approx(share)
    with pytest.raises(ContractError, match="descriptors of shape"):
        indexer.build(
            tmp_path / "other", blocks=iter([x]), places=make_places(3000), transform=transform, inputs={},
            kind=kind, queries=asked[:, :5],
        )  # fmt: skip


def test_small_database_ends_at_exact(tmp_path: Path) -> None:
    x = clustered(300)
    folder = indexer.build(
        tmp_path / "a", blocks=iter([x]), places=make_places(300), transform=None, inputs={}, kind="auto"
    )
    manifest, measured = read_manifest(folder), read_measured(folder)
    assert (manifest.storage, manifest.factory, manifest.search) == ("flat", "Flat", {})
    assert measured.recall is None
    assert (measured.queries, measured.queries_of) == (0, None)
    assert {point["kind"] for point in measured.curve} == {"flat", "fp16"}


def test_small_database_within_memory() -> None:
    x = clustered(300)
    assert choose(KindSpec("auto", memory=x.nbytes // 2), x).point.kind == "fp16"
    with pytest.raises(NotEnoughDataError, match="raise --memory or lower --recall-target"):
        choose(KindSpec("auto", memory=100), x)


def test_half_precision_that_auto_chose_is_measured(tmp_path: Path) -> None:
    x = clustered(300)
    folder = indexer.build(
        tmp_path / "a", blocks=iter([x]), places=make_places(300), transform=None, inputs={},
        kind=KindSpec("auto", memory=x.nbytes // 2),
    )  # fmt: skip
    measured = read_measured(folder)
    assert read_manifest(folder).storage == "fp16"
    assert measured.recall is not None and 0.99 <= measured.recall[10] <= 1
    assert [point["recall"] for point in measured.curve] == [measured.recall[10]]


def points(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, tuple[float, float]], spec: KindSpec, rows: int = 2000
) -> auto.Selection:
    """`auto` over real indexes with recall and time told by factory prefix."""

    def told(searcher: Any, queries: Any, point: Any) -> Any:
        recall, one = next(value for name, value in times.items() if point.factory.startswith(name))
        return auto.replace(point, recall=recall, one=one, batch=one, threads=1)

    monkeypatch.setattr(auto, "measure", told)
    monkeypatch.setattr(auto, "EXACT_ROWS", 100)
    return choose(spec, clustered(rows))


EVEN = {"Flat": (1.0, 1.0), "SQfp16": (1.0, 1.5)}


def test_fastest_that_reaches_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {**EVEN, "IVF": (0.995, 0.3), "HNSW": (0.999, 0.1), "IMI": (0.97, 0.01)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert (chosen.point.kind, chosen.point.factory) == ("hnsw", "HNSW32")
    assert chosen.index is not None and chosen.index.ntotal == 2000
    assert len([point for point in chosen.curve if point.kind == "imi"]) > 1
    assert chosen.facts()["recall"] == {10: 0.999}


def test_not_worth_its_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Barely faster than exact is no reason to miss neighbours."""
    times = {**EVEN, "IVF": (0.995, 0.6), "HNSW": (0.999, 0.55), "IMI": (0.999, 0.9)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert (chosen.point.kind, chosen.index) == ("flat", None)


def test_memory_and_smaller_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is not built; smaller codes are tried only when nothing larger is left."""
    rows, size = 2000, 16
    times = {
        **EVEN,
        "IVF32,SQ8": (0.98, 0.2),
        "IVF": (1.0, 0.1),
        "HNSW": (1.0, 0.1),
        "PQ4x8,": (0.992, 0.4),
        "PQ": (0.5, 0.1),
    }
    chosen = points(monkeypatch, times, KindSpec("auto", memory=rows * size * 2 - 1))
    assert chosen.point.factory == "PQ4x8,Refine(SQ8)"
    skipped = {point.factory for point in chosen.curve if point.note == "beyond the memory limit"}
    assert {"IVF32,Flat", "HNSW32", "IVF32,SQfp16"} <= skipped
    with pytest.raises(NotEnoughDataError, match=r"reaches recall 0[.]999"):
        points(monkeypatch, times, KindSpec("auto", memory=rows * size * 2 - 1, recall_target=0.999))


def test_large_graphs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "GRAPH_ROWS", 1000)
    times = {**EVEN, "IVF": (0.995, 0.3), "HNSW": (1.0, 0.0), "IMI": (0.97, 0.01)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert chosen.point.kind == "ivf"
    assert any("graph" in (point.note or "") for point in chosen.curve)


def test_missed_target_of_a_named_kind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose(KindSpec("pq", recall_target=1.0), clustered(600))
    assert "below the target 1.000" in caplog.text
    assert chosen.point.recall < 1


def test_really_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any stand-in: the version holds the curve, and recall reaches the target."""
    monkeypatch.setattr(auto, "EXACT_ROWS", 1000)
    x = clustered(3000, 32)
    folder = indexer.build(
        tmp_path / "a", blocks=iter([x]), places=make_places(3000), transform=None, inputs={}, kind="auto"
    )
    measured = read_measured(folder)
    assert measured.recall is not None and measured.recall[10] >= 0.99
    assert {point["kind"] for point in measured.curve} == {"flat", "fp16", "ivf", "hnsw", "imi"}
    tried = [point for point in measured.curve if point["note"] is None]
    assert all(point["one"] > 0 and point["threads"] >= 1 for point in tried)
    assert {point["kind"] for point in measured.curve if point["note"] is not None} == {"fp16"}
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("own", [True, False])
def test_it_is_said_when_parameters_are_chosen_on_database_rows(own: bool, caplog: pytest.LogCaptureFixture) -> None:
    vectors = np.random.default_rng(0).normal(size=(800, 8)).astype(np.float32)
    queries = None if own else np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    queries_of = {} if own else {"queries_of": "other drives"}
    chosen = choose(KindSpec("ivf", recall_target=0.1), vectors, queries, **queries_of)
    assert chosen.facts()["queries_of"] == ("database rows" if own else "other drives")
    assert ("chosen on rows of the database" in caplog.text) == own


def test_settings_are_tried_until_one_reaches_the_target_exactly() -> None:
    x = clustered(2000)
    chosen = choose(KindSpec("ivf", recall_target=1.0), x)
    assert chosen.point.recall == 1.0
    assert [point.recall == 1.0 for point in chosen.curve] == [False] * (len(chosen.curve) - 1) + [True]
    assert len(chosen.curve) < len(list(auto.ladder(chosen.index)))


def test_the_cheapest_point_is_the_fastest_that_reaches_the_target() -> None:
    measured = [
        Point("ivf", "a", {}, 0, recall=0.99, one=2.0), Point("ivf", "b", {}, 0, recall=0.995, one=1.0),
        Point("ivf", "c", {}, 0, recall=0.98, one=0.5), Point("ivf", "d", {}, 0, recall=1.0, one=3.0),
    ]  # fmt: skip
    cheapest = auto._cheapest(measured, KindSpec("auto", recall_target=0.99))
    assert cheapest is not None and cheapest.factory == "b"
    assert auto._cheapest(measured[2:3], KindSpec("auto", recall_target=0.99)) is None


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "auto"])
def test_a_target_reached_on_database_rows_is_missed_by_queries_of_another_day(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of one drive are each other's nearest; another day's lie aside. Given as queries, the target holds."""
    monkeypatch.setattr(auto, "EXACT_ROWS", 100)
    monkeypatch.setattr(auto, "GAIN", 0.0)  # whatever the times are, an approximate index is chosen
    generator = np.random.default_rng(0)
    drive = np.cumsum(generator.normal(size=(3000, 32)), axis=0).astype(np.float32)
    days = drive[::10] + 12 * generator.normal(size=(300, 32)).astype(np.float32)
    real = hold_out(drive, ExactVectors(drive, "cpu"), 0, days, "another day")

    def recall(chosen: auto.Selection) -> float:
        assert chosen.index is not None
        return real.recall(FaissVectors(chosen.index).nearest(real.queries, real.k)[1])

    on_rows = choose(KindSpec(kind, recall_target=0.99), drive)
    assert on_rows.point.recall is not None and on_rows.point.recall >= 0.99
    assert recall(on_rows) < 0.985
    assert on_rows.facts()["queries_of"] == "database rows"
    assert "chosen on rows of the database" in caplog.text
    caplog.clear()
    on_queries = choose(KindSpec(kind, recall_target=0.99), drive, days, "another day")
    assert recall(on_queries) == on_queries.point.recall >= 0.99
    assert "rows of the database" not in caplog.text


def test_the_best_that_was_tried_is_named_where_nothing_reaches_the_target() -> None:
    tried = [Point("pq", "a", {}, 0, recall=0.5), Point("pq", "b", {}, 0, recall=0.9), Point("pq", "c", {}, 0)]
    spec = KindSpec("auto", recall_target=0.99, memory=1)
    assert "best: b 0.900" in str(auto._out_of_reach(spec, tried))
    assert "none fits into it" in str(auto._out_of_reach(spec, tried[2:]))


def test_float16_is_measured_on_float16() -> None:
    """Values that differ in the fourth digit: float16 cannot tell the nearest ten."""
    x = (1 + 1e-4 * np.random.default_rng(0).normal(size=(300, 4))).astype(np.float32)
    trial = auto._Trial(KindSpec("auto"), x, hold_out(x, ExactVectors(x, "cpu"), 0))
    assert trial.exact(Point("flat", "Flat", {}, 0)).recall == 1.0
    halved = trial.exact(Point("fp16", "SQfp16", {}, 0)).recall
    assert halved is not None and halved < 0.9
