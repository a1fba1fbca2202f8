"""Independent jobs on several processors: in a pool of processes or on Ray, always the same job with the same outcome.

Few jobs are in flight at once, so that memory does not grow with the dataset.
"""

from collections.abc import Iterable, Iterator

from seqdata.parallel.jobs import ENGINES, Engine, Job, Progress, Result, ShardRange, StageProgress, stage_progress
from seqdata.parallel.pool import run_in_pool
from seqdata.parallel.ray_engine import run_on_ray

__all__ = ["ENGINES", "Engine", "Job", "Progress", "ShardRange", "StageProgress", "run_jobs", "stage_progress"]


def run_jobs(
    jobs: Iterable[Job[Result]], engine: Engine, workers: int, *, on_devices: bool = False
) -> Iterator[Result]:
    """Run every job and yield the results as they come, in any order.

    Args:
        jobs: The jobs; they are taken only as workers become free.
        engine: "pool" for processes of this machine, "ray" for a Ray cluster.
        workers: Processes, or CPUs of a cluster that is started here.
        on_devices: Whether jobs load a model: on Ray they run in one actor a GPU, or a CPU where the cluster has none.

    Raises:
        OutputError: If a worker dies or the cluster cannot be used; other errors are those of the jobs.
        MissingDependencyError: If Ray is not installed.
    """
    if engine == "ray":
        return run_on_ray(jobs, workers, on_devices=on_devices)
    return run_in_pool(jobs, workers)
