"""The processes that compute one thing together: who takes which rows, and what they tell each other."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqdata.errors import ContractError, SeqdataError
from seqdata.geometry import Float64Array

OK = 0
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

    def gather_rows(self, share: Tensor, count: int) -> Tensor:
        """As `gather`, without gradient and over the CPU: rows `(m, D)` float32 of any device, joined on the CPU.

        A rank without rows learns D from the others. A process that is alone gets its rows back, where they are.
        """
        if self.size == 1:
            return share
        # A rank without rows has no descriptor to take the size from.
        width = int(self._reduced(float(share.shape[1] if len(share) else 0), dist.ReduceOp.MAX))
        spans = [self.share(count, rank) for rank in range(self.size)]
        rows = torch.empty(count, width)
        # In pieces: besides the result only one message of each rank is in memory.
        step = max(1, ROWS_VALUES // max(1, width))
        for start in range(0, -(-count // self.size), step):
            piece = torch.zeros(min(step, -(-count // self.size) - start), width)
            mine = share[start : start + step]
            piece[: len(mine)] = mine.reshape(len(mine), width)
            parts = [torch.empty_like(piece) for _ in spans]
            dist.all_gather(parts, piece)
            for part, span in zip(parts, spans, strict=True):
                target = rows[span][start : start + step]
                target.copy_(part[: len(target)])
        return rows

    def results(self, own: Float64Array) -> Float64Array:
        """Stack the arrays (…) of all ranks, of one shape, to (ranks, …); the same on each."""
        if self.size == 1:
            return own[None]
        # float64, so that row numbers and float32 distances cross without rounding, in one message.
        sent = torch.from_numpy(np.array(own, np.float64, order="C"))
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return torch.stack(parts).numpy()

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


ALONE = Ranks()
"""One process that does everything itself."""
