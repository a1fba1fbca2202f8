"""Several processes that train one model together, as `torchrun` starts them.

Each rank holds the same model and describes its share of a step's windows; descriptors are gathered, so that each
computes the loss of the whole batch. Gradients are summed by hand at an update instead of by DistributedDataParallel:
the loss sees descriptors of all ranks, not the output of one module; shares may be empty, parameters unused, and
several steps may make one update. The sum needs no factor: a gathered batch carries gradient only through the rank's
own rows, and every rank has the whole loss, so the parts add up to the single process's gradient.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqdata.errors import ContractError, SeqdataError
from seqdata.geometry import Float32Array, Float64Array

OK = 0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """One process, number `rank` of `size`; alone by default, when every method is free. `device`: of what is sent."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> slice:
        """Slice the rows of `count` that a rank (default: this one) takes: contiguous, even to one, perhaps none."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def gather(self, share: Tensor, count: int) -> Tensor:
        """Join the shares of all ranks (count, …) in order, on each; gradient flows through this rank's own rows."""
        if self.size == 1:
            return share
        spans = [self.share(count, rank) for rank in range(self.size)]
        # all_gather wants equal shares, and theirs differ by one at most.
        padded = share.new_zeros(-(-count // self.size), *share.shape[1:])
        padded[: len(share)] = share.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        rows = [part[: span.stop - span.start] for part, span in zip(parts, spans, strict=True)]
        rows[self.rank] = share
        return torch.cat(rows)

    def gather_rows(self, share: Float32Array, count: int) -> Float32Array:
        """As `gather`, for arrays `(m, D)` float32; a rank without rows learns D from the others."""
        if self.size == 1:
            return share
        width = self._reduced(float(share.shape[1] if len(share) else 0), dist.ReduceOp.MAX)
        rows = torch.from_numpy(share.reshape(len(share), int(width))).to(self.device)
        gathered_rows: Float32Array = self.gather(rows, count).cpu().numpy()
        return gathered_rows

    def from_first(self, values: Float64Array) -> Float64Array:
        """Send the first rank's array, of the same shape on each, to all. Whole numbers up to 2^53 stay exact."""
        if self.size == 1:
            return values
        sent = torch.from_numpy(np.ascontiguousarray(values, np.float64)).to(self.device)
        dist.broadcast(sent, 0)
        return sent.cpu().numpy()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all must call."""
        return flag if self.size == 1 else self._reduced(float(flag), dist.ReduceOp.MAX) > 0

    def total(self, number: int) -> int:
        """Add up a number over all ranks; all must call."""
        return number if self.size == 1 else int(self._reduced(float(number), dist.ReduceOp.SUM))

    def lead(self, action: Callable[[], None]) -> None:
        """Do something on the first rank while the others wait; where it fails there, they end with its exit code."""
        failure: SeqdataError | None = None
        if self.first:
            try:
                action()
            except SeqdataError as error:
                failure = error
        if self.size > 1:
            code = self._reduced(float(failure.exit_code if failure else OK), dist.ReduceOp.MAX)
            if code and not self.first:
                raise SystemExit(int(code))
        if failure is not None:
            raise failure

    def agree(self, number: int, what: str) -> None:
        """Raise ContractError on every rank when `number` (below 2^53) differs among them."""
        mine = float(self.from_first(np.array([number], np.float64))[0]) == number
        if self.any(not mine):
            raise ContractError(f"the processes of this run differ in {what}; start all with one command")

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all ranks; a parameter that got none on any rank keeps none."""
        if self.size == 1:
            return
        trained = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        # One message for all: how many ranks have a gradient of each parameter, then the gradients end to end.
        has_gradient = torch.tensor([float(p.grad is not None) for p in trained], device=self.device)
        flat = torch.cat([has_gradient, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        counts, *parts = torch.split(flat, [len(trained), *(gradient.numel() for gradient in gradients)])
        for parameter, part, count in zip(trained, parts, counts.tolist(), strict=True):
            parameter.grad = part.view_as(parameter).clone() if count else None

    def same_weights(self, model: nn.Module) -> None:
        """Give every rank the first one's weights."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    def _reduced(self, value: float, operation: "dist.ReduceOp.RedOpType") -> float:
        sent = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(sent, operation)
        return float(sent)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that the environment names (RANK, WORLD_SIZE, MASTER_ADDR …, as torchrun sets them), or this one alone.

    gloo on a CPU, nccl on CUDA. A group that stands already is used and left standing.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
    else:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        finally:
            dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The CUDA device of this process among those of its machine (LOCAL_RANK); `device` itself in every other case."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
