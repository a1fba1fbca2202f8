"""`make gpu`: the tests that need a card, then every measurement, each in a process and a time of its own.

python -m tests.gpu.run [--rehearse] [--out FOLDER] [STEP ...]

A step that fails or takes too long is named in the table, and the others go on. `--rehearse` does all of it on the CPU
at a size of seconds, to see that the script itself works.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from tests.gpu.clock import card
from tests.gpu.rows import Row, table

# Seconds that a step may take on one H100: seven minutes in all.
LIMITS = {"tests": 90, "training": 110, "precision": 20, "describing": 60, "loading": 60, "search": 50, "pca": 60}
ROOT = Path(__file__).resolve().parents[2]
CARD_TESTS = ("tests/gpu", "tests/indexer/search", "tests/seqdata/streaming/test_stream.py")


def main() -> int:
    """Run the steps; 0 where none failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("steps", nargs="*")
    options = parser.parse_args()
    device = torch.device("cpu" if options.rehearse else "cuda")
    if options.inside is not None:
        return measure(options.inside, device, options.rehearse, options.out)
    if not options.rehearse and not torch.cuda.is_available():
        print("make gpu: PyTorch sees no CUDA device; make gpu-rehearsal runs the script on the CPU")
        return 0
    unknown = sorted(set(options.steps) - set(LIMITS))
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    failures = {}
    for step in options.steps or LIMITS:
        reason = run_step(step, options.rehearse, options.out)
        if reason is not None:
            failures[step] = reason
    return report(options.out, options.steps or list(LIMITS), failures, device)


def run_step(step: str, rehearse: bool, out: Path) -> str | None:
    """Run a step in a process of its own; why it failed, or None."""
    started = time.perf_counter()
    inside = [sys.executable, "-m", "tests.gpu.run", "--inside", step, "--out", str(out)]
    command = [*inside, "--rehearse"] if rehearse else inside
    if step == "tests":
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *CARD_TESTS]
        command += ["-k", "not rehearsal", "-rs"] if not rehearse else ["--collect-only"]
    print(f"== {step}", flush=True)
    try:
        ended = subprocess.run(command, cwd=ROOT, timeout=LIMITS[step], check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMITS[step]} s"
    print(f"   {time.perf_counter() - started:.0f} s", flush=True)
    return None if ended.returncode == 0 else f"exit {ended.returncode}"


def measure(step: str, device: torch.device, tiny: bool, out: Path) -> int:
    """Measure a step in this process, and write its rows."""
    rows: list[Row] = importlib.import_module(f"tests.gpu.{step}").measure(device, tiny)
    record = {"card": card(device), "rows": [row.as_json() for row in rows]}
    (out / f"{step}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows))
    return 0


def report(out: Path, steps: list[str], failures: dict[str, str], device: torch.device) -> int:
    """Print one table of all steps, last, and write it beside the figures."""
    fields = set(Row.__dataclass_fields__)
    rows = []
    for step in steps:
        path = out / f"{step}.json"
        if step not in failures and path.is_file():
            for row in json.loads(path.read_text())["rows"]:
                rows.append(Row(**{name: value for name, value in row.items() if name in fields}))
    if device.type == "cpu":  # a rehearsal's figures say nothing about goals
        rows = [replace(row, goal=None) for row in rows]
    text = "\n".join([" ".join(card(device).values()), table(rows)])
    text += "".join(f"\n{step}: {reason}" for step, reason in failures.items())
    (out / "table.txt").write_text(text + "\n")
    print(f"\n{text}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
