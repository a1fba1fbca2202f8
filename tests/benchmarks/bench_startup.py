"""What starting costs: `seqdata --help` against an empty Typer application, light imports, and every verb on tiny data.

The table of verbs has processor seconds (user and system), peak resident memory, and whether PyTorch was loaded; limits
for those that run no model: 1.5 s and 300 MB. `python tests/benchmarks/bench_startup.py [--verbs]`
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cli.program.registry import COMMANDS, INDEX_COMMANDS
from tests.benchmarks.results import exit_status, record, scaled
from tests.benchmarks.street import write_street

EMPTY = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
OURS = "from cli.main import app; app(['--help'])"
VERB = """
import atexit, sys
sys.argv = ["seqdata", *sys.argv[1:]]
atexit.register(lambda: print("TORCH" if "torch" in sys.modules else "LIGHT", file=sys.stderr))
from cli.main import run
run()
"""
RUNS = scaled(15, 2)
SECONDS, MEGABYTES = 1.5, 300.0
VERBS = {
    "init": ("init", "--out", "elsewhere"),
    "build": ("build", "folder", "raw", "--out", "again"),
    "info": ("info", "datasets/street"),
    "preview": ("preview", "datasets/street", "--out", "preview.html"),
    "verify": ("verify", "datasets/street"),
    "quarantine": ("quarantine", "datasets/street"),
    "protocols": ("protocols",),
    "sequences": ("sequences", "datasets/street", "--length", "4"),
    "export": ("export", "datasets/street", "--format", "folders", "--out", "exported"),
    "merge": ("merge", "datasets/street"),
    "models": ("models",),
    "index list": ("index", "list", "--index", "indexes/run"),
    "index show": ("index", "show", "--index", "indexes/run"),
    "index verify": ("index", "verify", "--index", "indexes/run"),
    "search .npy": ("search", "indexes/run", "vectors.npy"),
    "eval, stored answers": ("eval", "indexes/run"),
    "baseline": ("baseline", "datasets/street"),
    "compare": ("compare", "indexes/run", "indexes/run"),
    "experiment": ("experiment",),
    "report": ("report", "indexes/run"),
    "train --settings": ("train", "--settings"),
}
"""Commands that run no model."""
ERRORS = {
    "build: place taken": ("build", "folder", "raw", "--out", "raw"),
    "models show: no such model": ("models", "show", "seqvlad-r81"),
    "describe: no such run": ("describe", "datasets/street", "--run", "runs/none"),
    "describe: no such model": ("describe", "datasets/street", "--model", "mean-r81"),
    "leakage: no training split": ("leakage", "datasets/street"),
    "localize: no such pack": ("localize", "none.pack", "raw"),
    "train: no such model": ("train", "datasets/street", "--model", "mean-r81"),
    "train: no such dataset": ("train", "datasets/none"),
    "index: no such run": ("index", "datasets/street", "--run", "runs/none"),
    "search: no such index": ("search", "indexes/none", "raw"),
    "search: no such run": ("search", "indexes/run", "raw", "--run", "runs/none"),
    "eval: no such index": ("eval", "indexes/none"),
    "report: no such index": ("report", "indexes/none"),
    "index append: no such run": ("index", "append", "--index", "indexes/run", "--run", "runs/none"),
    "pack: no such index": ("pack", "indexes/none", "--out", "place.pack"),
    "profile: no such model": ("profile", "--model", "mean-r81"),
}
"""Errors that need no model."""
MODELS = {
    "models show": ("models", "show", "seqvlad-small"),
    "describe": ("describe", "datasets/street", "--model", "mean-small", "--random-init", "--out", "features"),
    "train": (
        "train",
        "datasets/street",
        "--model",
        "mean-small",
        "--random-init",
        "--epochs",
        "0",
        "--out",
        "trained",
    ),
    "search images": ("search", "indexes/run", "raw"),
    "eval": ("eval", "indexes/run", "--again"),
}
"""Commands that run a model, for comparison."""


@dataclass(frozen=True)
class Start:
    """What one command took: exit code, processor seconds, peak resident megabytes, and whether torch was loaded."""

    code: int
    seconds: float
    megabytes: float
    has_torch: bool

    @property
    def is_light(self) -> bool:
        """Whether it kept the limits of commands that run no model."""
        return not self.has_torch and self.seconds <= SECONDS and self.megabytes <= MEGABYTES


def start(arguments: tuple[str, ...], folder: Path) -> Start:
    """Run a command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, "-c", VERB, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    # `wait4` and not `getrusage`: the memory of a child alone, not the greatest of all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Start(process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, "TORCH" in said)


def prepare(folder: Path) -> None:
    """A street, its dataset, a run of random weights, an index and its stored answers."""
    table = write_street(folder / "raw", 24, size=(64, 48), drives=2) / "positions.csv"
    # The second drive is that of the queries, beside the first.
    table.write_text(table.read_text().replace("5000500,32N,drive1,database", "5000002,32N,drive1,query"))
    commands = (
        ("build", "folder", "raw", "--out", "datasets/street"),
        ("train", "datasets/street", "--model", "mean-small", "--random-init", "--epochs", "0", "--out", "runs/run"),
        ("index", "datasets/street", "--run", "runs/run"),
        ("eval", "indexes/run"),
    )
    for arguments in commands:
        ended = start(arguments, folder)
        if ended.code:
            raise SystemExit(f"seqdata {' '.join(arguments)}: exit code {ended.code}")
    size = int(subprocess.check_output(
        [sys.executable, "-c", f"import indexer; print(indexer.open({str(folder / 'indexes/run')!r}).size)"], text=True
    ))  # fmt: skip
    np.save(folder / "vectors.npy", np.ones((1, size), np.float32))


def verbs() -> bool:
    """Print the table of verbs; return whether all that should be light are."""
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        print(f"{'command':<30}{'exit':>5}{'CPU s':>8}{'MB':>7}  torch")
        for title, table, is_limited in (("", VERBS, True), ("errors", ERRORS, True), ("with a model", MODELS, False)):
            print(title)
            for verb, arguments in table.items():
                ended = min((start(arguments, folder) for _ in range(scaled(3, 1))), key=lambda one: one.seconds)
                fails = is_limited and not ended.is_light
                good &= not fails
                record(f"{verb}: CPU seconds", ended.seconds, "s")
                print(
                    f"{verb:<30}{ended.code:>5}{ended.seconds:>8.2f}{ended.megabytes:>7.0f}  "
                    f"{'yes' if ended.has_torch else 'no'}{'  FAILS' if fails else ''}"
                )
    missing = {*COMMANDS} - {verb.split()[0].strip(":,") for verb in (*VERBS, *ERRORS, *MODELS)}
    print(f"not in the table: {', '.join(sorted(missing))}; index {', '.join(sorted(INDEX_COMMANDS))} share modules")
    return good


def seconds(code: str) -> float:
    """Time of a process that runs some code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def imports() -> None:
    """Alternate the two, so that a drifting machine is fair to both."""
    sides = {"empty Typer --help": EMPTY, "seqdata --help": OURS}
    light = {"import seqdata": "import seqdata", "import indexer": "import indexer", "bare python": "pass"}
    times: dict[str, list[float]] = {name: [] for name in (*sides, *light)}
    for _ in range(RUNS):
        for name, code in {**sides, **light}.items():
            times[name].append(seconds(code))
    for name, values in times.items():
        print(f"{name:<24}{1000 * statistics.median(values):8.1f} ms (median of {RUNS})")
    ratios = [ours / empty for ours, empty in zip(times["seqdata --help"], times["empty Typer --help"], strict=True)]
    record("help against an empty Typer application", statistics.median(ratios), "x")
    print(f"{'ratio ours / empty':<24}{statistics.median(ratios):8.2f}")


def main() -> int:
    """Print both tables; exit 1 when a verb misses its limits."""
    if "--verbs" not in sys.argv[1:]:
        imports()
    return exit_status(verbs())


if __name__ == "__main__":
    sys.exit(main())
