"""Independent jobs on several processors: in a pool of processes or on Ray, always the same job with the same outcome.

Few jobs are in flight at once, so that memory does not grow with the dataset. The callbacks that report progress are
defined here too.
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


def run_jobs(jobs: Iterable[Job[Result]], engine: Engine, workers: int) -> Iterator[Result]:
    """Run every job and yield the results as they come, in any order.

    Args:
        jobs: The jobs; they are taken only as workers become free.
        engine: "pool" for processes of this machine, "ray" for a Ray cluster.
        workers: Processes, or CPUs of a cluster that is started here.

    Raises:
        OutputError: If a worker dies or the cluster cannot be used; other errors are those of the jobs.
        MissingDependencyError: If Ray is not installed.
    """
    if engine == "ray":
        return run_on_ray(jobs, workers)
    return run_in_pool(jobs, workers)


def run_in_pool(jobs: Iterable[Job[Result]], workers: int) -> Iterator[Result]:
    """Run jobs in processes of this machine; an error of one ends them all.

    Args:
        jobs: What to run.
        workers: Number of processes.

    Yields:
        The result of each job, as they end.

    Raises:
        OutputError: If a process is killed.
    """
    waiting = iter(jobs)
    # "spawn": a fork would copy locks that other threads of this process (polars, Arrow) may hold at that moment.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        running: set[Future[Result]] = set()
        try:
            # Two jobs a worker: one runs while the next is already there. More would only fill memory.
            while running := running | {pool.submit(job.run) for job in islice(waiting, 2 * workers - len(running))}:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        except BrokenProcessPool as error:
            raise OutputError("a worker process was killed (out of memory?); run again with fewer --workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    # The terminal sends Ctrl-C to every process of the group: a worker shall finish the shard that it writes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent(leave: Callable[[int], None] = os._exit) -> None:
    """Wait for the end of the parent process, then leave: a killed parent cannot tell its workers to stop."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        leave(1)


def run_on_ray(jobs: Iterable[Job[Result]], workers: int) -> Iterator[Result]:
    """Run jobs on Ray, at most two a CPU in flight.

    A cluster that is connected already is used and left as it is; else the one of RAY_ADDRESS; else one is started here
    and ended at the end.

    Args:
        jobs: What to run.
        workers: CPUs of a cluster that is started here.
    """
    ray = _import_ray()
    is_connected = ray.is_initialized()
    if not is_connected:
        _connect(ray, workers)
    try:
        yield from _run(ray, iter(jobs))
    finally:
        if not is_connected:
            ray.shutdown()


def _import_ray() -> Any:
    """Import Ray. Raises: MissingDependencyError without it."""
    try:
        import ray  # optional
    except ImportError as error:
        raise MissingDependencyError("engine ray needs Ray: pip install 'ray>=2.9'") from error
    return ray


def _connect(ray: Any, workers: int) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start one. Raises: OutputError."""
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(logging_level="error", log_to_driver=False, **local)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutputError(f"Ray cannot be used ({first_line}); check RAY_ADDRESS, or use --engine pool") from error


def _run(ray: Any, jobs: Iterator[Job[Result]]) -> Iterator[Result]:
    """Submit jobs to Ray and yield their results."""
    # A job that is run again ends in the same bytes, so a lost node costs nothing but time.
    task = ray.remote(max_retries=2)(_run_job)
    most_running = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: list[Any] = []
    try:
        for job in jobs:
            running.append(task.remote(job))
            if len(running) >= most_running:
                finished, running = ray.wait(running)
                yield from _results(ray, finished)
        while running:
            finished, running = ray.wait(running)
            yield from _results(ray, finished)
    except BaseException:
        for reference in running:
            ray.cancel(reference)
        raise


def _run_job(job: Job[Result]) -> Result:
    """Run a job where Ray has brought it: Ray takes functions, not bound methods."""
    return job.run()


def _results(ray: Any, references: list[Any]) -> Iterator[Any]:
    """Results of finished tasks. Raises: the error of the task itself, not Ray's wrapper around it."""
    for reference in references:
        try:
            yield ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SeqdataError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise OutputError("a Ray worker died (out of memory?); run the same command again") from error
