"""PCA against numpy's SVD, in every route, and what it refuses."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, NotEnoughDataError


def sample(count: int, size: int, rank: int | None = None, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rank = rank or min(count, size)
    scales = np.linspace(4.0, 0.2, rank)
    return (rng.normal(size=(count, rank)) * scales @ rng.normal(size=(rank, size)) + 3.0).astype(np.float32)


def svd(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The oracle: directions (k, d), variances (k,) and explained share by numpy's SVD."""
    centred = x.astype(np.float64) - x.astype(np.float64).mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    values = singular**2 / (len(x) - 1)
    return directions[:k], values[:k], float(values[:k].sum() / values.sum())


def check(transform: Transform, x: np.ndarray, k: int) -> None:
    directions, values, explained = svd(x, k)
    signs = np.sign((transform.matrix * directions).sum(1))
    np.testing.assert_allclose(transform.eigenvalues, values, rtol=1e-5)
    np.testing.assert_allclose(transform.matrix, directions * signs[:, None], atol=2e-4)
    assert transform.explained == pytest.approx(explained, rel=1e-6)
    np.testing.assert_allclose(transform.matrix @ transform.matrix.T, np.eye(k), atol=1e-5)


@pytest.mark.parametrize(("count", "size", "k"), [(40, 150, 12), (200, 60, 12), (200, 60, 60), (61, 60, 20)])
def test_equals_numpy_svd(count: int, size: int, k: int) -> None:
    x = sample(count, size)
    transform = pca.fit(x, k)
    assert transform.route == ("gram" if count < size else "covariance")
    check(transform, x, k)


@pytest.mark.parametrize(("count", "size"), [(60, 150), (300, 80)])
def test_randomised_route_equals_numpy_svd(count: int, size: int) -> None:
    x = sample(count, size)
    check(pca.fit(x, 10, route="randomised"), x, 10)


@pytest.mark.parametrize(("count", "size"), [(40, 150), (200, 60), (60, 60)])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_equal_whole(count: int, size: int, block: int) -> None:
    x = sample(count, size)
    streamed = pca.fit((x[start : start + block] for start in range(0, count, block)), 8)
    whole = pca.fit(x, 8)
    np.testing.assert_allclose(streamed.matrix, whole.matrix, atol=1e-5)
    np.testing.assert_allclose(streamed.mean, whole.mean, atol=1e-5)
    assert streamed.samples == whole.samples == count


@pytest.mark.parametrize(("count", "size", "route"), [(50, 30, "covariance"), (30, 50, "gram"), (30, 50, "randomised")])
def test_memmap_gives_the_same_transform(tmp_path: Path, count: int, size: int, route: pca.Route) -> None:
    x = sample(count, size)
    x.tofile(tmp_path / "x.f32")
    mapped = np.memmap(tmp_path / "x.f32", np.float32, "r", shape=x.shape)
    found = pca.fit(mapped, 5, route=route)
    check(found, x, 5)
    np.testing.assert_array_equal(found.matrix, pca.fit(x, 5, route=route).matrix)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on data, which maps are no part of, is Linux's")
def test_memmap_is_not_copied(tmp_path: Path) -> None:
    """A mapped sample of 120 MB is fitted by every route with 48 MB of memory beside the map."""
    code = """
        import resource, sys
        import numpy as np, torch
        from indexer.pca import fit as pca, moments as scatter
        scatter.BLOCK_VALUES = 1 << 18
        shapes = {"gram": (600, 50_000), "randomised": (600, 50_000), "covariance": (150_000, 200)}
        few = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
        for route in shapes:
            pca.fit(few, 8, route=route)  # what the libraries take once
        held = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
        limit = int(held.split()[1]) * 1024 + (48 << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        for route, shape in shapes.items():
            x = np.memmap(sys.argv[1], np.float32, "r", shape=shape)
            assert pca.fit(x, 8, route=route).samples == shape[0]
    """
    np.random.default_rng(0).standard_normal((600, 50_000), dtype=np.float32).tofile(tmp_path / "x.f32")
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "x.f32")]
    assert subprocess.run(command, check=False).returncode == 0


def test_small_blocks_of_columns_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.pca.moments.BLOCK_VALUES", 100)
    for x in (sample(40, 150), sample(200, 60)):
        check(pca.fit(x, 8), x, 8)


def test_whitening_gives_unit_variance() -> None:
    x = sample(400, 50)
    y = pca.fit(x, 10, whiten=True).apply(x)
    np.testing.assert_allclose(np.cov(y.T), np.eye(10), atol=1e-4)


@pytest.mark.parametrize(("count", "size"), [(40, 150), (200, 60)])
@pytest.mark.parametrize("route", ["auto", "randomised"])
def test_whitening_equals_numpy_svd(count: int, size: int, route: pca.Route) -> None:
    x = sample(count, size)
    directions, values, _ = svd(x, 9)
    transform = pca.fit(x, 9, whiten=True, route=route)
    signs = np.sign((transform.matrix * directions).sum(1))
    np.testing.assert_allclose(transform.matrix, directions * (signs / np.sqrt(values))[:, None], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(np.cov(transform.apply(x).T), np.eye(9), atol=1e-3)


def test_apply_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sample(60, 30)
    transform = pca.fit(x, 5)
    expected = transform.apply(x)
    monkeypatch.setattr("indexer.pca.transform.APPLY_VALUES", 100)
    np.testing.assert_allclose(transform.apply(x), expected, atol=1e-5)


def test_wide_descriptors_in_bounded_memory(tmp_path: Path) -> None:
    """D = 60,000 (94 MB of samples in a file): beyond them and the k directions kept, memory does not grow with d."""
    code = """
        import resource, sys
        import numpy as np, torch
        from indexer.pca import fit as pca, moments as scatter
        torch.set_num_threads(1)
        scatter.BLOCK_VALUES = 1 << 18
        pca.fit(np.random.default_rng(0).normal(size=(80, 90)).astype(np.float32), 8)
        x = np.load(sys.argv[1], mmap_mode="r")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        transform = pca.fit(x, 300, route=sys.argv[2])
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
        assert transform.matrix.shape == (300, 60_000)
    """
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((390, 60_000), dtype=np.float32))
    mapped, kept = 390 * 60_000 * 4, 300 * 60_000 * 4
    for route in ("gram", "randomised"):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "x.npy"), route]
        grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert grown < mapped + kept + (60 << 20)


def test_apply_is_projection() -> None:
    x = sample(300, 40)
    transform = pca.fit(x, 7)
    directions, _, _ = svd(x, 7)
    expected = np.abs((x.astype(np.float64) - x.astype(np.float64).mean(0)) @ directions.T)
    np.testing.assert_allclose(np.abs(transform.apply(x)), expected, atol=1e-3)
    assert transform.apply(x).dtype == np.float32
    with pytest.raises(ContractError, match="40"):
        transform.apply(x[:, :39])


def test_signs_are_fixed() -> None:
    x = sample(100, 40)
    matrix = pca.fit(x, 9).matrix
    assert (matrix[np.arange(9), np.abs(matrix).argmax(1)] > 0).all()
    np.testing.assert_array_equal(matrix, pca.fit(x, 9).matrix)


def test_large_mean_does_not_cost_precision() -> None:
    x = sample(200, 30) * 1e-2 + np.float32(50)
    _, values, _ = svd(x, 4)
    for source in (x, iter([x[:90], x[90:]])):
        np.testing.assert_allclose(pca.fit(source, 4).eigenvalues, values, rtol=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_too_few_descriptors_names_what_works(streamed: bool) -> None:
    x = sample(20, 64)
    source = iter([x[:5], x[5:]]) if streamed else x
    with pytest.raises(NotEnoughDataError, match=r"20 descriptors exist, at least 33 are needed; --pca 19 would work"):
        pca.fit(source, 32)
    assert pca.fit(x, 19).output_size == 19


def test_refusal_counts_duplicates() -> None:
    x = np.repeat(sample(6, 64), 3, axis=0)
    with pytest.raises(NotEnoughDataError, match="--pca 5 would work"):
        pca.fit(x, 32)
    assert pca.fit(x, 5).output_size == 5


@pytest.mark.parametrize(("count", "size"), [(50, 80), (300, 80)])
def test_rank_deficient(count: int, size: int) -> None:
    x = sample(count, size, rank=11)
    check(pca.fit(x, 11), x, 11)
    with pytest.raises(NotEnoughDataError, match="11 directions only, 20 are needed; --pca 11 would work"):
        pca.fit(x, 20)


def test_refusals() -> None:
    x = sample(100, 20)
    with pytest.raises(ContractError, match="--pca 20 or less"):
        pca.fit(x, 21)
    with pytest.raises(ContractError, match="--pca 0"):
        pca.fit(x, 0)
    with pytest.raises(NotEnoughDataError, match="all equal"):
        pca.fit(np.ones((50, 20), np.float32), 4)
    with pytest.raises(NotEnoughDataError, match="no descriptors"):
        pca.fit(iter([]), 4)
    with pytest.raises(NotEnoughDataError, match="no descriptors"):
        pca.fit(x[:0], 4)
    x[3, 3] = np.nan
    for source in (x, iter([x])):
        with pytest.raises(ContractError, match="NaN"):
            pca.fit(source, 4)
    with pytest.raises(ContractError, match="shape"):
        pca.fit(iter([np.ones((3, 4)), np.ones((3, 5))]), 2)


def test_warns_below_twice_k(caplog: pytest.LogCaptureFixture) -> None:
    pca.fit(sample(40, 64), 20)
    assert caplog.text == ""
    pca.fit(sample(39, 64), 20)
    assert "twice as many" in caplog.text


def test_route_by_shape() -> None:
    assert pca.choose_route(8192, 8192, 1024) == "randomised"
    assert pca.choose_route(8192, 24576, 4096) == "gram"
    assert pca.choose_route(16384, 24576, 4096) == "randomised"
    assert pca.choose_route(16384, 4096, 1024) == "randomised"
    assert pca.choose_route(16384, 4096, 1024, exact=True) == "covariance"
    assert pca.choose_route(16384, 4096, 1025) == "covariance"
    assert pca.choose_route(2047, 4096, 256) == "gram"


@pytest.mark.parametrize(("power", "route"), [(0.0, "covariance"), (0.5, "covariance"), (1.0, "randomised")])
def test_randomised_variance_within_a_five_thousandth(power: float, route: str) -> None:
    """Spectra that are flat, or fall slowly for so small a space, are solved exactly after all."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((900, 700)) * np.arange(1, 701) ** -power).astype(np.float32)
    exact, randomised = pca.fit(x, 60, route="exact"), pca.fit(x, 60, route="randomised")
    assert (exact.route, randomised.route) == ("covariance", route)
    assert exact.explained * (1 - 2e-4) <= randomised.explained <= exact.explained * (1 + 1e-9)
    np.testing.assert_allclose(randomised.matrix @ randomised.matrix.T, np.eye(60), atol=1e-5)


def test_a_large_sample_of_a_quarter_of_the_directions_is_solved_in_a_krylov_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By shape alone, streamed or not, and the exact route stays one option away."""
    monkeypatch.setattr(pca, "RANDOMISED_FROM", 128)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 200)) / np.arange(1, 201)).astype(np.float32)
    streamed, whole = pca.fit(iter([x[:150], x[150:]]), 20), pca.fit(x, 20)
    assert (whole.route, streamed.route) == ("randomised", "randomised")
    assert pca.fit(x, 20, route="exact").route == "covariance"
    assert np.abs((streamed.matrix * svd(x, 20)[0]).sum(1)).min() > 0.999


def test_directions_beyond_the_rank_are_refused_on_the_randomised_route() -> None:
    x = sample(300, 80, rank=11)
    check(pca.fit(x, 11, route="randomised"), x, 11)
    with pytest.raises(NotEnoughDataError, match="11 directions only, 20 are needed; --pca 11 would work"):
        pca.fit(x, 20, route="randomised")


def test_a_large_sample_is_refused_by_its_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank is counted, and the advice is one less than there are descriptors."""
    monkeypatch.setattr(pca, "RANK_LIMIT", 9)
    with pytest.raises(NotEnoughDataError, match="10 descriptors exist, at least 13 are needed; --pca 9 would work"):
        pca.fit(sample(10, 20), 12)
