"""Ranks that are threads of one process: they exchange what gloo would send, for tests of what each computes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import torch

from train.devices.ranks import Ranks

Result = TypeVar("Result")
SECONDS = 60.0


@dataclass(frozen=True)
class Table:
    """Where the threads lay down what they send."""

    barrier: Barrier
    messages: list[Any]


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """One of `size` threads."""

    table: Table = field(default_factory=lambda: Table(Barrier(1), [None]))

    def exchange(self, message: Any) -> list[Any]:
        self.table.messages[self.rank] = message
        self.table.barrier.wait(SECONDS)
        messages = list(self.table.messages)
        self.table.barrier.wait(SECONDS)
        return messages

    def gather_rows(self, share: torch.Tensor, count: int) -> torch.Tensor:
        parts = [part for part in self.exchange(share) if len(part)]
        assert [len(part) for part in parts] == [
            length for rank in range(self.size) if (length := len(range(count)[self.share(count, rank)]))
        ]
        return torch.cat(parts)

    def results(self, own: Any) -> Any:
        return np.stack(self.exchange(own))


def together(size: int, action: Callable[[Ranks], Result]) -> list[Result]:
    """What each of `size` threads gives."""
    table = Table(Barrier(size), [None] * size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: action(ThreadRanks(rank, size, table)), range(size)))
