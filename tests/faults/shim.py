"""Run commands with faults in their system calls: reads that fail, a disk that fills up, a signal at a chosen call."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("shim.c")
SECONDS = 120.0
NOISE = (
    "Traceback (most recent call last)",
    "terminate called",
    "leaked semaphore",
    "Exception ignored",
    "panicked at",
)
"""What no command may print: a traceback of Python, a crash of C++, a leak, a panic of Rust."""


def has_compiler() -> bool:
    """Whether the shim can be built here."""
    return shutil.which("cc") is not None


@dataclass(frozen=True)
class Fault:
    """What happens to files below `below`.

    Attributes:
        below: Beginning of the paths of the files.
        kind: "read": reads fail with `code`, `per_mille` of a thousand by chance from `seed`. "full": writes fail with
            ENOSPC when `bytes` are written. "signal": the process gets the signal `code` at the `at`-th call that
            changes the disk (open to create, write, fsync, rename, link, unlink, mkdir); 0 only counts the calls.
    """

    below: Path
    kind: str
    code: int = errno.EIO
    per_mille: int = 0
    seed: int = 1
    bytes: int = 0
    at: int = 0

    def variables(self, log: Path) -> dict[str, str]:
        """Variables of the command's environment; every fault, or counted call, adds a byte to `log`."""
        return {
            "FAULT_PREFIX": str(self.below),
            "FAULT_KIND": self.kind,
            "FAULT_LOG": str(log),
            "FAULT_ERRNO": str(self.code),
            "FAULT_PER_MILLE": str(self.per_mille),
            "FAULT_SEED": str(self.seed),
            "FAULT_BYTES": str(self.bytes),
            "FAULT_AT": str(self.at),
        }


def killing(below: Path, at: int, number: signal.Signals = signal.SIGKILL) -> Fault:
    """A signal at the `at`-th call that changes a file below a folder; 0 only counts them."""
    return Fault(below, "signal", code=int(number), at=at)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code; negative for a signal.
        output: What it wrote to stdout.
        errors: What it wrote to stderr.
        faults: Faults that it met, or calls that were counted.
    """

    code: int
    output: str
    errors: str
    faults: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether it ended by itself, without a traceback, a crash or a leak, and with a line where it failed."""
        is_explained = self.code == 0 or bool(self.errors.strip())
        return self.code in range(124) and is_explained and not any(text in self.errors for text in NOISE)


@dataclass
class Program:
    """The program `seqdata`, imported once in a process that forks for every command (see `tests.faults.server`).

    Attributes:
        folder: Scratch folder for the shim, outputs and logs, outside of what commands work on.
    """

    folder: Path
    _process: Any = field(default=None, init=False)

    def __enter__(self) -> "Program":
        """Build the shim where there is a compiler, and import the program."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "COLUMNS": "160"}
        if has_compiler():
            library = self.folder / "faults.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
            environment["LD_PRELOAD"] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("tests.faults.server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def run(
        self, arguments: list[str], folder: Path, fault: Fault | None = None, seconds: float = SECONDS, **more: str
    ) -> Outcome:
        """Run `seqdata` with `arguments` in `folder`, with a fault or without, and with `more` variables."""
        log, stdout, stderr = (self.folder / name for name in ("faults.log", "stdout", "stderr"))
        log.unlink(missing_ok=True)
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "stdout": str(stdout),
            "stderr": str(stderr),
            "variables": {**(fault.variables(log) if fault else {}), **more},
            "seconds": seconds,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        faults = log.stat().st_size if log.is_file() else 0
        return Outcome(code, stdout.read_text(errors="replace"), stderr.read_text(errors="replace"), faults)
