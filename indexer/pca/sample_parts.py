"""A sample of descriptors in sealed parts, made by whichever job comes: what the PCA of many jobs is fitted on.

Parts have a fixed number of rows, however many jobs there are, so that their sums and the fit are the same. A job takes
the next part that no other is at, and waits in the end for the few that are still being described; the part of a
job that was killed is taken over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import map_blocks
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.moments import BLOCK_VALUES, Scatter
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, Float64Array
from seqdata.storage.files import atomic_path
from seqdata.storage.lock import part_claimed

if TYPE_CHECKING:
    from indexer.arrays import StoredVectors

FITTED = f"{ARITHMETIC}+gram-parts-1"
"""Name in manifests of vectors projected by `exact_product` with a PCA that was fitted on sums of such parts."""
PART_ROWS = 2048
"""Rows of a part: eight parts of the 16,384 descriptors of the papers' practice. Part of what `FITTED` means."""
MOMENT_SIZE = 4096
"""Descriptors up to this size are folded into sums, 134 MB a part; the sums of larger ones need more than the rows."""

PART_BYTES = 256 << 20
"""Most bytes of a part that holds rows: what is in memory while it is described."""

DescribeRange = Callable[[range], Float32Array]


@dataclass(frozen=True)
class SampleParts:
    """The parts of one sample.

    Attributes:
        folder: Where they lie; several jobs, on several machines, may share it.
        rows: Descriptors in all.
        size: d, numbers of a descriptor.
    """

    folder: Path
    rows: int
    size: int

    def complete(self, describe: DescribeRange) -> None:
        """Make the parts that are missing; at the end all are there.

        Args:
            describe: Gives the descriptors (m, d) float32 of a range of the sample's rows.

        Raises:
            ContractError: If it gives another number of them, or of another size.
            OutputError: If the disk refuses.
        """
        # Without waiting first, so that jobs that begin together describe different parts.
        for waits in (False, True):
            for number in range(len(self._starts)):
                if self._is_whole(number):
                    continue
                with part_claimed(self._path(number).with_suffix(".lock"), wait=waits) as is_mine:
                    if is_mine and not self._is_whole(number):
                        self._write(number, describe)

    def data(self) -> "Scatter | StoredVectors":
        """Give the whole sample as `indexer.pca.fit.fit` takes it: its moments, or mapped rows (n, d) float32.

        The sums of the parts are added in their order, in float64.

        Raises:
            OutputError: If the disk refuses.
        """
        paths = [self._path(number) for number in range(len(self._starts))]
        if not self.is_folded:
            blocks = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
            return map_blocks(self.folder, blocks, (self.rows, self.size))
        import torch  # heavy

        # In NumPy until here: a job that makes parts alone needs no torch.
        matrix, mean = _joined([np.load(path, allow_pickle=False) for path in paths], self._counts)
        return Scatter(torch.from_numpy(matrix), mean, self.rows)

    @property
    def is_folded(self) -> bool:
        """Whether parts hold sums: fewer descriptors than dimensions need the products of every two of them instead."""
        return self.size <= min(self.rows, MOMENT_SIZE)

    @property
    def _step(self) -> int:
        return PART_ROWS if self.is_folded else max(1, min(PART_ROWS, PART_BYTES // (4 * self.size)))

    @cached_property
    def _starts(self) -> range:
        return range(0, self.rows, self._step)

    @property
    def _counts(self) -> list[int]:
        return [min(self._step, self.rows - start) for start in self._starts]

    def _path(self, number: int) -> Path:
        return self.folder / f"{'sums' if self.is_folded else 'rows'}-{number:05d}.npy"

    def _is_whole(self, number: int) -> bool:
        # A part has its name only when all of it is on the disk.
        return self._path(number).is_file()

    def _write(self, number: int, describe: DescribeRange) -> None:
        rows = range(self._starts[number], self._starts[number] + self._counts[number])
        block = np.asarray(describe(rows), np.float32)
        if block.shape != (len(rows), self.size):
            raise ContractError(f"PCA sample: descriptors of shape {block.shape} for ({len(rows)}, {self.size})")
        with atomic_path(self._path(number)) as temporary, temporary.open("wb") as file:
            np.save(file, _sums(block) if self.is_folded else block, allow_pickle=False)


def _sums(rows: Float32Array) -> Float64Array:
    """Mean (first row) and centred scatter matrix of rows (m, d): (1 + d, d) float64."""
    sums = np.zeros((1 + rows.shape[1], rows.shape[1]))
    sums[0] = rows.mean(axis=0, dtype=np.float64)
    step = max(1, BLOCK_VALUES // rows.shape[1])
    for start in range(0, len(rows), step):
        centred = rows[start : start + step] - sums[0]
        sums[1:] += centred.T @ centred
    return sums


def _joined(parts: list[Float64Array], counts: list[int]) -> tuple[Float64Array, Float64Array]:
    """Centred scatter matrix (d, d) and mean (d,) of all rows from those of parts, added in order.

    Source: Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    mean: Float64Array = sum(count * part[0] for count, part in zip(counts, parts, strict=True)) / sum(counts)
    matrix = np.zeros_like(parts[0][1:])
    for count, part in zip(counts, parts, strict=True):
        offset = part[0] - mean
        matrix += part[1:]
        matrix += count * np.outer(offset, offset)
    return matrix, mean
