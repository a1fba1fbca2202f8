"""The largest eigenpairs of a symmetric positive matrix: by `eigh`, or a few by a block Krylov space."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Directions of the Krylov space for every one that is wanted, and as many more beside. Measured at 2,048 → 512: with
# variances that fall as 1/rank (steeper ones need less) the space loses 0.0007 % of the exact variance.
SPACE = 2.25
LEAST_EXTRA = 64
# Directions that are multiplied at once. A space of narrow blocks reaches further (blocks of 128 lose 0.017 % there),
# but below 64 products no longer run at the processor's speed.
BLOCK = 64
STEPS = 8  # least number of blocks: a small space in one block would be no Krylov space
CHECKED = 8 / 9  # share of the space whose variance is compared with that of the whole
# Least share of the factor's greatest diagonal entry: a condition of 1e6 is squared to 1e12, which float64 still bears.
DEPENDENT = 1e-6
LOST = 1e-10  # a direction that keeps no more than this share outside the space adds rounding alone
ONE_THREAD = 3072  # an eigenproblem of this size takes some four seconds on one core

Multiply = Callable[["torch.Tensor"], "torch.Tensor"]


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


def krylov_top(
    multiply: Multiply, size: int, k: int, seed: int, device: str = "cpu"
) -> "tuple[torch.Tensor, torch.Tensor, float]":
    """Find the largest eigenpairs of an operator without forming its matrix.

    Random directions and what the operator makes of them, again and again, span a space of 2.25 k + 64 dimensions; each
    block is orthogonalised against all before it, and the eigenpairs within the space are found exactly.

    Args:
        multiply: Called with directions (m, b) float64, returns the matrix times these, (m, b) float64.
        size: m.
        k: How many.
        seed: Of the first directions.
        device: Where the operator computes.

    Returns:
        Eigenvalues (k,), descending, eigenvectors (m, k), and what the last ninth of the space added to the sum of the
        eigenvalues, as a share of it: 0 where the space is everything.

    Source: Golub & Underwood, The block Lanczos method for computing eigenvalues, 1977; that random first directions
    suffice: Musco & Musco, Randomized block Krylov methods for stronger and faster approximate singular value
    decomposition, NeurIPS 2015, algorithm 2.
    """
    import torch  # heavy

    generator = torch.Generator().manual_seed(seed)

    def random_directions(count: int) -> "torch.Tensor":
        # Drawn on the CPU everywhere, so that a seed means the same directions.
        return torch.randn(size, count, generator=generator, dtype=torch.float64).to(device)

    width = min(size, int(SPACE * k) + LEAST_EXTRA)
    space = torch.empty(size, width, dtype=torch.float64, device=device)
    inner = torch.zeros(width, width, dtype=torch.float64, device=device)
    step = min(BLOCK, -(-width // STEPS))
    block = orthonormal(random_directions(step))
    for start in range(0, width, step):
        stop = min(start + step, width)
        space[:, start:stop] = block[:, : stop - start]
        product = multiply(space[:, start:stop])
        basis = space[:, :stop]
        shares = basis.T @ product
        inner[:stop, start:stop], inner[start:stop, :stop] = shares, shares.T
        if stop < width:
            rest = product - basis @ shares
            # Where the matrix has no more directions of its own, what is left is rounding: new ones are drawn.
            is_lost = rest.norm(dim=0) <= LOST * product.norm(dim=0).max().clamp_min(1e-300)
            rest[:, is_lost] = random_directions(int(is_lost.sum()))
            block = _orthonormal_beside(basis, rest)
    inner = (inner + inner.T) / 2
    values, rotation = _leading(inner, k)
    gain = 0.0 if width == size else 1 - _leading_sum(inner, k) / max(float(values.sum()), 1e-300)
    return values, space @ rotation, gain


def _leading(matrix: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """As `exact_top`; on the CPU by LAPACK's `syevr`, which takes half the time where the rest is not wanted."""
    if matrix.device.type != "cpu":
        return exact_top(matrix, k)
    import torch  # heavy
    from scipy.linalg import eigh  # heavy

    leading = [len(matrix) - k, len(matrix) - 1]
    values, vectors = (torch.from_numpy(part) for part in eigh(matrix.numpy(), subset_by_index=leading))
    return values.flip(0).clamp_min(0.0), vectors.flip(1)


def _leading_sum(inner: "torch.Tensor", k: int) -> float:
    """Sum of the k largest eigenvalues within the first directions of the space."""
    import torch  # heavy

    checked = max(k, int(CHECKED * len(inner)))
    with _one_thread(checked <= ONE_THREAD):
        return float(torch.linalg.eigvalsh(inner[:checked, :checked])[-k:].clamp_min(0.0).sum())


def _orthonormal_beside(basis: "torch.Tensor", columns: "torch.Tensor") -> "torch.Tensor":
    """An orthonormal basis (m, b) of columns (m, b), orthogonal to the columns of `basis` (m, l)."""
    # Twice is enough: what the first pass leaves of the basis is rounding, which the second removes.
    for _ in range(2):
        columns = orthonormal(columns - basis @ (basis.T @ columns))
    return columns


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
