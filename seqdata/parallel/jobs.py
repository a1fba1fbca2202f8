"""What independent jobs are: work that any process may do, and the callbacks that report progress."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from seqdata.errors import ContractError

Engine = Literal["pool", "ray"]
ENGINES: tuple[Engine, ...] = ("pool", "ray")
Progress = Callable[[int, int], None]
"""A callback: items finished, items in all."""
StageProgress = Callable[[str, int, int], None]
"""A callback: name of the stage, items finished, items in all."""
Result = TypeVar("Result", covariant=True)
Part = TypeVar("Part")


def stage_progress(progress: StageProgress | None, stage: str) -> Progress | None:
    """Bind a callback to one stage."""
    if progress is None:
        return None
    return lambda finished, total: progress(stage, finished, total)


class Job(Protocol[Result]):
    """Work that can be pickled to another process, and run any number of times with the same outcome."""

    def run(self) -> Result:
        """Do the work in this process."""
        ...


@dataclass(frozen=True)
class ShardRange:
    """Job `number` (from 1) of `jobs`: every `jobs`-th part of some work."""

    number: int
    jobs: int

    @classmethod
    def parse(cls, text: str) -> "ShardRange":
        """The range that `i/N` names.

        Raises:
            ContractError: If it is no i/N with i from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, jobs = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= jobs:
            raise ContractError(f"shard range '{text}': expected i/N with i from 1 to N, such as 2/8")
        return cls(number, jobs)

    def select(self, parts: Sequence[Part]) -> list[Part]:
        """Select the parts of this job."""
        return list(parts[self.number - 1 :: self.jobs])
