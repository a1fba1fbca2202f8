"""Small tensors between host and device without waiting, and what to do where a device's memory ends."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

Result = TypeVar("Result")

RESULTS_SHARE = 0.25
"""Most of a card's free memory that results may stay in: distances in float64 take twice theirs again (a guess)."""

log = logging.getLogger(__name__)


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the CPU to a device; the host does not wait for what a card is doing."""
    # Only from pinned memory is a copy queued; from other memory PyTorch waits until all before it has run.
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def to_host(values: Tensor) -> NDArray[Any]:
    """Bring a tensor to the host as an array; from a card through pinned memory, several times as fast."""
    if not values.is_cuda:
        return values.numpy()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host.numpy()


def has_room(size: int, device: torch.device) -> bool:
    """Whether results of `size` bytes may stay on a device beside what computes there; on the CPU they always do."""
    if device.type != "cuda":
        return True
    # What PyTorch has taken from the card and does not use at the moment is free as well.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return size < RESULTS_SHARE * (torch.cuda.mem_get_info(device)[0] + unused)


def or_on_cpu(compute: Callable[[torch.device], Result], device: torch.device) -> Result:
    """Compute something on a device; on the CPU where the device's memory ends, with a line in the log."""
    try:
        return compute(device)
    except torch.OutOfMemoryError:
        log.warning("the memory of %s is full: what does not fit is computed on the CPU", device)
    # Not within the except: its traceback would hold the tensors that filled the memory.
    return compute(torch.device("cpu"))
