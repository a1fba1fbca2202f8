"""Exact search: engines against a literal scan, near ties, float16, files that FAISS reads and that are not copied."""

import functools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import indexer
from indexer.pca import fit as pca
from indexer.search import engines, gpu_engines, pools
from indexer.search import flat_file as flat
from indexer.search.engines import NumpyEngine, widen
from indexer.search.exact import ExactVectors, choose_engine
from indexer.search.kinds import KindSpec, spread_rows
from indexer.versions.manifest import read_measured
from seqdata.errors import ContractError, MissingDependencyError
from tests.support.indexes import make_places


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def faiss_gpu() -> bool:
    import faiss

    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def torch_cpu(vectors: np.ndarray) -> pools.Engine:
    return gpu_engines.TorchEngine(vectors, "cpu")


ENGINES = [
    pytest.param(NumpyEngine, id="cpu"),
    pytest.param(torch_cpu, id="torch"),
    pytest.param(gpu_engines.cuda_engine, id="cuda", marks=(pytest.mark.card, pytest.mark.skipif("not cuda()"))),
    pytest.param(
        gpu_engines.FaissGpuEngine, id="faiss-gpu", marks=(pytest.mark.card, pytest.mark.skipif("not faiss_gpu()"))
    ),
]
TYPES = [np.float32, np.float16]


def literal(vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every distance from its difference; the k least by (distance, row)."""
    found, apart = [], []
    for query in queries:
        difference = vectors[rows].astype(np.float32) - query
        distances = np.sqrt(np.einsum("nd,nd->n", difference, difference))
        order = np.lexsort((rows, distances))[:k]
        found.append(rows[order])
        apart.append(distances[order])
    return np.array(apart), np.array(found)


def check(engine: pools.Engine, vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None) -> None:
    among = np.arange(len(vectors)) if rows is None else rows
    expected, expected_rows = literal(vectors, queries, k, among)
    distances, found = ExactVectors(vectors, engine).nearest(queries, k, rows)
    np.testing.assert_array_equal(found, expected_rows)
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("count", "size", "queries", "k"), [(3000, 17, 30, 10), (50, 8, 3, 60), (5000, 4, 600, 3)])
def test_equals_a_literal_scan(engine: Any, dtype: Any, count: int, size: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, size)).astype(dtype)
    asked = rng.standard_normal((queries, size)).astype(np.float32)
    for rows in (None, np.arange(5, count // 2), rng.permutation(count)[: count // 3]):
        check(engine(vectors), vectors, asked, k, rows)


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_and_near_ties_are_settled(engine: Any) -> None:
    """More equal vectors than candidates, far from the origin: the product alone cannot tell them apart."""
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((400, 24)) * 1e-3 + 30).astype(np.float32)
    vectors[100:160] = vectors[7]
    queries = vectors[[7, 3, 250]] + np.float32(1e-4)
    check(engine(vectors), vectors, queries, 12, None)
    check(engine(vectors), vectors, vectors[[7]], 12, np.arange(50, 300))


def test_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several products, several runs of queries, columns that grow fourfold, float16 widened in pieces."""
    for name, value in (
        ("SCORE_VALUES", 640),
        ("WIDE_VALUES", 70),
        ("WIDEN_VALUES", 20),
        ("QUERIES", 4),
        ("FIRST_COLUMNS", 16),
    ):
        monkeypatch.setattr(engines, name, value)
    monkeypatch.setattr(gpu_engines, "SCORE_VALUES", 200)
    monkeypatch.setattr(gpu_engines, "COPY_VALUES", 200)
    monkeypatch.setattr("indexer.search.exact.REFINE_VALUES", 30)
    rng = np.random.default_rng(2)
    for dtype in TYPES:
        vectors = rng.standard_normal((500, 7)).astype(dtype)
        for engine in (NumpyEngine(vectors), torch_cpu(vectors)):
            check(engine, vectors, rng.standard_normal((11, 7)).astype(np.float32), 6, None)
            check(engine, vectors, rng.standard_normal((11, 7)).astype(np.float32), 6, rng.permutation(500)[:90])


def test_engine_answers_do_not_depend_on_what_was_asked_before() -> None:
    """Norms are kept as they are needed: a search among rows first, then the whole."""
    vectors = np.random.default_rng(3).standard_normal((300, 9)).astype(np.float32)
    engine = NumpyEngine(vectors)
    check(engine, vectors, vectors[:4], 5, np.arange(100, 140))
    check(engine, vectors, vectors[:4], 5, np.array([299, 5, 17]))
    check(engine, vectors, vectors[:4], 5, None)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_widen_is_the_conversion(values: list[float]) -> None:
    """Zeros of both signs and subnormal numbers too."""
    half = np.array([values, values[::-1]], np.float16)
    wide = widen(half)
    np.testing.assert_array_equal(wide.view(np.uint32), half.astype(np.float32).view(np.uint32))


def test_absent_devices_are_named() -> None:
    vectors = np.zeros((2, 2), np.float32)
    if not cuda():
        with pytest.raises(MissingDependencyError, match="CUDA"):
            choose_engine(vectors, "cuda")
    if not faiss_gpu():
        with pytest.raises(MissingDependencyError, match="faiss-gpu"):
            choose_engine(vectors, "faiss-gpu")
    assert isinstance(choose_engine(vectors, "cpu"), NumpyEngine)


def build(out: Any, kind: str, with_pca: bool, normalise: bool) -> Any:
    x = np.random.default_rng(4).standard_normal((200, 20)).astype(np.float32)
    transform = pca.fit(x, 7) if with_pca else None
    return x, indexer.build(
        out, blocks=iter([x[:90], x[90:]]), places=make_places(200), transform=transform, inputs={},
        normalise=normalise, kind=kind,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@pytest.mark.parametrize("with_pca", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_streamed_file_is_faiss_own(tmp_path: Path, kind: str, with_pca: bool, normalise: bool) -> None:
    """Plain FAISS finds the same by the file alone, and wrote the same bytes but for wrappers that align them."""
    import faiss

    x, folder = build(tmp_path / "town", kind, with_pca, normalise)
    index = faiss.read_index(str(folder / "index.faiss"))
    squared, rows = index.search(x[:9] + np.float32(0.1), 4)
    distances, ours = indexer.open(folder).search(x[:9] + np.float32(0.1), 4)
    np.testing.assert_array_equal(rows, ours)
    np.testing.assert_allclose(np.sqrt(squared), distances, atol=2e-3)
    rewritten = faiss.serialize_index(index).tobytes()
    assert (folder / "index.faiss").read_bytes() == rewritten


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@pytest.mark.parametrize("with_pca", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_mapped_vectors_are_aligned_and_not_read(tmp_path: Path, kind: str, with_pca: bool, normalise: bool) -> None:
    _, folder = build(tmp_path / "town", kind, with_pca, normalise)
    size = 7 if with_pca else 20
    mapped = flat.map_exact(folder / "index.faiss", 200, size, 20, kind)
    assert mapped.flags.aligned
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == (np.float32 if kind == "flat" else np.float16)


def test_fp16_is_half_and_finds_what_exact_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2000, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    opened = []
    for kind in ("flat", "fp16"):
        folder = indexer.build(
            tmp_path / "town", blocks=iter([x]), places=make_places(2000), transform=None, inputs={}, kind=kind
        )
        opened.append(indexer.open(folder))
    queries = x[::10] + rng.standard_normal((200, 64)).astype(np.float32) * np.float32(0.05)
    exact, half = (index.search(queries, 10)[1] for index in opened)
    assert (half[:, :, None] == exact[:, None]).any(axis=2).mean() >= 0.995
    sizes = [(index.path / "index.faiss").stat().st_size for index in opened]
    assert sizes[1] < sizes[0] * 0.51
    assert opened[0].id != opened[1].id


@pytest.mark.parametrize("scale", [1.0, 2e-7])
def test_recall_of_fp16_is_against_float32(tmp_path: Path, scale: float) -> None:
    """A literal count; of values so small that float16 drops most of their digits, recall is visibly below 1."""
    x = (np.random.default_rng(8).standard_normal((700, 24)) * scale).astype(np.float32)
    folder = indexer.build(
        tmp_path / "town", blocks=iter([x[:300], x[300:]]), places=make_places(700), transform=None, inputs={},
        kind="fp16",
    )  # fmt: skip
    measured = read_measured(folder)
    assert (measured.queries, measured.queries_of, measured.truth) == (500, "database rows", "float32 vectors")
    rows = spread_rows(700, 500, 1)
    shares = []
    for query, line in zip(rows, indexer.open(folder).search(x[rows], 11)[1].tolist(), strict=True):
        apart = np.linalg.norm(x.astype(np.float64) - x[query], axis=1)
        apart[query] = np.inf
        shares.append(len(set(np.argsort(apart)[:10]) & set([row for row in line if row != query][:10])) / 10)
    assert measured.recall[10] == pytest.approx(np.mean(shares))
    assert (measured.recall[10] >= 0.99) if scale == 1.0 else (measured.recall[10] < 0.9)
    assert measured.curve[0]["recall"] == measured.recall[10]
    assert not list(folder.glob(".*")), "the float32 vectors are gone"


def test_values_beyond_fp16_are_refused(tmp_path: Path) -> None:
    def blocks() -> Iterator[Any]:
        yield np.full((10, 4), 70_000, np.float32)
        raise AssertionError("read on, for hours perhaps")

    with pytest.raises(ContractError, match="fp16"):
        indexer.build(tmp_path / "a", blocks=blocks(), places=make_places(20), transform=None, inputs={}, kind="fp16")
    assert list((tmp_path / "a" / "versions").iterdir()) == []


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("kind", ["flat", "fp16", "ivf", "imi", "hnsw"])
def test_opening_does_not_keep_the_vectors(large: Any, kind: str, checked: bool) -> None:
    """The memory of a process that has opened an index of 20 MB or more grows by a fraction of it, hashed or not."""
    folder, tiny = large(kind)
    code = """
        import sys, indexer, faiss
        checked = sys.argv[3] == "True"
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        small = indexer.open(sys.argv[2], check=checked)
        before = resident()
        index = indexer.open(sys.argv[1], check=checked)
        print(resident() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder), str(tiny), str(checked)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < (folder / "index.faiss").stat().st_size / 4


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A large index of a kind, and a tiny one of the same kind."""
    x = np.random.default_rng(6).standard_normal((2_000, 3_072), dtype=np.float32)

    @functools.cache
    def made(kind: str) -> Any:
        folder = tmp_path_factory.mktemp(kind)
        spec = KindSpec(kind, recall_target=0.01)
        return [
            indexer.build(
                folder / str(rows), blocks=iter(np.array_split(x[:rows], 4)), places=make_places(rows), transform=None,
                inputs={}, kind=spec, queries=x[:20],
            )
            for rows in (len(x), 200)
        ]  # fmt: skip

    return made
