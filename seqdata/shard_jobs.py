"""The work on shards: one task a shard, run here, in a pool of processes, or on Ray; always the same task.

However it is run, few tasks are in flight at once, so that memory does not grow with the dataset.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import polars as pl

from seqdata.errors import OutputError
from seqdata.manifest import BuildSettings
from seqdata.shards import ShardPlan, write_shard
from seqdata.sources.base import open_source
from seqdata.storage import Store

Engine = Literal["pool", "ray"]
ENGINES: tuple[Engine, ...] = ("pool", "ray")
Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """Work that can be sent to another process, done any number of times with the same outcome."""

    def run(self) -> Result:
        """Do it, in whatever process this is."""
        ...


@dataclass(frozen=True)
class ShardJob:
    """One shard to write: where from, where to, the plan's rows of the listing (halo rows first), and how."""

    kind: str
    raw: Path
    options: dict[str, str]
    out: str
    settings: BuildSettings
    plan_hash: str
    plan: ShardPlan
    records: pl.DataFrame

    def run(self) -> ShardPlan:
        """Write the shard, in whatever process this is; the dump is opened there. Raises: as `write_shard`."""
        source = open_source(self.kind, self.raw, self.options)
        write_shard(Store(self.out), self.plan, self.records, source, self.settings, self.plan_hash)
        return self.plan


def run_jobs(jobs: Iterable[Job[Result]], engine: Engine, workers: int) -> Iterator[Result]:
    """Run every job and yield what they give as they are done. Raises: as the jobs, OutputError for a dead worker."""
    if engine == "ray":
        from seqdata.ray_engine import run_on_ray

        return run_on_ray(jobs, workers)
    return run_in_pool(jobs, workers)


def run_in_pool(jobs: Iterable[Job[Result]], workers: int) -> Iterator[Result]:
    """Run jobs in `workers` processes; a dead one is one clear error, and an error here ends them all."""
    waiting = iter(jobs)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        flying: set[Future[Result]] = set()
        try:
            while flying := flying | {pool.submit(job.run) for job in islice(waiting, 2 * workers - len(flying))}:
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                yield from (task.result() for task in done)
        except BrokenProcessPool as error:
            raise OutputError("a worker process was killed (out of memory?); run again with fewer --workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_worker() -> None:
    """Ctrl-C is the parent's to handle: workers end the shard they write. A worker never outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent(leave: Callable[[int], None] = os._exit) -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        leave(1)
