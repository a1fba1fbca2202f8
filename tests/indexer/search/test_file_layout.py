"""What is known of FAISS's files: releases, and heads that FAISS itself reads."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.search.file_layout import Exact, check_release, lists_head, write_exact_head
from seqdata.errors import MissingDependencyError


@pytest.mark.parametrize("number", ["1.8.0", "1.16.0", "2.0", "unknown"])
def test_a_release_whose_files_are_unknown_is_refused_in_one_line(number: str) -> None:
    with pytest.raises(MissingDependencyError) as refusal:
        check_release("faiss-cpu", number)
    assert str(refusal.value).startswith(f"faiss-cpu {number}: ") and "\n" not in str(refusal.value)
    assert "pip install 'faiss-cpu>=1.9,<1.16'" in str(refusal.value)


@pytest.mark.parametrize("number", ["1.9.0.post1", "1.11.0", "1.15.1"])
def test_known_releases_pass(number: str) -> None:
    check_release("faiss-cpu", number)


@pytest.mark.parametrize("kind", ["flat", "fp16"])
def test_faiss_reads_vectors_behind_a_head(tmp_path: Path, kind: Exact) -> None:
    vectors = np.random.default_rng(0).standard_normal((7, 5), dtype=np.float32)
    inner = faiss.index_factory(5, {"flat": "Flat", "fp16": "SQfp16"}[kind], faiss.METRIC_L2)
    inner.is_trained = True
    path = tmp_path / "exact.faiss"
    write_exact_head(path, inner, inner, len(vectors), kind)
    assert path.stat().st_size % 4 == 0
    stored = vectors if kind == "flat" else vectors.astype(np.float16)
    path.write_bytes(path.read_bytes() + stored.tobytes())
    index = faiss.read_index(str(path))
    assert (index.d, index.ntotal) == (5, 7)
    assert np.array_equal(index.search(stored.astype(np.float32), 1)[1].ravel(), np.arange(7))


@pytest.mark.parametrize("filled", [1, 7], ids=["sparse", "full"])
def test_the_head_of_lists_is_that_of_faiss(filled: int) -> None:
    vectors = np.repeat(np.eye(8, dtype=np.float32), 3, axis=0)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 8)
    index.train(vectors)
    centres = index.quantizer.reconstruct_n(0, 8)
    index.add(np.repeat(centres[:filled], 2, axis=0))
    sizes = np.array([index.invlists.list_size(number) for number in range(8)])
    whole = faiss.serialize_index(index).tobytes()
    empty = faiss.clone_index(index)
    empty.reset()
    empty.ntotal = index.ntotal
    head = lists_head(empty, index.code_size, sizes)
    assert np.count_nonzero(sizes) == filled
    assert whole.startswith(head) and len(whole) - len(head) == 2 * filled * (8 * 4 + 8)
