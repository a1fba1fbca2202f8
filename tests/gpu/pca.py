"""Fitting a PCA on the card against the CPU route of the same machine, and at the papers' size."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from indexer.pca.fit import fit
from tests.gpu.clock import matrix_rate, seconds
from tests.gpu.rows import Row


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Seconds of a fit. The CPU's is taken at a quarter of the size, where it is bearable; both take that."""
    small, large = ((40, 24, 6), (60, 90, 8)) if tiny else ((4096, 6144, 1024), (16_384, 24_576, 4096))
    for count, size, k in (small, large):
        sample = np.random.default_rng(0).standard_normal((count, size), dtype=np.float32)
        sample *= np.linspace(3, 0.1, size, dtype=np.float32)
        is_small = (count, size, k) == small
        fast = seconds(partial(fit, sample, k, device=str(device)), device, repeats=1, warm=1 if is_small else 0)
        slow = seconds(partial(fit, sample, k, device="cpu"), device, repeats=1, warm=0) if is_small else None
        # The Gram matrix and the directions alone, in float64; eigenvectors come on top.
        ceiling = (2 * min(count, size) ** 2 * max(count, size) + 2 * count * k * size) / matrix_rate(
            device, torch.float64
        )
        label = f"PCA {size:,} to {k:,} of {count:,}"
        yield Row(label, fast, "s", slow, ceiling, None if is_small else 20.0, "peer" if is_small else "ours")
