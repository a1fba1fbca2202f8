"""Exact search on a GPU: the scores of `indexer.search.engines` by plain torch, or FAISS's own nearest rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.engines import NumpyEngine
from indexer.search.pools import Pool, TooManyPairsError, numbers_of, parts
from seqdata.errors import MissingDependencyError
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    import torch

GPU_BLOCK_VALUES = 1 << 26


def cuda_engine(vectors: StoredVectors) -> "TorchEngine":
    """The torch engine on CUDA. Raises: MissingDependencyError where torch sees no device."""
    import torch  # heavy

    if not torch.cuda.is_available():
        raise MissingDependencyError("engine cuda: torch sees no CUDA device here; use cpu")
    return TorchEngine(vectors, "cuda")


class TorchEngine:
    """The same scores by torch on a device; the vectors stay there where they fit into half of its free memory."""

    def __init__(self, vectors: StoredVectors, device: str) -> None:
        """`vectors` as for `NumpyEngine`; `device` as torch names it."""
        self._vectors, self._device = vectors, device
        self._resident: Any = None
        self._half = np.empty(len(vectors), np.float32)
        if device.startswith("cuda"):
            import torch  # heavy

            free, _ = torch.cuda.mem_get_info(device)
            if vectors.nbytes < free // 2:
                self._resident = torch.from_numpy(np.array(vectors)).to(device)

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`."""
        import torch  # heavy

        scores = torch.empty(len(queries), 0, device=self._device)
        rows = torch.empty(len(queries), 0, dtype=torch.int64, device=self._device)
        for block_scores, numbers in self._scores(queries, pool):
            scores = torch.cat([scores, block_scores], dim=1)
            rows = torch.cat([rows, numbers.expand(len(queries), -1)], dim=1)
            scores, order = scores.topk(min(m, scores.shape[1]), dim=1)
            rows = rows.gather(1, order)
        return scores.cpu().numpy(), rows.cpu().numpy()

    def above(
        self, queries: Float32Array, limits: Float32Array, pool: Pool, most: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """See `Engine.above`."""
        import torch  # heavy

        limit = torch.from_numpy(limits).to(self._device)[:, None]
        for scores, numbers in self._scores(queries, pool):
            is_above = scores >= limit
            most -= int(torch.count_nonzero(is_above))
            if most < 0:
                raise TooManyPairsError
            lines, columns = torch.nonzero(is_above, as_tuple=True)
            yield lines.cpu().numpy(), numbers[columns].cpu().numpy()

    def half_norms(self, pool: Pool) -> Float32Array:
        """See `Engine.half_norms`."""
        halves: Float32Array = self._half[pool]
        return halves

    def _scores(self, queries: Float32Array, pool: Pool) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        import torch  # heavy

        device_queries = torch.from_numpy(np.ascontiguousarray(queries)).to(self._device)
        step = max(1, GPU_BLOCK_VALUES // max(self._vectors.shape[1], len(queries)))
        with torch.no_grad(), _full_float32():
            for part in parts(pool, step):
                numbers = torch.from_numpy(numbers_of(part)).to(self._device)
                block = self._block(part, numbers)
                half = (block * block).sum(1) / 2
                self._half[part] = half.cpu().numpy()
                yield torch.addmm(half[None], device_queries, block.T, beta=-1), numbers

    def _block(self, part: Pool, numbers: "torch.Tensor") -> "torch.Tensor":
        import torch  # heavy

        if self._resident is None:
            return torch.from_numpy(np.array(self._vectors[part], np.float32)).to(self._device)
        resident: torch.Tensor = self._resident[part] if isinstance(part, slice) else self._resident[numbers]
        return resident.float()


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products in whole float32: a training set to TF32 in the same process would round them to 10 bits."""
    import torch  # heavy

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class FaissGpuEngine(NumpyEngine):
    """`faiss.knn_gpu` for the nearest rows; the rare recount of near ties runs on the CPU."""

    def __init__(self, vectors: StoredVectors) -> None:
        """Raises: MissingDependencyError where FAISS was built without a GPU, or sees none."""
        import faiss  # heavy

        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
            raise MissingDependencyError("engine faiss-gpu: FAISS sees no GPU here; install faiss-gpu or use cpu")
        super().__init__(vectors)
        self._resources = faiss.StandardGpuResources()

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`; pools of any rows are gathered first."""
        import faiss  # heavy

        block = np.ascontiguousarray(self._vectors[pool], np.float32)
        self._halves(pool, block)
        squared, columns = faiss.knn_gpu(self._resources, queries, block, m)
        scores = (np.einsum("qd,qd->q", queries, queries)[:, None] - squared) / 2
        return scores.astype(np.float32), numbers_of(pool)[columns]
