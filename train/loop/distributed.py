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
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqdata.errors import ContractError, SeqdataError
from seqdata.geometry import Float32Array, Float64Array

OK = 0
CPU = torch.device("cpu")
PATIENCE = timedelta(hours=6)
"""How long a rank waits for the others: one may write to a slow disk, or describe a larger share. NCCL's own ten
minutes would end the run; a rank that fails ends all at once, without this (see `joined`)."""
ROWS_VALUES = 1 << 24
"""Numbers of one message of `gather_rows`: 64 MiB from each rank."""


@dataclass(frozen=True)
class Ranks:
    """One process, number `rank` of `size`; alone by default, when every method is free.

    Descriptors of a step and gradients are sent from where they are; all else from the CPU, so that no message about
    the run waits for a card.
    """

    rank: int = 0
    size: int = 1

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
        """As `gather`, for arrays `(m, D)` float32 in memory; a rank without rows learns D from the others."""
        if self.size == 1:
            return share
        width = int(self._reduced(float(share.shape[1] if len(share) else 0), dist.ReduceOp.MAX))
        spans = [self.share(count, rank) for rank in range(self.size)]
        rows = np.empty((count, width), np.float32)
        # In pieces: besides the result only one message of each rank is in memory.
        step = max(1, ROWS_VALUES // max(1, width))
        for start in range(0, -(-count // self.size), step):
            piece = torch.zeros(min(step, -(-count // self.size) - start), width)
            mine = share[start : start + step]
            piece[: len(mine)] = torch.from_numpy(mine.reshape(len(mine), width))
            parts = [torch.empty_like(piece) for _ in spans]
            dist.all_gather(parts, piece)
            for part, span in zip(parts, spans, strict=True):
                target = rows[span][start : start + step]
                target[...] = part[: len(target)].numpy()
        return rows

    def from_first(self, values: Float64Array) -> Float64Array:
        """Send the first rank's array, of the same shape on each, to all. Whole numbers up to 2^53 stay exact."""
        if self.size == 1:
            return values
        sent = torch.from_numpy(np.array(values, np.float64, order="C"))
        dist.broadcast(sent, 0)
        return sent.numpy()

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

    def same_weights(self, model: nn.Module) -> None:
        """Give every rank the first one's weights."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    def _reduced(self, value: float, operation: "dist.ReduceOp.RedOpType") -> float:
        sent = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(sent, operation)
        return float(sent)


class GradientSum:
    """Adds up the gradients of all ranks, in one message from memory that is taken once.

    Args:
        ranks: The processes.
        parameters: What is trained, in the same order on every rank.
    """

    def __init__(self, ranks: Ranks, parameters: Iterable[nn.Parameter]) -> None:
        self.ranks = ranks
        self.parameters = list(parameters)
        self._flat: Tensor | None = None
        self._views: list[Tensor] = []

    def __call__(self) -> None:
        """Sum the gradients in place; a parameter that got none on any rank keeps none."""
        if self.ranks.size == 1 or not self.parameters:
            return
        flat = self._memory()
        has_gradient = torch.tensor([float(p.grad is not None) for p in self.parameters])
        for view, parameter in zip(self._views, self.parameters, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
        # The flags go over the CPU: read from the card they would make the host wait for the whole step.
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        dist.all_reduce(flat)
        for parameter, view, has_any in zip(self.parameters, self._views, has_gradient.tolist(), strict=True):
            parameter.grad = view if has_any else None

    def _memory(self) -> Tensor:
        """One flat tensor, and a view of it for each parameter, laid out as the parameter is."""
        if self._flat is None:
            sizes = [parameter.numel() for parameter in self.parameters]
            flat = self._flat = self.parameters[0].new_zeros(sum(sizes))
            # Of channels-last weights too: Adam's fused kernel wants gradients in the layout of their weights.
            self._views = [
                part.as_strided(parameter.size(), parameter.stride())
                for part, parameter in zip(torch.split(flat, sizes), self.parameters, strict=True)
            ]
        return self._flat


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that the environment names (RANK, WORLD_SIZE, MASTER_ADDR …, as torchrun sets them), or this one alone.

    gloo for what lies on the CPU, nccl for what lies on CUDA. A group that stands already is used and left standing.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        # Before anything else: what says only "cuda" (FAISS, Triton, a library) would otherwise go to the first card.
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size())
    # Not after an error: the others may wait in a message, which leaving the group would wait for as well. This
    # process ends instead, and torchrun ends the others.
    dist.destroy_process_group()
