"""Run a command with faults in its system calls: reads that fail, a disk that fills up, a signal at a chosen call."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("shim.c")
SEQDATA = (sys.executable, "-c", "from cli.main import run; run()")


def has_compiler() -> bool:
    """Whether the shim can be built here."""
    return shutil.which("cc") is not None


@cache
def shim(folder: Path) -> Path:
    """Build the shared library, once for a folder."""
    library = folder / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """What happens to files below `below`.

    Attributes:
        below: Beginning of the paths of the files.
        kind: "read": reads fail with `code`, `per_mille` of a thousand by chance from `seed`. "full": writes fail with
            ENOSPC when `bytes` are written. "signal": the process gets the signal `code` at the `at`-th call that
            changes the disk (open to create, write, fsync, rename, link, unlink, mkdir).
    """

    below: Path
    kind: str
    code: int = errno.EIO
    per_mille: int = 0
    seed: int = 1
    bytes: int = 0
    at: int = 0

    def variables(self, library: Path, log: Path) -> dict[str, str]:
        """Environment variables of the command; every fault, or call, adds a byte to `log`."""
        numbers = {"ERRNO": self.code, "PER_MILLE": self.per_mille, "SEED": self.seed, "BYTES": self.bytes}
        return {
            "LD_PRELOAD": str(library),
            "FAULT_PREFIX": str(self.below),
            "FAULT_KIND": self.kind,
            "FAULT_LOG": str(log),
            "FAULT_AT": str(self.at),
            **{f"FAULT_{name}": str(value) for name, value in numbers.items()},
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
        """Whether it ended without a traceback, a crash's dump or a leak, and with a line where it failed."""
        noise = ("Traceback (most recent call last)", "terminate called", "leaked semaphore", "Exception ignored")
        return not any(text in self.errors for text in noise) and (self.code == 0 or bool(self.errors.strip()))


def run_command(
    arguments: list[str], folder: Path, fault: Fault | None = None, timeout: float = 120.0, **variables: str
) -> Outcome:
    """Run `seqdata` with `arguments` in `folder`, with a fault or without."""
    log = folder / ".fault-log"
    log.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    if fault is not None:
        environment |= fault.variables(shim(folder), log)
    process = subprocess.run(
        [*SEQDATA, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    faults = log.stat().st_size if log.is_file() else 0
    log.unlink(missing_ok=True)
    return Outcome(process.returncode, process.stdout, process.stderr, faults)
