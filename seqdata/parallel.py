"""The work on shards: one task a shard, run here, in a pool of processes, or on Ray; always the same task.

However it is run, few tasks are in flight at once, so that memory does not grow with the dataset.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, Literal, Protocol, TypeVar

from seqdata.errors import MissingDependencyError, OutputError, SeqdataError

Engine = Literal["pool", "ray"]
Progress = Callable[[int, int], None]
"""A callback: items finished, items in all."""
StageProgress = Callable[[str, int, int], None]
"""A callback: name of the stage, items finished, items in all."""
ENGINES: tuple[Engine, ...] = ("pool", "ray")
Result = TypeVar("Result", covariant=True)


def stage_progress(progress: StageProgress | None, stage: str) -> Progress | None:
    """Bind a callback to one stage."""
    if progress is None:
        return None
    return lambda finished, total: progress(stage, finished, total)


class Job(Protocol[Result]):
    """Work that can be sent to another process, done any number of times with the same outcome."""

    def run(self) -> Result:
        """Do it, in whatever process this is."""
        ...


def run_jobs(jobs: Iterable[Job[Result]], engine: Engine, workers: int) -> Iterator[Result]:
    """Run every job and yield what they give as they are done. Raises: as the jobs, OutputError for a dead worker."""
    if engine == "ray":
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


def run_on_ray(jobs: "Iterable[Job[Result]]", workers: int) -> "Iterator[Result]":
    """Run jobs on Ray and yield what they give as they are done, at most two a CPU in flight.

    A cluster that is connected already is used and left as it is; else RAY_ADDRESS is, else one is started here with
    `workers` CPUs and ended at the end.
    Raises: as the jobs; MissingDependencyError without Ray; OutputError when the cluster cannot be used.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers)
    try:
        yield from _run(ray, iter(jobs))
    finally:
        if ours:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("engine ray needs Ray: pip install 'seqdata[ray]'") from error
    return ray


def _connect(ray: Any, workers: int) -> None:
    import os

    here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(logging_level="error", log_to_driver=False, **here)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutputError(f"Ray cannot be used ({first}); check RAY_ADDRESS, or use --engine pool") from error


def _run(ray: Any, jobs: "Iterator[Job[Result]]") -> "Iterator[Result]":
    task = ray.remote(max_retries=2)(_task)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    flying: list[Any] = []
    try:
        for job in jobs:
            flying.append(task.remote(job))
            if len(flying) >= most:
                done, flying = ray.wait(flying)
                yield from _results(ray, done)
        while flying:
            done, flying = ray.wait(flying)
            yield from _results(ray, done)
    except BaseException:
        for reference in flying:
            ray.cancel(reference)
        raise


def _task(job: "Job[Result]") -> "Result":
    return job.run()


def _results(ray: Any, done: list[Any]) -> Iterator[Any]:
    """What tasks gave. Raises: the error of the task itself, not Ray's wrapper around it."""
    for reference in done:
        try:
            yield ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SeqdataError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise OutputError("a Ray worker died (out of memory?); run the same command again") from error
