"""Exact search on a GPU: the scores of `indexer.search.engines` by plain torch, or by a FAISS index on the device."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.engines import NumpyEngine
from indexer.search.pools import Engine, Pool, TooManyPairsError, parts, pool_size
from seqdata.errors import MissingDependencyError
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    import faiss
    import torch

SCORE_VALUES = 1 << 26  # scores of one block: 256 MiB, small beside a card's memory and large beside a launch
COPY_VALUES = 1 << 26  # vectors copied or widened at once: 128 MiB of float16, 256 MiB of float32
RESIDENT_SHARE = 0.5  # of the free memory: scores, widened blocks and other users of the card need the rest
LOW = 2.0**11  # what a float16 loses of a number is below 2^-11 of it
FAISS_GREATEST_K = 2048  # FAISS 1.15 selects no more on a GPU

log = logging.getLogger(__name__)


def cuda_engine(vectors: StoredVectors) -> "TorchEngine":
    """The torch engine on CUDA.

    Raises:
        MissingDependencyError: Where torch sees no device.
    """
    import torch  # heavy

    if not torch.cuda.is_available():
        raise MissingDependencyError("engine cuda: torch sees no CUDA device here; use cpu")
    return TorchEngine(vectors, current_cuda())


def current_cuda() -> str:
    """Name the process's CUDA device with its number."""
    import torch  # heavy

    # torch 2.4's mem_get_info refuses a device without one; and "cuda" means another card after set_device.
    return f"cuda:{torch.cuda.current_device()}"


class AutoEngine:
    """The vectors on the GPU where they fit, the CPU where they do not or the card's memory runs out."""

    def __init__(self, vectors: StoredVectors, device: str) -> None:
        """`vectors` as for `NumpyEngine`; `device` as torch names it."""
        import torch  # heavy

        self._vectors = vectors
        self._engine: Engine
        try:
            # Copying all vectors at every search costs more than a product on the CPU: only resident ones pay.
            self._engine = TorchEngine(vectors, device) if fits(vectors, device) else NumpyEngine(vectors)
        except torch.OutOfMemoryError:
            self._leave_device()

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`."""
        import torch  # heavy

        try:
            return self._engine.best(queries, m, pool)
        except torch.OutOfMemoryError:
            self._leave_device()
            return self._engine.best(queries, m, pool)

    def above(
        self, queries: Float32Array, limits: Float32Array, pool: Pool, most: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """See `Engine.above`."""
        return self._engine.above(queries, limits, pool, most)

    def half_norms(self, pool: Pool) -> Float32Array:
        """See `Engine.half_norms`."""
        return self._engine.half_norms(pool)

    def first_components(self, count: int) -> Engine:
        """See `Engine.first_components`."""
        return self._engine.first_components(count)

    def _leave_device(self) -> None:
        log.warning("the GPU's memory is full: exact search goes on with the CPU")
        self._engine = NumpyEngine(self._vectors)


def fits(vectors: StoredVectors, device: str) -> bool:
    """Whether the vectors may stay on a device; on the CPU they always lie in memory or a file."""
    import torch  # heavy

    return not device.startswith("cuda") or vectors.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


class TorchEngine:
    """The same scores by torch on a device; the vectors stay there, as they are stored, where they fit.

    Scores are products in whole float32. Of float16 vectors on CUDA they are two float16 products with float32 sums,
    each query being the sum of two float16 vectors: that uses the tensor cores, reads half the bytes, and is as near.
    """

    def __init__(self, vectors: StoredVectors, device: str, resident: "torch.Tensor | None" = None) -> None:
        """`vectors` as for `NumpyEngine`; `device` as torch names it; `resident` are the vectors where they are there.

        Raises:
            torch.OutOfMemoryError: When they seemed to fit and do not.
        """
        self._vectors, self._device = vectors, device
        if resident is None and device.startswith("cuda") and fits(vectors, device):
            resident = upload(vectors, device)
        self._resident = resident
        self._half: torch.Tensor | None = None

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`."""
        import torch  # heavy

        scores = torch.empty(len(queries), 0, device=self._device)
        rows = torch.empty(len(queries), 0, dtype=torch.int64, device=self._device)
        for part, block_scores in self._scores(queries, pool):
            # The block's own best first: joining whole blocks would move more bytes than the product reads.
            best, columns = block_scores.topk(min(m, block_scores.shape[1]), dim=1)
            scores, rows = torch.cat([scores, best], dim=1), torch.cat([rows, self._rows(part, columns)], dim=1)
            scores, order = scores.topk(min(m, scores.shape[1]), dim=1)
            rows = rows.gather(1, order)
        return scores.cpu().numpy(), rows.cpu().numpy()

    def above(
        self, queries: Float32Array, limits: Float32Array, pool: Pool, most: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """See `Engine.above`."""
        import torch  # heavy

        limit = torch.from_numpy(limits).to(self._device)[:, None]
        for part, scores in self._scores(queries, pool):
            is_above = scores >= limit
            most -= int(torch.count_nonzero(is_above))
            if most < 0:
                raise TooManyPairsError
            lines, columns = torch.nonzero(is_above, as_tuple=True)
            yield lines.cpu().numpy(), self._rows(part, columns).cpu().numpy()

    def half_norms(self, pool: Pool) -> Float32Array:
        """See `Engine.half_norms`."""
        halves: Float32Array = self._halves().cpu().numpy()[pool]
        return halves

    def first_components(self, count: int) -> "TorchEngine":
        """See `Engine.first_components`."""
        resident = None if self._resident is None else self._resident[:, :count]
        return TorchEngine(self._vectors[:, :count], self._device, resident)

    def _scores(self, queries: Float32Array, pool: Pool) -> "Iterator[tuple[Pool, torch.Tensor]]":
        """Yield parts of the pool with the scores (q, b) of their rows."""
        import torch  # heavy

        with torch.no_grad():
            halves = self._halves()
            multiply = _multiplication(torch.from_numpy(np.array(queries)).to(self._device), self._vectors.dtype)
            for part, block in self._blocks(pool, self._step(pool, len(queries))):
                rows = part if isinstance(part, slice) else torch.from_numpy(part).to(self._device)
                yield part, multiply(block).sub_(halves[rows])

    def _step(self, pool: Pool, queries: int) -> int:
        """Rows a block: bounded by the scores, and by the vectors where a block is a copy of them."""
        is_copied = self._resident is None or not isinstance(pool, slice)
        step = SCORE_VALUES // max(queries, 1)
        return max(1, min(step, COPY_VALUES // self._vectors.shape[1]) if is_copied else step)

    def _blocks(self, pool: Pool, step: int) -> "Iterator[tuple[Pool, torch.Tensor]]":
        """Yield parts of the pool with their vectors on the device, as stored."""
        import torch  # heavy

        if self._resident is None:
            yield from device_blocks(self._vectors, pool, step, self._device)
            return
        for part in parts(pool, step):
            rows = part if isinstance(part, slice) else torch.from_numpy(part).to(self._device)
            yield part, self._resident[rows]

    def _halves(self) -> "torch.Tensor":
        """|x|²/2 of all vectors (n,) float32, computed once."""
        import torch  # heavy

        if self._half is None:
            half = torch.empty(len(self._vectors), device=self._device)
            step = max(1, COPY_VALUES // self._vectors.shape[1])
            for part, block in self._blocks(slice(0, len(self._vectors)), step):
                half[part] = block.float().square().sum(1) / 2
            self._half = half
        return self._half

    def _rows(self, part: Pool, columns: "torch.Tensor") -> "torch.Tensor":
        """Stored rows of the columns of a block's scores."""
        import torch  # heavy

        return columns + part.start if isinstance(part, slice) else torch.from_numpy(part).to(self._device)[columns]


def upload(vectors: StoredVectors, device: str) -> "torch.Tensor":
    """Copy stored vectors (n, d) to a device as they are; the host holds two blocks of them, not all."""
    import torch  # heavy

    dtype = torch.float16 if vectors.dtype == np.float16 else torch.float32
    resident = torch.empty(vectors.shape, dtype=dtype, device=device)
    step = max(1, COPY_VALUES // vectors.shape[1])
    for part, block in device_blocks(vectors, slice(0, len(vectors)), step, device):
        resident[part] = block
    return resident


def device_blocks(vectors: StoredVectors, pool: Pool, step: int, device: str) -> "Iterator[tuple[Pool, torch.Tensor]]":
    """Yield parts of a pool with their vectors (b, d) on a device, in the type that they are stored in.

    On CUDA the host reads the next block, into the other of two pinned buffers, while the device works on this one.
    """
    import torch  # heavy

    if not device.startswith("cuda"):
        for part in parts(pool, step):
            yield part, torch.from_numpy(np.array(vectors[part]))
        return
    dtype = torch.float16 if vectors.dtype == np.float16 else torch.float32
    shape = (min(step, pool_size(pool)), vectors.shape[1])
    pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
    for number, part in enumerate(parts(pool, step)):
        buffer, event = pinned[number % 2], copied[number % 2]
        event.synchronize()  # its last copy must have left the buffer
        target = buffer[: pool_size(part)]
        np.copyto(target.numpy(), vectors[part])
        block = target.to(device, non_blocking=True)
        event.record()
        yield part, block


def _multiplication(queries: "torch.Tensor", dtype: "np.dtype[Any]") -> "Callable[[torch.Tensor], torch.Tensor]":
    """A function from a block (b, d) to its products with the queries (q, d): (q, b) float32."""
    import torch  # heavy

    # float16 products with float32 results exist since torch 2.8, on CUDA only; else blocks are widened.
    if dtype != np.float16 or not queries.is_cuda or not hasattr(torch.ops.aten.mm, "dtype"):

        def multiply_wide(block: "torch.Tensor") -> "torch.Tensor":
            with float32_products(tf32=False):  # training may have allowed TF32
                return queries @ block.float().T

        return multiply_wide
    high, low, scale = split_queries(queries)
    both = torch.cat([high, low])

    def multiply(block: "torch.Tensor") -> "torch.Tensor":
        # One product of twice the rows: with few queries its time is that of reading the block once.
        products = torch.mm(both, block.T, out_dtype=torch.float32)
        upper, lower = products[: len(queries)], products[len(queries) :]
        return upper.add_(lower, alpha=1 / LOW).mul_(scale)

    return multiply


def split_queries(queries: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Split float32 vectors into two float16 ones each, whose sum carries 22 bits.

    Args:
        queries: Finite vectors (q, d) float32.

    Returns:
        high and low (q, d) float16, and scale (q, 1) float32, a power of two: q = (high + low / 2^11) · scale.
    """
    import torch  # heavy

    largest = queries.abs().amax(dim=1, keepdim=True)
    # Scaled to at most 1: float16 ends at 65,504 and is coarse below 6e-5. Powers of two round nothing.
    exponent = torch.frexp(largest).exponent.clamp(-125, 127)
    scaled = torch.ldexp(queries, -exponent)
    high = scaled.half()
    low = ((scaled - high.float()) * LOW).half()
    return high, low, torch.ldexp(torch.ones_like(largest), exponent)


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Take float32 products and convolutions on CUDA whole, or rounded to TF32's 10 bits; put back at the end.

    PyTorch's switches are the process's, so one thread at a time enters: what reads ahead computes nothing.
    """
    import torch  # heavy

    cudnn = torch.backends.cudnn
    switches: list[tuple[Any, str, Any]]
    # torch 2.9's own switches; it raises where the older ones are read after any program in the process set a new one.
    if hasattr(cudnn, "conv"):
        owners = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        switches = [(owner, "fp32_precision", "tf32" if tf32 else "ieee") for owner in owners]
    else:
        switches = [(owner, "allow_tf32", tf32) for owner in (torch.backends.cuda.matmul, cudnn)]
    before = [getattr(owner, name) for owner, name, _ in switches]
    for owner, name, value in switches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def faiss_resources() -> Any:
    """FAISS's scratch memory on the GPU.

    Raises:
        MissingDependencyError: Where FAISS has no GPU, or sees none.
    """
    import faiss  # heavy

    if not hasattr(faiss, "StandardGpuResources"):
        # Both packages install the module `faiss`, and the one that came last owns its files.
        is_covered = any(part.metadata["Name"] == "faiss-gpu" for part in distributions())
        raise MissingDependencyError(
            "engine faiss-gpu: the files of faiss-cpu lie over those of faiss-gpu; "
            "pip install --force-reinstall --no-deps faiss-gpu"
            if is_covered
            else "engine faiss-gpu: FAISS was built without a GPU; see docs/install.md, or use --engine cpu"
        )
    if faiss.get_num_gpus() == 0:
        raise MissingDependencyError("engine faiss-gpu: FAISS sees no GPU here; use --engine cpu")
    return _shared_resources(faiss.StandardGpuResources)


@lru_cache(maxsize=1)
def _shared_resources(kind: Callable[[], Any]) -> Any:
    """One for the process: each takes up to 1.5 GB of the card, whatever uses it."""
    return kind()


def gpu_copy(index: "faiss.Index", where: str) -> "faiss.Index | None":
    """Copy a trained index to the GPU; None, and a line in the log, for kinds that FAISS has no GPU form of.

    Raises:
        MissingDependencyError: Where FAISS has no GPU, or sees none.
    """
    import faiss  # heavy

    resources = faiss_resources()
    try:
        copy = faiss.index_cpu_to_gpu(resources, 0, index)
    except RuntimeError:
        log.warning("%s: FAISS has no GPU form of a %s; it is searched on the CPU", where, type(index).__name__)
        return None
    # The copy works in this memory, which Python would free without the reference.
    copy.referenced_objects = [resources]
    return copy


class FaissGpuEngine(NumpyEngine):
    """A flat FAISS index that stays on the GPU, for searches among all rows; the rest runs on the CPU."""

    def __init__(self, vectors: StoredVectors) -> None:
        """Raises:
        MissingDependencyError: Where FAISS was built without a GPU, or sees none.
        """
        self._resources = faiss_resources()
        import faiss  # heavy

        super().__init__(vectors)
        # float32 also where float16 is stored: FAISS's float16 form rounds the queries as well.
        self._index = faiss.GpuIndexFlatL2(self._resources, vectors.shape[1])
        step = max(1, COPY_VALUES // vectors.shape[1])
        for part in parts(slice(0, len(vectors)), step):
            block = np.ascontiguousarray(vectors[part], np.float32)
            self._halves(part, block)
            self._index.add(block)

    def best(self, queries: Float32Array, m: int, pool: Pool) -> tuple[Float32Array, IntArray]:
        """See `Engine.best`; fewer rows than all, or more neighbours than FAISS selects, are the CPU's."""
        if isinstance(pool, slice) and pool_size(pool) == len(self._vectors) and m <= FAISS_GREATEST_K:
            squared, rows = self._index.search(queries, m)
            scores = (np.einsum("qd,qd->q", queries, queries)[:, None] - squared) / 2
            return scores.astype(np.float32), rows
        return super().best(queries, m, pool)
