"""k-means of lists and codes with vectors that are assigned on a GPU, which here is a second index on the CPU."""

import logging
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest

from indexer.search import gpu_training, kinds
from indexer.search.faiss_layers import layers

SIZE = 16


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A FAISS that sees a GPU; the indexes that were copied to it."""
    copies: list[Any] = []

    def copy(resources: object, number: int, index: Any) -> Any:
        assert number == 0
        copies.append(index)
        return index

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    yield copies


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1200, SIZE)).astype(np.float32)


def centres(index: Any) -> list[np.ndarray]:
    """All that k-means found."""
    found = []
    for layer in layers(index):
        if hasattr(layer, "nlist"):
            quantizer = faiss.downcast_index(layer.quantizer)
            if isinstance(quantizer, faiss.IndexFlat):
                found.append(quantizer.reconstruct_n(0, quantizer.ntotal))
        if hasattr(layer, "pq"):
            found.append(faiss.vector_to_array(layer.pq.centroids))
    return found


@pytest.mark.parametrize(
    ("factory", "sizes"),
    [
        ("IVF8,Flat", [SIZE]),
        ("PQ4x4", [SIZE // 4]),
        ("IVF8,PQ4x4", [SIZE, SIZE // 4]),
        ("IMI2x2,Flat", [SIZE, SIZE // 2]),
        ("OPQ4,IVF8,Flat", [SIZE]),
    ],
)
def test_centres_are_found_on_the_card(
    card: list[Any], sample: np.ndarray, factory: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each k-means has an index there, which holds its last centres at the end; they are the CPU's."""
    ours, plain = (kinds.create(factory, SIZE) for _ in range(2))
    assert kinds.train(ours, sample, 0, factory) == kinds.train(plain, sample, 0, factory)
    assert [index.d for index in card[: len(sizes)]] == sizes and len(card) == 2 * len(sizes)
    assert any(index.ntotal for index in card)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    on_cpu = kinds.create(factory, SIZE)
    kinds.train(on_cpu, sample, 0, factory)
    assert len(card) == 2 * len(sizes), "without a GPU nothing is copied to one"
    for one, other in zip(centres(ours), centres(on_cpu), strict=True):
        np.testing.assert_array_equal(one, other)
    ours.add(sample)
    assert ours.ntotal == len(sample)


def test_nothing_on_the_card_outlives_training(card: list[Any], sample: np.ndarray) -> None:
    """The index holds bare pointers to what lies there."""
    index = kinds.create("IVF8,PQ4x4", SIZE)
    with gpu_training.assignment_on_gpu(index):
        assert index.clustering_index is not None and index.pq.assign_index is not None
    assert index.clustering_index is None and index.pq.assign_index is None
    with pytest.raises(KeyboardInterrupt), gpu_training.assignment_on_gpu(index):
        raise KeyboardInterrupt
    assert index.clustering_index is None and index.pq.assign_index is None


def test_a_full_card_leaves_training_to_the_cpu(
    card: list[Any], sample: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise RuntimeError("Error: 'err == CUBLAS_STATUS_SUCCESS' failed: out of memory\nmore")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    index = kinds.create("IVF8,Flat", SIZE)
    with caplog.at_level(logging.WARNING):
        kinds.train(index, sample, 0, "IVF8,Flat")
    assert index.is_trained and "out of memory" in caplog.text and "more" not in caplog.text
