"""What the GPU engines do that can be shown without a GPU: exactness of split products, residence, memory that ends."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import faiss
import numpy as np
import pytest
import torch

from indexer.search import gpu_engines
from indexer.search.approximate import FaissVectors
from indexer.search.engines import NumpyEngine
from indexer.search.exact import ExactVectors, nearest_rows, rounding
from indexer.search.gpu_engines import AutoEngine, TorchEngine, split_queries
from seqdata.errors import MissingDependencyError

TABLES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "unit": lambda rng: rng.standard_normal((40, 512)) / 22,
    "tiny": lambda rng: rng.standard_normal((40, 512)) * 1e-30,
    "huge": lambda rng: rng.standard_normal((40, 512)) * 1e30,
    "one value": lambda rng: np.eye(40, 512) * 3.3,
    "all magnitudes": lambda rng: rng.standard_normal((40, 512)) * 10.0 ** rng.integers(-12, 1, (40, 512)),
    "zeros": lambda rng: np.zeros((40, 512)),
}


@pytest.mark.parametrize("name", TABLES)
def test_split_queries_score_within_the_bound_of_exact_search(name: str) -> None:
    """Products of float16 vectors with both halves differ from float64's by less than `rounding` allows."""
    rng = np.random.default_rng(0)
    queries = TABLES[name](rng).astype(np.float32)
    vectors = rng.standard_normal((300, 512)).astype(np.float16).astype(np.float64)
    high, low, scale = (part.double().numpy() for part in split_queries(torch.from_numpy(queries)))
    scores = (high @ vectors.T + low @ vectors.T / gpu_engines.LOW) * scale
    truth = queries.astype(np.float64) @ vectors.T
    bound = rounding((queries.astype(np.float64) ** 2).sum(1), float((vectors**2).sum(1).max()) / 2, 512)
    assert np.abs(scores - truth).max(axis=1).max() <= bound.max()
    assert (np.abs(scores - truth) <= bound[:, None]).all()
    # The sum carries 22 bits of every value that is not far below the query's largest.
    assert np.abs((high + low / gpu_engines.LOW) * scale - queries).max() <= 2.0**-22 * np.abs(queries).max()


def test_fewer_components_take_the_resident_vectors() -> None:
    """Nothing is copied to the device again, and answers are those of the shorter vectors."""
    rng = np.random.default_rng(1)
    vectors, queries = (
        rng.standard_normal((200, 12)).astype(np.float32),
        rng.standard_normal((5, 12)).astype(np.float32),
    )
    resident = torch.from_numpy(vectors.copy())
    shorter = ExactVectors(vectors, TorchEngine(vectors, "cpu", resident)).first_components(4)
    engine: Any = shorter._engine
    assert engine._resident.data_ptr() == resident.data_ptr()
    expected = nearest_rows(queries[:, :4], vectors[:, :4], 6, engine="cpu")
    for ours, theirs in zip(shorter.nearest(queries[:, :4], 6), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def full_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A device whose memory is full at the call that the list names: "best" or "upload"."""
    when = ["best"]
    original = TorchEngine.best, TorchEngine.__init__

    def best(self: TorchEngine, *args: Any) -> Any:
        if when == ["best"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original[0](self, *args)

    def start(self: TorchEngine, *args: Any) -> None:
        if when == ["upload"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        original[1](self, *args)

    monkeypatch.setattr(TorchEngine, "best", best)
    monkeypatch.setattr(TorchEngine, "__init__", start)
    yield when


@pytest.mark.parametrize("call", ["best", "upload", "never"])
def test_auto_goes_on_with_the_cpu_when_memory_ends(
    full_device: list[str], call: str, caplog: pytest.LogCaptureFixture
) -> None:
    full_device[:] = [call]
    rng = np.random.default_rng(2)
    vectors, queries = rng.standard_normal((90, 6)).astype(np.float32), rng.standard_normal((4, 6)).astype(np.float32)
    ours = ExactVectors(vectors, AutoEngine(vectors, "cpu")).nearest(queries, 5)
    expected = ExactVectors(vectors, NumpyEngine(vectors)).nearest(queries, 5)
    np.testing.assert_array_equal(ours[1], expected[1])
    np.testing.assert_array_equal(ours[0], expected[0])
    assert ("memory is full" in caplog.text) is (call != "never")


def test_auto_searches_on_the_cpu_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying everything at each search is slower than the CPU; `cuda` by name streams instead."""
    vectors = np.zeros((10, 4), np.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    engine: Any = AutoEngine(vectors, "cuda:0")
    assert isinstance(engine._engine, NumpyEngine)


@pytest.mark.parametrize("tf32", [True, False])
def test_precision_is_put_back_after_a_product(tf32: bool) -> None:
    """Also after an error, and whatever a host program has set by PyTorch's newer switches."""
    owners = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [owner.fp32_precision for owner in owners]
    try:
        for owner in owners:
            owner.fp32_precision = "ieee" if tf32 else "tf32"
        with pytest.raises(RuntimeError, match="in the middle"), gpu_engines.float32_products(tf32=tf32):
            assert [owner.fp32_precision for owner in owners] == ["tf32" if tf32 else "ieee"] * 2
            raise RuntimeError("in the middle")
        assert [owner.fp32_precision for owner in owners] == ["ieee" if tf32 else "tf32"] * 2
    finally:
        for owner, value in zip(owners, before, strict=True):
            owner.fp32_precision = value


class FakeGpuFaiss:
    """The names of faiss-gpu that are used; the index counts what is sent to the device."""

    class StandardGpuResources:
        """Memory of a device."""

    class GpuIndexFlatL2:
        """A flat index that answers by NumPy."""

        def __init__(self, resources: object, size: int) -> None:
            self.vectors, self.searches = np.zeros((0, size), np.float32), 0

        def add(self, block: np.ndarray) -> None:
            self.vectors = np.concatenate([self.vectors, block])

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            self.searches += 1
            squared = ((queries[:, None] - self.vectors) ** 2).sum(axis=2)
            rows = np.argsort(squared, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(squared, rows, 1), rows

    @staticmethod
    def get_num_gpus() -> int:
        return 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_faiss_keeps_its_vectors_on_the_device(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    """Sent once, in blocks; subsets and more neighbours than FAISS selects are the CPU's."""
    monkeypatch.setitem(__import__("sys").modules, "faiss", FakeGpuFaiss)
    monkeypatch.setattr(gpu_engines, "COPY_VALUES", 70)
    rng = np.random.default_rng(3)
    vectors, queries = rng.standard_normal((100, 7)).astype(dtype), rng.standard_normal((6, 7)).astype(np.float32)
    engine: Any = gpu_engines.FaissGpuEngine(vectors)
    assert len(engine._index.vectors) == 100
    plain = ExactVectors(vectors, NumpyEngine(vectors))
    for rows, k, searches in ((None, 5, 1), (np.arange(20, 60), 5, 1), (None, 7, 2)):
        ours, theirs = ExactVectors(vectors, engine).nearest(queries, k, rows), plain.nearest(queries, k, rows)
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert engine._index.searches == searches
    monkeypatch.setattr(gpu_engines, "FAISS_GREATEST_K", 4)
    np.testing.assert_array_equal(ExactVectors(vectors, engine).nearest(queries, 5)[1], plain.nearest(queries, 5)[1])
    assert engine._index.searches == 2


class Copied:
    """A GPU's copy of an index: counts searches, and passes them on."""

    def __init__(self, index: Any) -> None:
        self.index, self.searches = index, 0

    def search(self, queries: np.ndarray, k: int, params: Any = None) -> Any:
        assert params is None, "FAISS's GPU indexes take no search parameters"
        self.searches += 1
        return self.index.search(queries, k)


def test_lists_are_searched_on_the_device_and_the_rest_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    vectors, queries = rng.standard_normal((600, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    index = faiss.index_factory(8, "IVF8,Flat")
    index.train(vectors)
    index.add(vectors)
    index.nprobe = 4
    plain, ours = FaissVectors(index), FaissVectors(index)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, number, index: Copied(index), raising=False)
    ours.use_gpu()
    device: Any = ours._on_device
    for k, rows, searches in ((3, None, 1), (3, np.arange(40), 1), (10, None, 2)):
        expected = plain.nearest(queries, k, rows)
        for one, other in zip(ours.nearest(queries, k, rows), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert device.searches == searches
    monkeypatch.setattr("indexer.search.approximate.FAISS_GREATEST_K", 2)
    np.testing.assert_array_equal(ours.nearest(queries, 3)[1], plain.nearest(queries, 3)[1])
    assert device.searches == 2


def test_a_kind_without_a_gpu_form_stays_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("This index type is not implemented on GPU.")

    index = faiss.index_factory(8, "HNSW8")
    index.add(np.random.default_rng(5).standard_normal((50, 8)).astype(np.float32))
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refuse, raising=False)
    ours = FaissVectors(index, "street")
    ours.use_gpu()
    assert ours.nearest(np.zeros((1, 8), np.float32), 3)[1].shape == (1, 3)
    assert "street: FAISS has no GPU form" in caplog.text


def test_files_of_the_other_faiss_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages install the module `faiss`: what is listed as installed may not be what is imported."""

    class FaissGpu:
        metadata: ClassVar = {"Name": "faiss-gpu"}

    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    monkeypatch.setattr(gpu_engines, "distributions", lambda: [FaissGpu()])
    with pytest.raises(MissingDependencyError, match="force-reinstall --no-deps faiss-gpu"):
        gpu_engines.faiss_resources()
    monkeypatch.setattr(gpu_engines, "distributions", lambda: [])
    with pytest.raises(MissingDependencyError, match="built without a GPU"):
        gpu_engines.faiss_resources()
