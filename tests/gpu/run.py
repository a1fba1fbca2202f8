"""`make gpu`: the tests that need a card, then every measurement, each in a process and a time of its own.

python -m tests.gpu.run [--rehearse] [--out FOLDER] [STEP ...]

Needs no network, and seven minutes at most. A step that fails or takes too long is named below the table, and the
others go on; what it had measured by then stands. `--rehearse` does all of it on the CPU at a size of seconds, to see
that the script itself works.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tests.gpu import prepare
from tests.gpu.clock import card
from tests.gpu.rows import Row, from_json, table

# Seconds that a step may take on one H100; all together no more than TOTAL.
LIMITS = {"tests": 80, "training": 120, "precision": 30, "describing": 55, "loading": 50, "search": 45, "pca": 40}
TOTAL = 420
ROOT = Path(__file__).resolve().parents[2]
CARD_TESTS = ("tests/gpu/test_card.py", "tests/indexer/search/test_search.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; 0 where none failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at a size of seconds")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for the figures")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("steps", nargs="*", help=f"some of {', '.join(LIMITS)}; default: all")
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.rehearse else "cuda")
    if options.inside is not None:
        return measure(options.inside, device, options.rehearse, options.out)
    if not options.rehearse and not torch.cuda.is_available():
        print("make gpu: PyTorch sees no CUDA device; make gpu-rehearsal runs the script on the CPU")
        return 0
    unknown = sorted(set(options.steps) - set(LIMITS))
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    ends = time.monotonic() + TOTAL
    steps = options.steps or list(LIMITS)
    prepare.write(options.out / "miniature", options.rehearse)
    failures = {}
    for step in steps:
        # Rows of an earlier run must not stand for a step that fails before its first.
        (options.out / f"{step}.json").unlink(missing_ok=True)
        left = ends - time.monotonic()
        # A rehearsal is no measurement, and its machine may be busy.
        limit = left if options.rehearse else min(LIMITS[step], left)
        reason = run_step(step, options.rehearse, options.out, limit)
        if reason is not None:
            failures[step] = reason
    return report(options.out, steps, failures, device)


def run_step(step: str, rehearse: bool, out: Path, limit: float) -> str | None:
    """Run a step in a process of its own for `limit` seconds at most; why it failed, or None."""
    if limit <= 0:
        return f"not run: all steps together may take {TOTAL} s"
    command = [sys.executable, "-m", "tests.gpu.run", "--inside", step, "--out", str(out)]
    command += ["--rehearse"] if rehearse else []
    print(f"== {step}", flush=True)
    started = time.monotonic()
    # A session of its own: with the step its workers end too.
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"took more than {limit:.3g} s"
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
    return None if code == 0 else f"exit {code}"


def measure(step: str, device: torch.device, tiny: bool, out: Path) -> int:
    """Do a step in this process; each row is written as soon as it is measured."""
    missing = prepare.stand_in()
    if step == "tests":
        return run_tests(tiny, missing)
    if missing:
        print(f"   without {', '.join(missing)}: stand-ins, and a dataset in NumPy form")
    module = importlib.import_module(f"tests.gpu.{step}")
    rows: list[Row] = []
    for row in module.measure(device, tiny, out / "miniature"):
        rows.append(row)
        record = {"card": card(device), "without": missing, "rows": [row.as_json() for row in rows]}
        (out / f"{step}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows))
    return 0


def run_tests(collect_only: bool, missing: Sequence[str]) -> int:
    """Run the tests that need a card, in this process; in a rehearsal they are found, not run."""
    if missing:
        print(f"   left out: the tests need {', '.join(missing)}")
        return 0
    import pytest  # the measurements do without

    mode = ["--collect-only"] if collect_only else []
    return int(pytest.main(["-q", "-n", "0", "-m", "card", "-rs", "-p", "no:cacheprovider", *mode, *CARD_TESTS]))


def report(out: Path, steps: Sequence[str], failures: dict[str, str], device: torch.device) -> int:
    """Print one table of all steps, last, and write it beside the figures."""
    paths = [path for step in steps if (path := out / f"{step}.json").is_file()]
    rows = [from_json(row) for path in paths for row in json.loads(path.read_text())["rows"]]
    if device.type == "cpu":  # a rehearsal's figures say nothing about goals
        rows = [replace(row, goal=None) for row in rows]
    text = "\n".join(["  ".join(f"{name} {value}" for name, value in card(device).items()), table(rows)])
    text += "".join(f"\n{step}: {reason}" for step, reason in failures.items())
    (out / "table.txt").write_text(text + "\n")
    record = {"card": card(device), "failures": failures, "rows": [row.as_json() for row in rows]}
    (out / "table.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{text}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
