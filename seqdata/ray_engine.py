"""Jobs on Ray core: one remote task a shard or share, on the cluster at RAY_ADDRESS or on this machine.

Every node must see the raw dump and the output place under the same names (a shared disk, or a URL for the output).
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from seqdata.errors import MissingDependencyError, OutputError, SeqdataError

if TYPE_CHECKING:
    from seqdata.shard_jobs import Job, Result


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
