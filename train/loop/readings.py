"""Numbers that a device computes, read by the host some steps later, so that neither waits for the other."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Use = Callable[[list[float]], None]


class Readings:
    """Numbers on their way from a device; those of a CPU are there at once.

    Reading a number from a card makes the host wait for all work before it, and the card for the host's next. Here a
    copy is only started; it is looked at when so much newer work is queued that it has long arrived.
    """

    def __init__(self, device: torch.device) -> None:
        """`device`: of the numbers."""
        self._is_immediate = device.type == "cpu"
        self._pending: deque[tuple[Tensor, torch.cuda.Event | None, Use]] = deque()

    def add(self, values: Tensor, use: Use) -> None:
        """Have `use` called with the numbers (n,): now on a CPU, else when they are settled."""
        self._pending.append((*self._start(values.detach()), use))
        if self._is_immediate:
            self.settle()

    def settle(self, newest: int = 0) -> None:
        """Use all numbers in order, but those of the `newest` additions. Raises: as their `use`."""
        while len(self._pending) > newest:
            values, event, use = self._pending.popleft()
            if event is not None:
                event.synchronize()
            use(values.tolist())

    def _start(self, values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Start the copy to the host; the event comes after it."""
        if not values.is_cuda:
            return values.clone(), None
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return host, event
