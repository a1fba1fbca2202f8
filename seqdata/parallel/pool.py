"""Jobs in processes of this machine."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process

from seqdata.errors import OutputError
from seqdata.parallel.jobs import Job, Result


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
