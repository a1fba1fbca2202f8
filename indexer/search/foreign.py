"""FAISS files from elsewhere: opened and searched in a process of their own first, within bounds of time and memory.

A crash in C++ cannot be caught: only in another process does it become an error text. Of 1,500 mutated files, 9 ended
the process and 5 took more than 6 seconds (issue 16).
"""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from indexer.search.approximate import open_faiss
from seqdata.errors import ContractError, SeqdataError

CPU_SECONDS = 5
"""Time of the processor that a trial may take, besides a second for every 50 MB of the file; the imports take one."""
PATIENCE_SECONDS = 120
"""Time on the clock after which a trial ends, however little of the processor it got."""
MEMORY_BYTES = 4 << 30
"""Address space of a trial, besides four times the file: libraries reserve more than a gigabyte of it."""
SEARCH_ALL_ROWS = 1 << 20
"""Indexes up to here are searched through all lists and links, so that every one of them is followed once."""

# The working folder comes first in the path of `python -c`: a stranger's folder may hold a numpy.py.
PROGRAM = """
import sys
sys.path[:] = [place for place in sys.path if place]
from indexer.search.foreign import main
main(sys.argv[1])
"""


def try_file(path: Path, rows: int, size: int, input_size: int, factory: str, search: dict[str, Any]) -> None:
    """Open and search an index file in a process of its own.

    Args:
        path: The file.
        rows: As all others, see `indexer.search.approximate.open_faiss`.
        size: Values of a vector behind the transform.
        input_size: Values of a vector before it.
        factory: The FAISS factory string.
        search: Search parameters.

    Raises:
        ContractError: If it is refused there, or the process ends.
    """
    facts = {"path": str(path.absolute()), "rows": rows, "size": size, "input_size": input_size, "factory": factory}
    # One thread: each of BLAS's and OpenMP's reserves address space of its own.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, json.dumps({**facts, "search": search})]
    try:
        trial = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ContractError(f"{path}: opening it takes more than {PATIENCE_SECONDS} s; it is not opened") from error
    if trial.returncode < 0:
        name = signal.Signals(-trial.returncode).name
        raise ContractError(f"{path}: FAISS does not survive this file ({name}); it is damaged, or made to do harm")
    if trial.returncode:
        reason = (trial.stderr.strip() or "no reason").splitlines()[-1]
        raise ContractError(reason if str(path) in reason else f"{path}: cannot be opened ({reason})")


def main(text: str) -> None:
    """Open and search the index that the JSON `text` describes, then end the process."""
    facts = json.loads(text)
    facts["path"] = Path(facts["path"])
    _bound(facts["path"].stat().st_size)
    try:
        vectors = open_faiss(**facts)
        queries = np.stack([np.zeros(facts["size"], np.float32), np.ones(facts["size"], np.float32)])
        k = min(10, facts["rows"])
        vectors.nearest(queries, k)
        vectors.nearest(queries, k, np.unique([0, facts["rows"] - 1]))
        if facts["rows"] <= SEARCH_ALL_ROWS:
            vectors.nearest_of_all(queries, k)
    except (SeqdataError, MemoryError) as error:
        sys.exit(str(error) or "it needs more memory than its size explains")


def _bound(file_bytes: int) -> None:
    """Bound time and memory of this process, and leave no core dump."""
    seconds = CPU_SECONDS + file_bytes // (50 << 20)
    for name, limit in (
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_AS", MEMORY_BYTES + 4 * file_bytes),
        ("RLIMIT_CORE", 0),
    ):
        # macOS has no limit of address space.
        with suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (limit, limit))
