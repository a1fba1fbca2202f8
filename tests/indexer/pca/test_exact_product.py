"""Projections: the bits of a row depend on the row alone, whatever block, thread count and kernels it meets."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from indexer.pca.exact_product import BITS, RUN, device_product, exact_product, round_to_grid
from indexer.pca.transform import Transform
from indexer.search.exact import nearest_row
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array

# Every x86-64 processor runs these kernels of OpenBLAS; those for AVX-512 only some.
KERNELS = ("Haswell", "Zen", "Prescott", "Sandybridge")
PROGRAM = """
import hashlib
import numpy as np
from tests.indexer.pca.test_exact_product import projections
print(hashlib.sha256(b"".join(array.tobytes() for array in projections())).hexdigest())
"""


def rows(count: int, size: int, seed: int = 0) -> Float32Array:
    values: Float32Array = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return values


def transform(size: int, k: int) -> Transform:
    return Transform(rows(1, size, 1)[0], rows(k, size, 2) / np.float32(size**0.5), np.ones(k), 0.5, "gram", 9)


def projections() -> list[Float32Array]:
    """What the kernels are compared by: odd and even sizes, more and fewer dimensions than a run."""
    vectors = [transform(size, k).apply(rows(130, size)) for size, k in ((32, 12), (33, 13), (1500, 257), (4096, 64))]
    cells = nearest_row(rows(300, 32), rows(40, 32, 3)).astype(np.float32)
    return [*vectors, cells]


@pytest.mark.parametrize(("size", "k"), [(16, 8), (32, 12), (33, 13), (700, 100), (4097, 9)])
def test_bits_do_not_depend_on_the_block(size: int, k: int) -> None:
    x, pca = rows(300, size), transform(size, k)
    whole = pca.apply(x)
    for height in (1, 2, 7, 64, 299):
        blocks = np.concatenate([pca.apply(x[start : start + height]) for start in range(0, len(x), height)])
        np.testing.assert_array_equal(blocks, whole)


def test_the_exact_sum_of_rounded_factors() -> None:
    """Against whole numbers of any length: every product is the float32 nearest to the sum of its runs' exact sums."""
    from fractions import Fraction

    left, right = rows(3, RUN + 5), round_to_grid(rows(2, RUN + 5, 1))
    left[0] *= np.float32(1e15)
    rounded = round_to_grid(left)
    for i, j in np.ndindex(3, 2):
        runs = [
            float(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, y, strict=True)))
            for x, y in (
                (rounded[i, :RUN], right[j, :RUN]),
                (rounded[i, RUN:], right[j, RUN:]),
            )
        ]
        assert exact_product(left, right)[i, j] == np.float32(runs[0] + runs[1])


def test_the_grid() -> None:
    x = rows(20, 3 * RUN)
    x[3] = 0
    x[4, 1:] *= np.float32(1e-20)
    x[5] *= np.float32(1e30)
    rounded = round_to_grid(x)
    np.testing.assert_array_equal(round_to_grid(rounded), rounded)
    runs = np.abs(x).reshape(20, 3, RUN)
    error = np.abs(rounded.astype(np.float64) - x).reshape(20, 3, RUN)
    assert (error <= runs.max(axis=2, keepdims=True) * 2.0**-BITS).all()


def test_precision_is_that_of_float32() -> None:
    x, pca = rows(200, 2048), transform(2048, 64)
    exact = (x - pca.mean).astype(np.float64) @ pca.matrix.T.astype(np.float64)
    ours = np.abs(pca.apply(x) - exact).max()
    theirs = np.abs((x - pca.mean) @ pca.matrix.T - exact).max()
    assert ours < 3 * theirs


def test_older_indexes_project_as_before() -> None:
    x, pca = rows(50, 64), transform(64, 8)
    older = Transform(pca.mean, pca.matrix, pca.eigenvalues, 0.5, "gram", 9, arithmetic=None)
    np.testing.assert_array_equal(older.apply(x), (x - pca.mean) @ pca.matrix.T)


@pytest.mark.parametrize("arithmetic", ["exact-sums-1", None])
def test_tensors_are_projected_to_the_same_bits(arithmetic: str | None) -> None:
    """In blocks as they come from a device; the projections of a tensor are one too."""
    x, pca = rows(150, 4097), transform(4097, 33)
    pca = Transform(pca.mean, pca.matrix, pca.eigenvalues, 0.5, "gram", 9, arithmetic=arithmetic)
    for start in (0, 1, 130):
        product = pca.apply_on_device(torch.from_numpy(x[start:]))
        np.testing.assert_array_equal(product.numpy(), pca.apply(x[start:]))
    with pytest.raises(ContractError, match="takes"):
        pca.apply_on_device(torch.zeros(2, 4096))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("kernels", KERNELS)
def test_other_kernels_and_threads_give_the_same_bits(kernels: str, threads: int) -> None:
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernels}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout
    own = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert other == own


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("size", [3, 512, 1300])
def test_a_device_gives_the_same_bits(scale: float, size: int) -> None:
    """Torch on any device and any number of threads adds in another order, which rounds nothing here."""
    rng = np.random.default_rng(5)
    left = (rng.standard_normal((37, size)) * 10.0 ** rng.integers(-6, 3, (37, size)) * scale).astype(np.float32)
    left[4] = 0
    right = round_to_grid(rng.standard_normal((11, size)).astype(np.float32))
    product = device_product(torch.from_numpy(left), torch.from_numpy(right).double()).numpy()
    np.testing.assert_array_equal(product.view(np.uint32), exact_product(left, right).view(np.uint32))
