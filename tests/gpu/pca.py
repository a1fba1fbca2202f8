"""Fitting a PCA on the card against the CPU route of the same machine, and at the papers' size."""

from functools import partial

import numpy as np
import torch

from indexer.pca.fit import fit
from tests.gpu.clock import seconds
from tests.gpu.rows import Row


def measure(device: torch.device, tiny: bool) -> list[Row]:
    """Seconds of a fit; the CPU's at a smaller size, which both take."""
    sizes = {"small": (40, 24, 6), "large": (60, 90, 8)} if tiny else {
        "small": (4096, 6144, 1024), "large": (16_384, 24_576, 4096),
    }  # fmt: skip
    rows = []
    for name, (count, size, k) in sizes.items():
        sample = np.random.default_rng(0).standard_normal((count, size), dtype=np.float32)
        sample *= np.linspace(3, 0.1, size, dtype=np.float32)

        def ours(sample: np.ndarray = sample, k: int = k) -> None:
            fit(sample, k, device=str(device))

        label = f"PCA {size:,} to {k:,} of {count:,}"
        fast = seconds(ours, device, repeats=1, warm=1 if name == "small" else 0)
        if name == "small":
            slow = seconds(partial(fit, sample, k, device="cpu"), device, repeats=1, warm=0)
            rows.append(Row(label, fast, "s", slow))
        else:
            rows.append(Row(label, fast, "s", goal=20.0))
    return rows
