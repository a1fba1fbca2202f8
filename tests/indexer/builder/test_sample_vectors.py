"""The PCA sample in memory and in a file: the same descriptors, nothing left behind, a full disk named."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer.builder.pipeline import sample_vectors as module
from indexer.builder.pipeline.sample_vectors import sample_vectors
from indexer.pca import fit as pca
from seqdata.errors import OutputError
from tests.support.fake_dataset import FakeDataset

ROOT = Path(__file__).parents[3]
SIZE = 6


class FrameSums:
    """A describer without a network: a fixed random vector a frame, summed over the window."""

    def descriptor_size(self, length: int) -> int:
        return SIZE

    def blocks(self, dataset: Any, windows: pl.DataFrame, progress: Any = None) -> Iterator[np.ndarray]:
        frames = np.random.default_rng(0).normal(size=(1000, SIZE)).astype(np.float32)
        for start in range(0, len(windows), 5):
            yield frames[dataset.frame_rows(windows[start : start + 5])].sum(axis=1)
            if progress is not None:
                progress(min(start + 5, len(windows)), len(windows))

    def vectors(self, dataset: Any, windows: pl.DataFrame, progress: Any = None) -> np.ndarray:
        return np.concatenate([np.zeros((0, SIZE), np.float32), *self.blocks(dataset, windows, progress)])


@pytest.fixture
def data() -> FakeDataset:
    return FakeDataset()


def test_few_stay_in_memory(data: Any, tmp_path: Path) -> None:
    model, windows = FrameSums(), data.sequences(length=3)[::-1]
    vectors = sample_vectors(model, data, windows, tmp_path / "town")
    assert not isinstance(vectors, np.memmap)
    np.testing.assert_array_equal(vectors, model.vectors(data, windows))
    assert sample_vectors(model, data, windows[:0], tmp_path / "town").shape == (0, SIZE)
    assert not (tmp_path / "town").exists()


def test_many_are_mapped_in_track_order_and_give_the_same_transform(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = FrameSums(), data.sequences(length=3)
    counts = []
    size_bytes = 4 * len(windows) * SIZE
    monkeypatch.setattr(module, "MEMORY_BYTES", size_bytes - 1)
    expected = model.vectors(data, windows)
    shuffled = windows[np.random.default_rng(0).permutation(len(windows))]
    folder = tmp_path / "new" / "town"
    vectors = sample_vectors(model, data, shuffled, folder, lambda *numbers: counts.append(numbers))
    assert isinstance(vectors, np.memmap) and not vectors.flags.writeable
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert not list(folder.iterdir()), "a file without a name"
    mapped, whole = pca.fit(vectors, 4), pca.fit(expected, 4)
    assert counts[-1] == (len(windows), len(windows))
    np.testing.assert_allclose(mapped.matrix, whole.matrix, atol=1e-4)
    monkeypatch.setattr(module, "MEMORY_BYTES", size_bytes)
    assert not isinstance(sample_vectors(model, data, windows, tmp_path), np.memmap)


class Full:
    """A file on a device without space."""

    def write(self, data: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> Any:
        return None


def test_refusals_are_named(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file.*cannot be written"):
        sample_vectors(FrameSums(), data, data.sequences(), tmp_path / "file")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OutputError, match="no space left"):
        sample_vectors(FrameSums(), data, data.sequences(), tmp_path)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from indexer.builder.pipeline import sample_vectors as module
    from tests.indexer.builder.test_sample_vectors import FrameSums
    from tests.support.fake_dataset import FakeDataset
    module.MEMORY_BYTES = 0
    data = FakeDataset()
    vectors = module.sample_vectors(FrameSums(), data, data.sequences(), Path(sys.argv[1]))
    assert vectors.any()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "town")]
    ended = subprocess.run(code, cwd=ROOT, check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "town").is_dir() and not list((tmp_path / "town").iterdir())
