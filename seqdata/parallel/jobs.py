"""What independent jobs are: work that any process may do, and the callbacks that report progress."""

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

Engine = Literal["pool", "ray"]
ENGINES: tuple[Engine, ...] = ("pool", "ray")
Progress = Callable[[int, int], None]
"""A callback: items finished, items in all."""
StageProgress = Callable[[str, int, int], None]
"""A callback: name of the stage, items finished, items in all."""
Result = TypeVar("Result", covariant=True)


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
