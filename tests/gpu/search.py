"""Exact search on the card against a product and topk in float32, beside the card's bandwidth and matrix rate."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from indexer.search.exact import ExactVectors
from indexer.search.gpu_engines import TorchEngine
from tests.gpu.clock import copy_rate, matrix_rate, seconds
from tests.gpu.rows import Row

K = 10


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Seconds of a batch of 1, 64 and 1,024 queries among stored float16 vectors that stay on the card."""
    count, size = (2000, 32) if tiny else (1_000_000, 4096)
    rng = torch.Generator(device=device).manual_seed(0)
    vectors = np.empty((count, size), np.float16)
    step = 50_000
    for start in range(0, count, step):
        block = torch.randn(min(step, count - start), size, generator=rng, device=device)
        vectors[start : start + step] = (block / block.norm(dim=1, keepdim=True)).half().cpu().numpy()
    ours = ExactVectors(vectors, TorchEngine(vectors, str(device)))
    # The peer's float32 vectors need twice the memory: a quarter of them, and its time four times.
    part = count // 4
    theirs = torch.from_numpy(vectors[:part].astype(np.float32)).to(device)
    halves = theirs.square().sum(1) / 2
    for batch in (1, 64, 1024):
        queries = np.random.default_rng(batch).standard_normal((batch, size)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)

        def search(queries: np.ndarray = queries) -> None:
            ours.nearest(queries, K)

        def product(queries: np.ndarray = queries) -> None:
            points = torch.from_numpy(queries).to(device)
            torch.addmm(halves[None], points, theirs.T, beta=-1).topk(K, dim=1)[1].cpu()

        fast = seconds(search, device, repeats=1 if tiny else 3, warm=1)
        slow = 4 * seconds(product, device, repeats=1 if tiny else 3, warm=1)
        # Reading float16 once, or as many float16 multiplications, whichever takes longer. A copy reads and writes.
        reading = count * size * 2 / copy_rate(device)
        multiplying = 2 * batch * count * size / matrix_rate(device, torch.float16)
        goal = 0.8 if batch == 1 else 0.5
        yield Row(f"exact search, {batch} queries", fast, "s", slow, max(reading, multiplying), goal, "ceiling")
