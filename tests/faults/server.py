"""A process that has imported the whole program and forks a child for each command: `python -m tests.faults.server`.

Importing PyTorch takes seconds and a fork milliseconds, so that thousands of commands can be run with faults. Nothing
may have started a thread before a fork; imports alone do not.

Reads one JSON object a line: arguments, folder, stdout, stderr (files), variables (of the environment) and seconds.
Answers with the exit code, negative for a signal.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import faiss
import polars as pl
import torch

from cli.main import run
from cli.program.registry import COMMANDS, INDEX_COMMANDS
from seqdata.storage import faults, store

# What the commands import inside their functions.
HEAVY = (
    "train.stages.pack",
    "train.stages.search",
    "train.stages.features",
    "train.loop.fit",
    "train.experiments.run",
    "indexer.builder.pipeline.build",
)
LOADED = (faiss, pl, torch)
"""Libraries that are imported before any fork, and used by the commands alone."""
MEMORY_BYTES = 4 << 30
"""Address space that a command may take beyond what is imported; the greatest of these commands takes 1 GB."""


def child(request: dict[str, Any]) -> None:
    """Become the command: this does not return."""
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(request["variables"])
    if "PYTHONPATH" in request["variables"]:
        sys.path[:0] = request["variables"]["PYTHONPATH"].split(os.pathsep)
    # A table may ask for any memory; the machine shall not go under because of one.
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "FAULT_KIND" in request["variables"]:
        # os.environ sets the C library's environment too, where the shim looks.
        ctypes.CDLL(None).fault_configure()
    sys.argv = ["seqdata", *request["arguments"]]
    code: int | str | None = 1
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _address_space() -> int:
    """Bytes that this process has reserved so far."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def wait(process: int, seconds: float) -> int:
    """Wait for a child and return its exit code; one that takes longer is killed and counts as 124."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return 124
        time.sleep(0.002)


def main() -> None:
    """Serve requests until stdin ends."""
    for command in (*COMMANDS.values(), *INDEX_COMMANDS.values()):
        command.function  # noqa: B018 - imports its module
    for module in HEAVY:
        import_module(module)
    torch.set_num_threads(1)
    # As many tries as ever, without the time between them; three of a server, which is near.
    faults.WAITS_SECONDS = tuple(0.0 for _ in faults.WAITS_SECONDS)
    store.Patience = partial(store.Patience, tries=3, timeout=1.0, wait=0.001)  # type: ignore[misc]
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            child(request)
        print(wait(process, request["seconds"]), flush=True)


if __name__ == "__main__":
    main()
