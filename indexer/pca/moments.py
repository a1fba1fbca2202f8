"""Second moments of a sample of descriptors, in blocks and float64: what every PCA route is computed from.

A `Sample` is rows at hand (array, memmap, or few enough streamed rows); a `Scatter` is a stream of at least
d rows that has been folded into its d×d matrix. Both multiply the centred scatter matrix with a block of
directions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import Float32Array, Float64Array

if TYPE_CHECKING:
    import torch

Block = npt.NDArray[np.floating]

BLOCK_VALUES = 1 << 24  # float64 values of one block: 128 MiB
SYMMETRIC = 4096  # up to this size a second matrix (128 MiB) is had beside the sum, and the products cost half


@dataclass(frozen=True, eq=False)
class Sample:
    """Descriptors at hand: `rows` (n, d), their `mean` (d,) in float64. n < d or a re-readable array.

    `device`, as torch names it: where products are computed, and lie.
    """

    rows: Block
    mean: Float64Array
    device: str = "cpu"

    @property
    def count(self) -> int:
        """N."""
        return int(self.rows.shape[0])

    @property
    def size(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    def _by_rows(self) -> "Iterator[torch.Tensor]":
        step = max(1, BLOCK_VALUES // self.size)
        for start in range(0, self.count, step):
            yield _tensor(self.rows[start : start + step] - self.mean, self.device)

    def _by_columns(self) -> "Iterator[tuple[slice, torch.Tensor]]":
        step = max(1, BLOCK_VALUES // self.count)
        for start in range(0, self.size, step):
            part = slice(start, start + step)
            yield part, _tensor(self.rows[:, part] - self.mean[part], self.device)

    def gram(self) -> "torch.Tensor":
        """Centred Gram matrix (n, n) float64, summed over blocks of columns."""
        import torch  # heavy

        gram = torch.zeros(self.count, self.count, dtype=torch.float64, device=self.device)
        for _, block in self._by_columns():
            gram.addmm_(block, block.T)
        return gram

    def covariance(self) -> "torch.Tensor":
        """Centred scatter matrix (d, d) float64 (not yet divided by n - 1), summed over blocks of rows."""
        import torch  # heavy

        if self.device == "cpu" and self.size <= SYMMETRIC:
            matrix = np.zeros((self.size, self.size))
            for block in self._by_rows():
                # NumPy knows a product with its own transpose (BLAS syrk) and computes half of it.
                matrix += block.numpy().T @ block.numpy()
            return torch.from_numpy(matrix)
        scatter = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        for block in self._by_rows():
            scatter.addmm_(block.T, block)
        return scatter

    def project(self, vectors: "torch.Tensor", scale: "torch.Tensor") -> Float32Array:
        """Directions (k, d) float32 from Gram eigenvectors (n, k) and their singular values (k,)."""
        directions = np.empty((vectors.shape[1], self.size), np.float32)
        weights = (vectors / scale).T
        for part, block in self._by_columns():
            directions[:, part] = (weights @ block).cpu().numpy()
        return directions

    def multiply(self, directions: "torch.Tensor") -> "torch.Tensor":
        """Scatter matrix times (d, l) float64 in one pass over the rows, the matrix itself never formed."""
        import torch  # heavy

        product = torch.zeros_like(directions)
        for block in self._by_rows():
            product.addmm_(block.T, block @ directions)
        return product

    def total(self) -> float:
        """Sum of squared deviations: the trace of the scatter matrix."""
        return float(sum((block * block).sum() for block in self._by_rows()))


@dataclass(frozen=True, eq=False)
class Scatter:
    """A folded stream: centred scatter `matrix` (d, d) float64, `mean` (d,) float64 and n."""

    matrix: "torch.Tensor"
    mean: Float64Array
    count: int

    @property
    def device(self) -> str:
        """Where the matrix lies."""
        return str(self.matrix.device)

    @property
    def size(self) -> int:
        """D."""
        return int(self.matrix.shape[0])

    def covariance(self) -> "torch.Tensor":
        """The scatter matrix (d, d)."""
        return self.matrix

    def multiply(self, directions: "torch.Tensor") -> "torch.Tensor":
        """Scatter matrix times (d, l), in float64."""
        return self.matrix @ directions

    def total(self) -> float:
        """Sum of squared deviations."""
        return float(self.matrix.trace())


def gather(sample: Block | Iterable[Block] | Scatter, device: str = "cpu") -> Sample | Scatter:
    """Take a sample in: arrays stay where they are; streamed blocks are kept until d rows, then folded on `device`.

    Moments that were folded before stay as they are, on `device`.

    Raises:
        NotEnoughDataError: When there is no descriptor.
        ContractError: On uneven or non-finite blocks.
    """
    if isinstance(sample, Scatter):
        return replace(sample, matrix=sample.matrix.to(device))
    if isinstance(sample, np.ndarray):
        _check_block(sample, None)
        if len(sample) == 0:
            raise NotEnoughDataError("PCA: no descriptors; build a database for the training split first")
        return Sample(sample, _mean(sample), device)
    return _gather_stream(iter(sample), device)


def _gather_stream(blocks: Iterator[Block], device: str) -> Sample | Scatter:
    head: list[Float32Array] = []
    count, size = 0, None
    for block in blocks:
        _check_block(block, size)
        _check_finite(block)
        size = block.shape[1]
        head.append(np.array(block, dtype=np.float32))
        count += len(block)
        # From d rows on the eigenproblem is d wide either way, and the matrix, unlike the rows, grows no more.
        if count >= size:
            return _fold(head, blocks, device)
    if count == 0:
        raise NotEnoughDataError("PCA: no descriptors; build a database for the training split first")
    rows = np.concatenate(head)
    return Sample(rows, rows.mean(axis=0, dtype=np.float64), device)


def _fold(head: list[Float32Array], rest: Iterator[Block], device: str) -> Scatter:
    """Fold rows into moments about the first rows' mean (a shift near the mean keeps the sums exact)."""
    import torch  # heavy

    size = head[0].shape[1]
    shift = np.mean([block.mean(axis=0, dtype=np.float64) for block in head], axis=0)
    matrix = torch.zeros(size, size, dtype=torch.float64, device=device)
    first, count = np.zeros(size), 0
    step = max(1, BLOCK_VALUES // size)
    for block in _chain(head, rest, size):
        for start in range(0, len(block), step):
            part = _tensor(block[start : start + step] - shift, device)
            matrix.addmm_(part.T, part)
            first += part.sum(0).cpu().numpy()
            count += len(part)
    offset = torch.from_numpy(first / count).to(device)
    # Moments about the shift become moments about the mean: Σ(x-m)(x-m)ᵀ = Σ(x-s)(x-s)ᵀ - n·(m-s)(m-s)ᵀ.
    matrix.addr_(offset, offset, alpha=-float(count))
    return Scatter(matrix, shift + first / count, count)


def _chain(head: list[Float32Array], rest: Iterator[Block], size: int) -> Iterator[Block]:
    # Freed one by one: the rows and the matrix are never both whole in memory.
    while head:
        yield head.pop(0)
    for block in rest:
        _check_block(block, size)
        _check_finite(block)
        yield block


def _mean(rows: Block) -> Float64Array:
    """Mean (d,) in float64, block by block; checks that every value is finite on the way."""
    step = max(1, BLOCK_VALUES // rows.shape[1])
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        _check_finite(part)
        total += part.sum(axis=0, dtype=np.float64)
    mean: Float64Array = total / len(rows)
    return mean


def _tensor(block: Block, device: str) -> "torch.Tensor":
    import torch  # heavy

    return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float64)).to(device)


def _check_block(block: Block, size: int | None) -> None:
    if block.ndim != 2 or (size is not None and block.shape[1] != size):
        expected = "(n, d)" if size is None else f"(n, {size})"
        raise ContractError(f"PCA: a block of shape {block.shape} where {expected} is needed")


def _check_finite(block: Block) -> None:
    if not np.isfinite(block).all():
        raise ContractError("PCA: a descriptor holds NaN or infinity; check the model's weights")
