"""A PCA sample in parts: made once each by any jobs, equal to a literal fit whatever their number, killed or full."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from indexer.pca import fit as pca
from indexer.pca import sample_parts as module
from indexer.pca.moments import Scatter
from indexer.pca.sample_parts import FITTED, SampleParts
from seqdata.errors import ContractError, OutputError
from seqdata.geometry import Float32Array

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 16)


def rows_of(count: int, size: int) -> Float32Array:
    """Descriptors far from the origin, where sums of squares would lose digits."""
    rng = np.random.default_rng(count)
    scales = np.linspace(3, 0.1, size)
    return (100 + rng.normal(size=(count, size)) * scales).astype(np.float32)


@pytest.mark.parametrize(("count", "size"), [(70, 6), (70, 70), (23, 40), (16, 3)])
def test_the_fit_is_that_of_all_rows(count: int, size: int, tmp_path: Path) -> None:
    rows = rows_of(count, size)
    parts = SampleParts(tmp_path / "sample", count, size)
    parts.complete(lambda part: rows[part.start : part.stop])
    assert parts.is_folded == (size <= count)
    fitted = pca.fit(parts.data(), 3 if size > 3 else 2)
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    variance = values**2 / (count - 1)
    np.testing.assert_allclose(fitted.eigenvalues, variance[: fitted.output_size], rtol=1e-6)
    np.testing.assert_allclose(np.abs(fitted.matrix), np.abs(axes[: fitted.output_size]), atol=1e-4)
    assert fitted.samples == count
    assert fitted.explained == pytest.approx(variance[: fitted.output_size].sum() / variance.sum())


def test_sums_are_added_in_their_order_whoever_made_them(tmp_path: Path) -> None:
    """Two jobs at once give the bits of one, and each part is described once."""
    rows, described = rows_of(100, 5), list[int]()
    alone = SampleParts(tmp_path / "alone", 100, 5)
    alone.complete(lambda part: rows[part.start : part.stop])

    def describe(part: range) -> Float32Array:
        described.append(part.start)
        return rows[part.start : part.stop]

    both = SampleParts(tmp_path / "both", 100, 5)
    jobs = [threading.Thread(target=both.complete, args=(describe,)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(described) == list(range(0, 100, 16))
    one, other = alone.data(), both.data()
    assert isinstance(one, Scatter) and isinstance(other, Scatter)
    np.testing.assert_array_equal(one.matrix.numpy(), other.matrix.numpy())
    both.complete(lambda part: pytest.fail("a part that is there is described again"))


def test_wide_descriptors_are_mapped_rows_in_smaller_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(30, 50)
    monkeypatch.setattr(module, "PART_BYTES", 4 * 50 * 7)
    parts, sizes = SampleParts(tmp_path / "sample", 30, 50), list[int]()

    def describe(part: range) -> Float32Array:
        sizes.append(len(part))
        return rows[part.start : part.stop]

    parts.complete(describe)
    assert sizes == [7, 7, 7, 7, 2]
    mapped = parts.data()
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, rows)


def test_wrong_descriptors_and_a_folder_that_is_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"\(3, 4\) for \(16, 5\)"):
        SampleParts(tmp_path / "sample", 40, 5).complete(lambda part: np.zeros((3, 4), np.float32))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file.*cannot be written"):
        SampleParts(tmp_path / "file", 40, 5).complete(lambda part: np.zeros((len(part), 5), np.float32))


def test_the_name_of_the_arithmetic_says_how_vectors_are_projected_and_fitted() -> None:
    assert FITTED == "exact-sums-1+gram-parts-1"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from indexer.pca import sample_parts as module
    from tests.indexer.pca.test_sample_parts import rows_of
    module.PART_ROWS = 16
    def describe(part):
        if part.start == 32:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows_of(100, 5)[part.start : part.stop]
    module.SampleParts(Path(sys.argv[1]), 100, 5).complete(describe)
"""


def test_a_part_of_a_killed_job_is_taken_over(tmp_path: Path) -> None:
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "sample")]
    ended = subprocess.run(code, cwd=ROOT, check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    rows, described = rows_of(100, 5), list[int]()

    def describe(part: range) -> Float32Array:
        described.append(part.start)
        return rows[part.start : part.stop]

    SampleParts(tmp_path / "sample", 100, 5).complete(describe)
    assert described == [32, 48, 64, 80, 96]
    assert not list((tmp_path / "sample").glob("*.tmp"))
