"""Matrix products whose bits depend on the two rows multiplied and on nothing else.

A BLAS library adds the terms of a product in an order that depends on the height of the block, the position of the row
in it, the number of threads and the processor; each order rounds differently. Here both factors are first rounded to
22 bits below the largest value of each run of 512 dimensions. Products of two such values are whole multiples of one
power of two, and 512 of them sum to at most 2^(22 + 22 + 9) = 2^53 of these units: float64 holds every partial sum
exactly, so that no order of additions rounds at all. The sums of the runs are then added in their order.

The rounding is as fine as that of a float32 product of the same length. The method is the error-free splitting of
Ozaki et al., Error-free transformations of matrix multiplication by using fast routines of matrix multiplication and
its applications, Numerical Algorithms 59, 2012, cut to one slice a factor.
"""

import sys
from typing import Any

import numpy as np

from seqdata.geometry import Float32Array, Float64Array

ARITHMETIC = "exact-sums-1"
"""Name of this arithmetic in manifests: vectors made by another are not mixed with it."""

RUN = 512
BITS = 22


def projection_of(arithmetic: str | None) -> str | None:
    """The name of how vectors were projected, of a manifest's names of all that was computed, joined by "+".

    Example:
        >>> projection_of("exact-sums-1+gram-parts-1")
        'exact-sums-1'
    """
    return None if arithmetic is None else arithmetic.partition("+")[0]


def round_to_grid(rows: Float32Array) -> Float32Array:
    """Round rows (n, d) to the 22 bits that `exact_product` multiplies; rows that are rounded already stay equal."""
    rounded = np.empty_like(rows)
    shifts = _shifts(rows)
    for run, start in enumerate(range(0, rows.shape[1], RUN)):
        rounded[:, start : start + RUN] = _rounded(rows[:, start : start + RUN], shifts[:, run : run + 1])
    return rounded


def exact_product(left: Float32Array, right: Float32Array) -> Float32Array:
    """Multiply every row of `left` (m, d) with every row of `right` (k, d), the latter rounded to the grid.

    Args:
        left: Finite rows (m, d) float32.
        right: Rows (k, d) float32 that `round_to_grid` returned.

    Returns:
        The scalar products (m, k) float32. The bits of one value are those of its two rows alone, whatever the other
        rows, the number of threads and the BLAS library.
    """
    total = np.zeros((len(left), len(right)))
    shifts = _shifts(left)
    for run, start in enumerate(range(0, left.shape[1], RUN)):
        part = _rounded(left[:, start : start + RUN], shifts[:, run : run + 1])
        total += part @ right[:, start : start + RUN].astype(np.float64).T
    return total.astype(np.float32)


def device_product(left: Any, right: Any) -> Any:
    """`exact_product` by torch on any device, to the same bits: no sum of a run rounds, in whatever order.

    Args:
        left: Finite rows (m, d) float32, a tensor.
        right: Rows (k, d) float64, a tensor, that `round_to_grid` returned, on the same device.

    Returns:
        The scalar products (m, k) float32.
    """
    # Whoever has tensors has loaded torch; what is read here must not load it (a contract of import-linter).
    torch = sys.modules["torch"]
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for start in range(0, left.shape[1], RUN):
        values = left[:, start : start + RUN].double()
        exponent = torch.frexp(values.abs().amax(dim=1, keepdim=True)).exponent
        shift = torch.ldexp(torch.full_like(values[:, :1], 1.5), exponent + 52 - BITS)
        total += (values + shift - shift) @ right[:, start : start + RUN].T
    return total.float()


def _shifts(rows: Float32Array) -> Float64Array:
    """Numbers (n, runs) which, added to a run's values and taken away again, leave 22 bits below its largest value."""
    starts = np.arange(0, rows.shape[1], RUN)
    largest = np.maximum.reduceat(np.abs(rows), starts, axis=1)
    # float64 has 52 bits behind the point: next to 1.5 · 2^(e + 30) its spacing is 2^(e - 22). The half keeps the sum
    # of a negative value in the same binade, where the spacing is the same.
    shifts: Float64Array = np.ldexp(1.5, np.frexp(largest)[1] + 52 - BITS)
    return shifts


def _rounded(values: Float32Array, shifts: Float64Array) -> Float64Array:
    rounded: Float64Array = values + shifts
    rounded -= shifts
    return rounded
