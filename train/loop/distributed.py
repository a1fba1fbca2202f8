"""Several processes that train one model together, as `torchrun` starts them.

Each rank holds the same model and describes its share of a step's windows; descriptors are gathered, so that each
computes the loss of the whole batch. Gradients are summed by hand at an update instead of by DistributedDataParallel:
the loss sees descriptors of all ranks, not the output of one module; shares may be empty, parameters unused, and
several steps may make one update. The sum needs no factor: a gathered batch carries gradient only through the rank's
own rows, and every rank has the whole loss, so the parts add up to the single process's gradient.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.devices.ranks import Ranks

PATIENCE = timedelta(hours=6)
"""How long a rank waits for the others: one may write to a slow disk, or describe a larger share. NCCL's own ten
minutes would end the run; a rank that fails ends all at once, without this (see `joined`)."""


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
