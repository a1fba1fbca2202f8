"""Every command under many faults, with a table of figures: `make faults`, or `python -m tests.faults.figures 5`.

The number is that of kills, failing reads and flips of each command; wrong outcomes are told one by one, and the exit
code is then 1.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path
from signal import SIGINT, SIGTERM

from tests.faults.commands import TRIALS, Trial, prepare
from tests.faults.shim import Program, has_compiler
from tests.faults.trials import Result, Workshop

SIZES = (0, 3_000, 60_000)
PROMISES = {
    "kills": "kills: same files / all",
    "reads": "failing reads: right / all",
    "disks": "full disks: right / all",
    "flips": "flipped bits: said or without effect / all",
}


def results_of(workshop: Workshop, trial: Trial, count: int) -> list[Result]:
    """All faults on one command."""
    return [
        *workshop.kills(trial, count, seed=1),
        *workshop.kills(trial, 1, 1, SIGTERM),
        *workshop.kills(trial, 1, 1, SIGINT),
        *workshop.reads(trial, count, seed=1),
        *workshop.disks(trial, SIZES),
        *workshop.flips(trial, count, seed=1),
    ]


def main(count: int) -> int:
    """Run everything and print the table; 1 when a promise was broken."""
    if not has_compiler():
        print("faults in system calls need a C compiler (cc)")
        return 1
    right: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    every: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("scratch", "base"):
            (folder / name).mkdir()
        with Program(folder / "scratch") as program:
            workshop = Workshop(program, prepare(program, folder / "base"), folder)
            for trial in TRIALS:
                results = results_of(workshop, trial, 1 if trial.is_slow else count)
                for result in results:
                    every[result.kind] += 1
                    right[result.kind] += result.is_right
                    noticed[result.kind] += result.is_noticed
                    if not result.is_right:
                        print(f"WRONG {result.kind} {result.verb}: {result.story}")
                print(f"{trial.verb:<16} {sum(r.is_right for r in results):>4} / {len(results)}", flush=True)
    for kind, promise in PROMISES.items():
        print(f"{promise:<46} {right[kind]:>5} / {every[kind]:<5} (met by the command: {noticed[kind]})")
    return 0 if right == every else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
