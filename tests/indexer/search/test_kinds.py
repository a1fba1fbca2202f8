"""Index kinds: factory rules, results against exact search, rows, refusals, training samples, recorded facts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import indexer
from indexer.pca import fit as pca
from indexer.search import kinds
from indexer.search.approximate import FaissVectors
from indexer.search.faiss_layers import estimate, ladder, set_search
from indexer.search.kinds import KindSpec, cells, create, factory_string, spread_rows, subspaces
from indexer.versions.manifest import read_manifest, read_measured
from seqdata.errors import ContractError, NotEnoughDataError
from tests.support.indexes import make_places

ROWS, SIZE = 1200, 16
FACTORIES = ["IVF8_HNSW8,SQ8", "IVF16,PQ4x4,RFlat", "PQ8x4fs,RFlat", "SQ8", "OPQ4_8,IVF4,PQ4x4,Refine(SQfp16)"]
NAMED = ["flat", "fp16", "ivf", "hnsw", "imi", "pq"]
APPROXIMATE = [*NAMED[2:], *FACTORIES]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(30, SIZE))[rng.integers(0, 30, ROWS)] + 0.3 * rng.normal(size=(ROWS, SIZE))).astype("f4")


def spec(name: str) -> KindSpec:
    return KindSpec(name) if name in kinds.KINDS else KindSpec(factory=name)


def build(out: Any, x: np.ndarray, kind: KindSpec | str, transform: Any = None, **options: Any) -> Any:
    blocks = iter(np.array_split(x, 3))
    places = make_places(len(x))
    return indexer.build(out, blocks=blocks, places=places, transform=transform, inputs={}, kind=kind, **options)


def overlap(found: np.ndarray, exact: np.ndarray) -> float:
    return float((found[:, :, None] == exact[:, None]).any(axis=2).mean())


@pytest.mark.parametrize("name", [*NAMED, *FACTORIES])
def test_every_kind_through_a_version(tmp_path: Path, vectors: Any, name: str) -> None:
    """Built behind a PCA, opened mapped, searched: sorted, whole, as good as its measured recall says."""
    transform = pca.fit(vectors, 8)
    folder = build(tmp_path / "town", vectors, spec(name), transform)
    index, exact = indexer.open(folder), indexer.open(build(tmp_path / "exact", vectors, "flat", transform))
    queries = vectors[::7] + np.float32(0.05)
    distances, rows = index.search(queries, 10)
    best, expected = exact.search(queries, 10)
    assert rows.shape == (len(queries), 10)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(line)) == 10 for line in rows.tolist())
    measured, manifest = read_measured(folder), read_manifest(folder)
    assert (manifest.storage, manifest.seed) == (spec(name).name, 0)
    assert set(measured.seconds) >= {"describe", "write", "build"}
    if name in kinds.EXACT:
        assert (measured.recall is None) == (name == "flat")
        assert overlap(rows, expected) >= 0.98
        return
    assert set(measured.seconds) == {"describe", "write", "train", "add", "measure", "build"}
    parts = sum(seconds for phase, seconds in measured.seconds.items() if phase != "build")
    assert parts <= measured.seconds["build"] + 0.01
    assert measured.queries == 500
    assert measured.recall is not None
    assert overlap(rows, expected) >= measured.recall[10] - 0.06
    assert manifest.factory == (factory_string(name, ROWS, 8) if name in kinds.KINDS else name)
    assert any(
        point["search"] == manifest.search and point["recall"] == measured.recall[10] for point in measured.curve
    )
    assert manifest.threads >= 1
    keeps_vectors = name in ("ivf", "hnsw", "imi") or "RFlat" in name
    if keeps_vectors:
        hit = rows[:, 0] == expected[:, 0]
        np.testing.assert_allclose(distances[hit, 0], best[hit, 0], atol=1e-5)


@pytest.mark.parametrize("name", [*NAMED, *FACTORIES])
def test_search_among_rows(tmp_path: Path, vectors: Any, name: str) -> None:
    """A city alone: k of its rows always come, and kinds that keep vectors find them exactly."""
    index = indexer.open(build(tmp_path / "town", vectors, spec(name)))
    exact = indexer.open(build(tmp_path / "exact", vectors, "flat"))
    queries = vectors[900:960]
    for among in (np.arange(40, 70), np.array([7, 3, 900, 51, 52, 53, 54, 55, 56, 57, 58])):
        rows = index.search(queries, 5, rows=among)[1]
        assert np.isin(rows, among).all()
        assert all(len(set(line)) == 5 for line in rows.tolist())
        if name in ("flat", "ivf", "hnsw", "imi") or "RFlat" in name:
            np.testing.assert_array_equal(rows, exact.search(queries, 5, rows=among)[1])
        assert index.search(queries, 50, rows=among)[1].shape == (60, len(among))
        np.testing.assert_array_equal(index.search(queries, 5, rows=np.tile(among, 2))[1], rows)
    assert index.search(queries, 5, rows=[])[0].shape == (60, 0)


@pytest.mark.parametrize("name", ["ivf", "hnsw", "imi", "pq", "SQ8"])
def test_more_neighbours_than_visited_lists_hold(tmp_path: Path, vectors: Any, name: str) -> None:
    index = indexer.open(build(tmp_path / "town", vectors, spec(name)))
    distances, rows = index.search(vectors[:3], ROWS + 5)
    assert (np.sort(rows, axis=1) == np.arange(ROWS)).all()
    assert (np.diff(distances, axis=1) >= 0).all()


def test_unreachable_rows_stand_last(vectors: Any) -> None:
    """A graph may leave vectors without a link: they come last, at infinity, each once."""
    import faiss

    index = faiss.IndexHNSWFlat(SIZE, 4)
    index.add(vectors[:50])
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[:] = -1
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    distances, rows = FaissVectors(index).nearest(vectors[:2], 5)
    assert rows.shape == (2, 5)
    assert np.isinf(distances[:, -1]).all()
    assert all(len(set(line)) == 5 for line in rows.tolist())
    assert (rows >= 0).all()


def test_refinement_keeps_vectors_after_pca(tmp_path: Path, vectors: Any) -> None:
    import faiss

    folder = build(tmp_path / "town", vectors, KindSpec(factory="IVF16,PQ4x4,RFlat"), pca.fit(vectors, 8))
    outer = faiss.read_index(str(folder / "index.faiss"))
    refine = faiss.downcast_index(faiss.downcast_index(outer.index).refine_index)
    assert (outer.d, refine.d, refine.ntotal) == (SIZE, 8, ROWS)
    for factory in ("PCA8,IVF16,Flat", "PCAR8,PQ4,RFlat"):
        with pytest.raises(ContractError, match="use --pca"):
            KindSpec(factory=factory)


def test_plain_faiss_finds_the_same(tmp_path: Path, vectors: Any) -> None:
    """The file holds the transform, the kind and the chosen search parameters."""
    import faiss

    folder = build(tmp_path / "town", vectors, "ivf", pca.fit(vectors, 8), normalise=True)
    index = faiss.read_index(str(folder / "index.faiss"))
    queries = vectors[:40] + np.float32(0.1)
    assert faiss.extract_index_ivf(index).nprobe == read_manifest(folder).search["nprobe"]
    assert overlap(index.search(queries, 5)[1], indexer.open(folder).search(queries, 5)[1]) == 1.0


def test_imi_refuses_inner_product() -> None:
    """FAISS has IMI by L2 only; every search here is by L2."""
    import faiss

    with pytest.raises(RuntimeError, match="inner prod"):
        faiss.index_factory(8, "IMI2x4,Flat", faiss.METRIC_INNER_PRODUCT)
    assert create(factory_string("imi", 1000, 8), 8).metric_type == faiss.METRIC_L2
    with pytest.raises(ContractError, match="halved"):
        factory_string("imi", 1000, 7)


@pytest.mark.parametrize(
    "factory", ["Nonsense", "IVF16", "PQ3", "IVF0,Flat", "PQ0", "IDMap,Flat", "HNSW0", "", "IVF-4,Flat"]
)
def test_senseless_factories_are_refused(tmp_path: Path, vectors: Any, factory: str) -> None:
    """By name, in this process; some of them end the process in FAISS."""
    with pytest.raises((ContractError, NotEnoughDataError)):
        build(tmp_path / "town", vectors[:300], KindSpec(factory=factory))
    assert not any((tmp_path / "town").glob("versions/*"))


def test_specs() -> None:
    for wrong in ({"kind": "lsh"}, {"recall_target": 0}, {"recall_target": 1.1}, {"kind": "auto", "memory": 0}):
        with pytest.raises(ContractError, match="--"):
            KindSpec(**wrong)
    assert KindSpec().settings() == {}
    assert KindSpec("fp16", seed=3).settings() == {"kind": "fp16"}
    for other in ({"kind": "ivf"}, {"kind": "flat"}, {"kind": "auto", "factory": "SQ8"}):
        with pytest.raises(ContractError, match="--memory limits what --kind auto may choose"):
            KindSpec(memory=9, **other)
    assert KindSpec("ivf").settings() == {"kind": "ivf", "recall_target": 0.99, "seed": 0}
    assert KindSpec("auto", memory=9).settings()["memory"] == 9
    assert KindSpec(factory="SQ8").settings()["factory"] == "SQ8"


def test_kind_is_part_of_the_identity(tmp_path: Path, vectors: Any) -> None:
    folders = {build(tmp_path / "town", vectors, name) for name in ("flat", "fp16", "ivf", KindSpec("ivf", seed=1))}
    assert len(folders) == 4
    assert build(tmp_path / "town", vectors, "ivf") in folders
    assert indexer.find_version(tmp_path / "town", {}, kind="ivf") in folders
    assert indexer.find_version(tmp_path / "town", {}, kind="hnsw") is None


def test_factory_rules() -> None:
    assert factory_string("ivf", 1_000_000, 256) == "IVF2048,Flat"
    assert factory_string("imi", 1_000_000, 256) == "IMI2x6,Flat"
    assert factory_string("pq", 1, 4096) == "PQ1024x8"
    assert factory_string("hnsw", 5, 3) == "HNSW32"
    assert [cells(rows) for rows in (1, 38, 78, 400, 10_000)] == [1, 1, 2, 8, 256]
    assert [subspaces(size) for size in (1, 3, 7, 8, 30, 4096)] == [1, 1, 1, 2, 6, 1024]


@pytest.mark.parametrize("rows", [1, 2, 5, 11, 60])
@pytest.mark.parametrize("name", ["ivf", "hnsw", "auto", "fp16"])
def test_tiny_databases(tmp_path: Path, vectors: Any, rows: int, name: str) -> None:
    index = indexer.open(build(tmp_path / "town", vectors[:rows], name))
    assert index.search(vectors[:rows], 1)[1][:, 0].tolist() == list(range(rows)) or name == "ivf"


def test_too_small_to_train_is_named(tmp_path: Path, vectors: Any) -> None:
    with pytest.raises(NotEnoughDataError, match="100 vectors cannot train 256 centres; use --kind flat"):
        build(tmp_path / "town", vectors[:100], "pq")


@pytest.mark.parametrize(("total", "count"), [(1000, 10), (10, 10), (7, 30), (1, 1), (100, 99)])
def test_samples_are_spread_over_the_whole_set(total: int, count: int) -> None:
    rows = spread_rows(total, count, 0)
    assert len(rows) == min(total, count)
    assert (np.diff(rows) > 0).all()
    assert (rows >= 0).all() and (rows < total).all()
    assert (np.abs(rows - np.linspace(0, total, len(rows), endpoint=False)) <= total / len(rows) + 1).all()
    assert (rows == spread_rows(total, count, 0)).all()
    if total > 10 * count:
        assert (rows != spread_rows(total, count, 1)).any()


def test_training_sees_every_drive(vectors: Any) -> None:
    """Drives follow each other and differ: centres trained on the first rows alone would miss all but one."""
    drives = np.concatenate([vectors + 100 * drive for drive in range(40)]).astype(np.float32)
    index = create("IVF64,Flat", SIZE)
    used = kinds.train(index, drives, 0, "ivf")
    assert used == 256 * kinds.SAMPLE_A_CELL < len(drives) // 2
    centres = np.stack([index.quantizer.reconstruct(number) for number in range(64)])
    assert len(set(np.round(centres.mean(axis=1) / 100).astype(int))) >= 36


def test_ladders_and_search_parameters() -> None:
    assert ladder(create("IVF16,Flat", 8)) == [{"nprobe": 2**power} for power in range(5)]
    assert [step["nprobe"] for step in ladder(create("IVF5,Flat", 8))] == [1, 2, 4, 5]
    assert ladder(create("IVF1,Flat", 8)) == [{"nprobe": 1}]
    assert ladder(create("HNSW8", 8))[0] == {"efSearch": 16}
    assert ladder(create("IVF2,PQ4x4,RFlat", 8))[1] == {"nprobe": 2, "k_factor": 4}
    assert ladder(create("PQ4x4", 8)) == [{}]
    index = create("IVF16,Flat", 8)
    set_search(index, {"nprobe": 7})
    assert index.nprobe == 7
    with pytest.raises(ContractError, match="efSearch"):
        set_search(index, {"efSearch": 7})


@pytest.mark.parametrize(
    "factory", ["Flat", "SQfp16", "IVF16,Flat", "IMI2x4,Flat", "HNSW16", "PQ4x8", "IVF16,PQ4x8,RFlat"]
)
def test_estimated_bytes_are_those_written(vectors: Any, factory: str) -> None:
    import faiss

    big = np.tile(vectors, (10, 1))
    index = create(factory, SIZE)
    kinds.train(index, big, 0, factory)
    index.add(big)
    assert estimate(create(factory, SIZE), len(big)) == pytest.approx(faiss.serialize_index(index).size, rel=0.1)


@pytest.mark.parametrize(
    "factory", ["PQ2x8", "IVF4,PQ2x8", "OPQ2,PQ2x8", "OPQ2,IVF4,PQ2x8", "IVF4,PQ2+8", "IMI2x3,Flat"]
)
def test_training_prints_no_notes_of_faiss(factory: str, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    index = kinds.create(factory, 8)
    assert kinds.train(index, vectors, 0, factory) > 0
    index.add(vectors)
    assert capfd.readouterr() == ("", "")


def test_every_kind_says_what_others_need_of_it() -> None:
    assert set(kinds.MERGEABLE) == {"flat", "fp16", "ivf", "imi"}
    assert kinds.EXACT == ("flat", "fp16")
    for name, kind in kinds.KINDS.items():
        if kind.factory is None:
            with pytest.raises(ContractError, match="measured"):
                factory_string(name, 1000, 8)
        else:
            assert estimate(kinds.create(factory_string(name, 1000, 8), 8), 1000) > 1000


def test_a_factory_that_faiss_refuses_is_told_without_its_source() -> None:
    with pytest.raises(ContractError, match=r"of 16 values \(could not parse index string garbage\)$"):
        kinds.create("garbage", 16, check=True)
