"""`seqdata --help` against an empty Typer application's, and what the light imports cost."""

import statistics
import subprocess
import sys
import time

from tests.benchmarks.results import record, scaled

EMPTY = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
OURS = "from cli.main import app; app(['--help'])"
RUNS = scaled(15, 2)


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Alternate the two, so that a drifting machine is fair to both."""
    sides = {"empty Typer --help": EMPTY, "seqdata --help": OURS}
    imports = {"import seqdata": "import seqdata", "import indexer": "import indexer", "bare python": "pass"}
    times: dict[str, list[float]] = {name: [] for name in (*sides, *imports)}
    for _ in range(RUNS):
        for name, code in {**sides, **imports}.items():
            times[name].append(seconds(code))
    for name, values in times.items():
        print(f"{name:<24}{1000 * statistics.median(values):8.1f} ms (median of {RUNS})")
    ratios = [ours / empty for ours, empty in zip(times["seqdata --help"], times["empty Typer --help"], strict=True)]
    record("help against an empty Typer application", statistics.median(ratios), "x")
    print(f"{'ratio ours / empty':<24}{statistics.median(ratios):8.2f}")


if __name__ == "__main__":
    main()
