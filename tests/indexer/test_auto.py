"""`auto`: recall against a literal count, no query matches itself, the cheapest within target and memory."""

import numpy as np
import pytest

import indexer
from indexer import auto
from indexer.auto import Point, choose, hold_out, measure
from indexer.exact import ExactVectors
from indexer.kinds import KindSpec
from indexer.manifest import read_manifest, read_measured
from seqdata.errors import NotEnoughDataError
from tests.indexer.helpers import make_places


def clustered(rows: int, size: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, size))[rng.integers(0, 40, rows)]
    return (centres + 0.3 * rng.normal(size=(rows, size))).astype(np.float32)


class Fixed:
    """A searcher that answers what it is told, for all held-out queries or for one."""

    def __init__(self, queries: np.ndarray, rows: np.ndarray) -> None:
        self.answers = {query.tobytes(): line for query, line in zip(queries, rows, strict=True)}

    def nearest(self, queries, k, rows=None):
        found = np.stack([self.answers[query.tobytes()][:k] for query in queries])
        return np.zeros(found.shape, np.float32), found


def test_recall_is_a_literal_count() -> None:
    """Half of the answers replaced by the farthest rows: recall by counting rows, the query itself left out."""
    x = clustered(400)
    held = hold_out(x, ExactVectors(x, "cpu"), 0)
    apart = np.linalg.norm(held.queries[:, None].astype(np.float64) - x[None], axis=2)
    apart[np.arange(len(held.rows)), held.rows] = np.inf
    order = np.argsort(apart, axis=1)
    np.testing.assert_allclose(held.limit[:, 0], np.sort(apart, axis=1)[:, 9], rtol=1e-5)
    answers = np.hstack([held.rows[:, None], order[:, :5], order[:, -6:-1]])
    point = measure(Fixed(held.queries, answers), held, x, Point("a", "a", {}, 0))
    assert point.recall == pytest.approx(0.5)
    assert point.one > 0 and point.batch > 0
    without_itself = np.hstack([order[:, :10], order[:, -2:-1]])
    assert measure(Fixed(held.queries, without_itself), held, x, Point("a", "a", {}, 0)).recall == 1.0


def test_a_query_never_matches_itself() -> None:
    """Duplicates are other places and count; the row itself does not."""
    x = np.repeat(clustered(60), 3, axis=0)
    held = hold_out(x, ExactVectors(x, "cpu"), 0)
    others = auto._without(ExactVectors(x, "cpu").nearest(held.queries, 11)[1], held.rows)
    assert (others != held.rows[:, None]).all()
    assert others.shape == (len(held.rows), 10)
    same = (others // 3 == held.rows[:, None] // 3).sum(axis=1)
    assert (same == 2).all()


def test_held_out_queries_are_spread() -> None:
    x = clustered(5000)
    held = hold_out(x, ExactVectors(x, "cpu"), 0)
    assert len(held.rows) == auto.QUERIES
    assert (np.diff(held.rows) <= 2 * 5000 / auto.QUERIES).all()


def test_small_database_ends_at_exact(tmp_path) -> None:
    x = clustered(300)
    folder = indexer.build(
        tmp_path / "a", blocks=iter([x]), places=make_places(300), transform=None, inputs={}, kind="auto"
    )
    manifest, measured = read_manifest(folder), read_measured(folder)
    assert (manifest.storage, manifest.factory, manifest.search) == ("flat", "Flat", {})
    assert measured.recall is None
    assert {point["kind"] for point in measured.curve} == {"flat", "fp16"}


def test_small_database_within_memory() -> None:
    x = clustered(300)
    assert choose(KindSpec("auto", memory=x.nbytes // 2), x).point.kind == "fp16"
    with pytest.raises(NotEnoughDataError, match="raise --memory or lower --recall-target"):
        choose(KindSpec("auto", memory=100), x)


def points(monkeypatch, times: dict[str, tuple[float, float]], spec: KindSpec, rows: int = 2000) -> auto.Chosen:
    """`auto` over real indexes with recall and time told by factory prefix."""

    def told(searcher, held, vectors, point):
        recall, one = next(value for name, value in times.items() if point.factory.startswith(name))
        return auto.replace(point, recall=recall, one=one, batch=one, threads=1)

    monkeypatch.setattr(auto, "measure", told)
    monkeypatch.setattr(auto, "EXACT_ROWS", 100)
    return choose(spec, clustered(rows))


EVEN = {"Flat": (1.0, 1.0), "SQfp16": (1.0, 1.5)}


def test_fastest_that_reaches_the_target(monkeypatch) -> None:
    times = {**EVEN, "IVF": (0.995, 0.3), "HNSW": (0.999, 0.1), "IMI": (0.97, 0.01)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert (chosen.point.kind, chosen.point.factory) == ("hnsw", "HNSW32")
    assert chosen.index is not None and chosen.index.ntotal == 2000
    assert len([point for point in chosen.curve if point.kind == "imi"]) > 1
    assert chosen.facts()["recall"] == {10: 0.999}


def test_not_worth_its_misses(monkeypatch) -> None:
    """Barely faster than exact is no reason to miss neighbours."""
    times = {**EVEN, "IVF": (0.995, 0.6), "HNSW": (0.999, 0.55), "IMI": (0.999, 0.9)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert (chosen.point.kind, chosen.index) == ("flat", None)


def test_memory_and_smaller_codes(monkeypatch) -> None:
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


def test_large_graphs_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(auto, "GRAPH_ROWS", 1000)
    times = {**EVEN, "IVF": (0.995, 0.3), "HNSW": (1.0, 0.0), "IMI": (0.97, 0.01)}
    chosen = points(monkeypatch, times, KindSpec("auto"))
    assert chosen.point.kind == "ivf"
    assert any("graph" in (point.note or "") for point in chosen.curve)


def test_missed_target_of_a_named_kind_is_a_warning(caplog) -> None:
    chosen = choose(KindSpec("pq", recall_target=1.0), clustered(600))
    assert "below the target 1.000" in caplog.text
    assert chosen.point.recall < 1


def test_really_measured(tmp_path, monkeypatch) -> None:
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
