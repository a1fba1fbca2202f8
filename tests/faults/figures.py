"""Every command under many faults, with a table of figures: `make faults`, or `python -m tests.faults.figures 5`.

The number is that of each kind of fault on each command; wrong outcomes are told one by one, and the exit code is then
1. With words behind the number, only the kinds and commands of these names: `python -m tests.faults.figures 20 flips`.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM

from tests.faults import remote
from tests.faults.commands import TRIALS, Trial, prepare
from tests.faults.hostile import hostile
from tests.faults.mounts import can_mount
from tests.faults.shim import Program, has_compiler
from tests.faults.strangers import PLANTS, strangers
from tests.faults.trials import Result, Workshop

SIZES = (0, 3_000, 60_000)
REAL_SIZES = (0, 8_192, 65_536)
PROMISES = {
    "kills": "kills: same files afterwards / all",
    "reads": "failing reads: right / all",
    "disks": "full disks, injected: right / all",
    "mounts": "full disks, a real one: right / all",
    "flips": "flipped bits: said or without effect / all",
    "hostile": "hostile files: an answer or one line / all",
    "strangers": "code of a stranger: not run / all",
    "http": "stumbling HTTP servers: right or said / all",
    "s3": "stumbling S3 stores: right or said / all",
}


class Table:
    """Counts of results, and the lines of what went wrong."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.right: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.every: Counter[str] = Counter()

    def wants(self, kind: str) -> bool:
        """Whether results of a kind were asked for."""
        kinds = [word for word in self.words if word in PROMISES]
        return not kinds or kind in kinds

    def wants_command(self, trial: Trial) -> bool:
        """Whether results of a command were asked for."""
        verbs = [word for word in self.words if word not in PROMISES]
        return not verbs or trial.verb in verbs

    def add(self, results: Iterator[Result]) -> None:
        """Count results, and print wrong ones."""
        for result in results:
            self.every[result.kind] += 1
            self.right[result.kind] += result.is_right
            self.noticed[result.kind] += result.is_noticed
            if not result.is_right:
                print(f"WRONG {result.kind} {result.verb}: {result.story}", flush=True)

    def print(self) -> None:
        """Print the figures."""
        for kind, promise in PROMISES.items():
            if self.every[kind]:
                figures = f"{self.right[kind]:>5} / {self.every[kind]:<5}"
                print(f"{promise:<46} {figures} (met by the command: {self.noticed[kind]})")


def add_all(table: Table, workshop: Workshop, trial: Trial, count: int) -> None:
    """Put all faults on one command."""
    few = 1 if trial.is_slow else count
    sizes, real_sizes = (SIZES[1:2], REAL_SIZES[1:2]) if trial.is_slow else (SIZES, REAL_SIZES)
    kinds = {
        "kills": lambda: _kills(workshop, trial, few),
        "reads": lambda: workshop.reads(trial, few, seed=1),
        "disks": lambda: workshop.disks(trial, sizes),
        "mounts": lambda: workshop.small_disks(trial, real_sizes) if can_mount() else iter(()),
        "flips": lambda: workshop.flips(trial, few, seed=1),
        "hostile": lambda: hostile(workshop, trial, 4 * few, seed=1),
        "strangers": lambda: strangers(workshop, trial, len(PLANTS), seed=1),
        "http": lambda: remote.http(workshop, trial, few, seed=1),
    }
    for kind, results in kinds.items():
        if table.wants(kind):
            try:
                table.add(results())
            except AssertionError as error:
                # Without a fault the command did not end well: a trial that proves nothing.
                table.add(iter([Result(kind, trial.verb, is_right=False, story=str(error))]))


def _kills(workshop: Workshop, trial: Trial, count: int) -> Iterator[Result]:
    yield from workshop.kills(trial, count, seed=1)
    yield from workshop.kills(trial, 1, 1, SIGTERM)
    yield from workshop.kills(trial, 1, 1, SIGINT)


def main(count: int, words: list[str]) -> int:
    """Run everything and print the table; 1 when a promise was broken."""
    if not has_compiler():
        print("faults in system calls need a C compiler (cc)")
        return 1
    table = Table(words)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("scratch", "base", "copies"):
            (folder / name).mkdir()
        with Program(folder / "scratch") as program:
            workshop = Workshop(program, prepare(program, folder / "base"), folder / "copies")
            trials = [trial for trial in TRIALS if table.wants_command(trial)]
            for trial in trials:
                before = table.every.total(), table.right.total()
                add_all(table, workshop, trial, count)
                right, every = table.right.total() - before[1], table.every.total() - before[0]
                print(f"{trial.verb:<16} {right:>4} / {every}", flush=True)
            if table.wants("s3"):
                with remote.bucket(workshop) as (proxy, url):
                    for trial in trials:
                        few = 1 if trial.is_slow else count
                        table.add(remote.s3(workshop, trial, proxy, url, few, seed=1))
                        table.add(remote.s3_writes(workshop, trial, proxy, url, few, seed=1))
    table.print()
    return 0 if table.right == table.every else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:]))
