"""The largest eigenpairs of a symmetric positive matrix: by `eigh`, or a few by subspace iteration."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OVERSAMPLE = 4  # one extra direction for every four wanted: fewer rounds, and the last directions come out sharp
# A spectrum that falls so slowly that 12 rounds do not settle it has no sharp leading directions to find. A guess.
MAX_ROUNDS = 12
GAIN = 1e-3
LEAST_EXTRA = 32
# Least share of the factor's greatest diagonal entry: a condition of 1e6 is squared to 1e12, which float64 still bears.
DEPENDENT = 1e-6
ONE_THREAD = 3072  # an eigenproblem of this size takes some four seconds on one core

Multiply = Callable[["torch.Tensor", bool], "torch.Tensor"]


def exact_top(matrix: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Find the largest eigenpairs of a symmetric matrix by `torch.linalg.eigh`.

    Args:
        matrix: Symmetric positive matrix (m, m) float64.
        k: How many.

    Returns:
        Eigenvalues (k,), descending, those that rounding left below zero set to zero, and eigenvectors (m, k).
    """
    import torch  # heavy

    with _one_thread(len(matrix) <= ONE_THREAD):
        values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:k].clamp_min(0.0), vectors.flip(1)[:, :k]


@contextmanager
def _one_thread(enabled: bool) -> Iterator[None]:
    """Run torch on one thread: on a busy machine two threads that wait for each other take twenty times as long."""
    import torch  # heavy

    before = torch.get_num_threads()
    if enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def randomised_top(
    multiply: Multiply, size: int, k: int, seed: int, device: str = "cpu"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Find the largest eigenpairs of an operator without forming its matrix.

    Blocks of l = 1.25 k + 32 directions are multiplied and orthonormalised until a round captures less than
    0.1 % more variance (at most 12 rounds), which leaves about a third of that uncaptured; a precise Rayleigh-Ritz
    step then separates the eigenpairs.

    Args:
        multiply: Called with directions (m, l) float64 and `precise`; returns the matrix times these, (m, l) float64.
            Without `precise` it may round products to float32.
        size: m.
        k: How many.
        seed: Of the first directions.
        device: Where the operator computes.

    Returns:
        Eigenvalues (k,), descending, and eigenvectors (m, k).

    Source: Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.3 (subspace iteration with oversampling).
    """
    import torch  # heavy

    generator = torch.Generator().manual_seed(seed)
    # Random directions miss no eigenvector, while fixed ones could be orthogonal to some.
    start = torch.randn(size, min(size, k + k // OVERSAMPLE + LEAST_EXTRA), generator=generator, dtype=torch.float64)
    # Drawn on the CPU everywhere, so that a seed means the same directions.
    basis = orthonormal(multiply(start.to(device), False))
    captured = 0.0
    for _ in range(MAX_ROUNDS):
        product = multiply(basis, False)
        before, captured = captured, float((basis * product).sum())
        basis = orthonormal(product)
        if captured - before <= GAIN * captured:
            break
    # The rounds only need the span; the eigenpairs within it are worth one product in float64.
    small = basis.T @ multiply(basis, True)
    values, rotation = exact_top((small + small.T) / 2, k)
    return values, basis @ rotation


def orthonormal(columns: "torch.Tensor") -> "torch.Tensor":
    """An orthonormal basis (m, l) of the columns (m, l): Cholesky twice, eight times faster than Householder QR.

    Columns too dependent for that (rank-deficient samples) go through `torch.linalg.qr`.
    Source: Yamamoto et al. 2015, CholeskyQR2.
    """
    import torch  # heavy

    basis: torch.Tensor = columns / columns.norm(dim=0).clamp_min(1e-300)
    # One pass squares the condition number and leaves errors of that size; the second removes them.
    for _ in range(2):
        factor, failed = torch.linalg.cholesky_ex(basis.T @ basis)
        diagonal = factor.diagonal()
        if int(failed) or float(diagonal.min()) < DEPENDENT * float(diagonal.max()):
            basis = torch.linalg.qr(columns).Q
            break
        basis = torch.linalg.solve_triangular(factor.T, basis, upper=True, left=False)
    return basis
