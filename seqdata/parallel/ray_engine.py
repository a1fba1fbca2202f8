"""Jobs on a Ray cluster: tasks for CPUs, or one actor a GPU for jobs that load a model."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from seqdata.errors import MissingDependencyError, OutputError, SeqdataError
from seqdata.parallel.jobs import Job, Result

MOST_LOSSES = 8
"""Actors that may die in one run before it ends: more than a machine that is taken away has devices. A guess."""
DEAD_WORKER = "a Ray worker died (out of memory?); run the same command again"


def run_on_ray(jobs: Iterable[Job[Result]], workers: int, *, on_devices: bool = False) -> Iterator[Result]:
    """Run jobs on Ray, at most two a CPU in flight, or one a device.

    A cluster that is connected already is used and left as it is; else the one of RAY_ADDRESS; else one is started here
    and ended at the end.

    Args:
        jobs: What to run.
        workers: CPUs of a cluster that is started here.
        on_devices: See `run_jobs`.
    """
    ray = _import_ray()
    is_connected = ray.is_initialized()
    if not is_connected:
        _connect(ray, workers)
    try:
        yield from (_run_on_actors if on_devices else _run)(ray, iter(jobs))
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


class _Host:
    """Runs jobs one after another in a process of its own, so that what one has loaded serves the next."""

    def is_ready(self) -> None:
        """Return when the process has begun."""

    def run(self, job: Job[Result]) -> Result:
        """Run a job."""
        return job.run()


def _run_on_actors(ray: Any, jobs: Iterator[Job[Result]]) -> Iterator[Result]:
    """Run each job on one of the actors that the cluster has devices for, and yield their results."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    host = ray.remote(_Host).options(**({"num_gpus": 1} if gpus else {"num_cpus": 1}))
    running: dict[Any, tuple[Any, Job[Result] | None]] = {}
    lost: list[Job[Result]] = []
    losses = 0

    def begin() -> None:
        actor = host.remote()
        running[actor.is_ready.remote()] = actor, None

    for _ in range(gpus or max(1, int(resources.get("CPU", 1)))):
        begin()
    following = next(jobs, None)
    # An actor that never gets a device (its node is gone) is not waited for: the others do its work.
    while following is not None or lost or any(job is not None for _, job in running.values()):
        for reference in ray.wait(list(running))[0]:
            actor, job = running.pop(reference)
            try:
                result = _result(ray, reference)
            except ray.exceptions.RayTaskError:
                raise  # a defect of the job, which Ray's traceback tells
            except ray.exceptions.RayError as error:
                # The process died, or its node took the result with it.
                losses += 1
                # Run again it ends in the same bytes; what kills its process each time would do so for ever.
                if losses > MOST_LOSSES:
                    raise OutputError(DEAD_WORKER) from error
                lost += [] if job is None else [job]
                begin()
                continue
            if job is not None:
                yield result
            if lost:
                task: Job[Result] | None = lost.pop()
            else:
                task, following = following, next(jobs, None)
            # Without a task the actor's handle goes here, and with it the actor.
            if task is not None:
                running[actor.run.remote(task)] = actor, task


def _run_job(job: Job[Result]) -> Result:
    """Run a job where Ray has brought it: Ray takes functions, not bound methods."""
    return job.run()


def _results(ray: Any, references: list[Any]) -> Iterator[Any]:
    """Results of finished tasks.

    Raises:
        OutputError: If a task's process died, also when it was run again.
    """
    for reference in references:
        try:
            yield _result(ray, reference)
        except ray.exceptions.RayTaskError:
            raise  # a defect of the task, which Ray's traceback tells
        except ray.exceptions.RayError as error:
            raise OutputError(DEAD_WORKER) from error


def _result(ray: Any, reference: Any) -> Any:
    """Result of a finished task; an error of the task itself is raised without Ray's wrapper around it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SeqdataError):
            raise error.cause from error
        raise
