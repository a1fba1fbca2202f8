"""Measure every stage at two or more sizes: `python -m tests.scale.run 150000 1500000 [--out FIGURES.json]`.

A stage runs in a process of its own. Its growth is the exponent between the two largest sizes: 1 is in proportion to
the frames, 0 not at all. Figures are compared with `baseline.json`; one that is half as much again worse ends the run
with exit code 1. `--baseline` writes the baseline anew.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.scale.steps import STAGES, Figures

BASELINE = Path(__file__).with_name("baseline.json")
SIZES = (1_500_000, 15_000_000)
TINY = (20_000, 60_000)
CHANGE = 1.5
"""Shared machines move CPU seconds by a third; what is worse by more is told."""
LEAST = {"CPU s": 1.0, "MB": 100.0}
"""Figures below these are not judged: the noise of a process is as large."""
Results = dict[str, dict[str, Figures]]


def measure(frames: int, folder: Path, stages: list[str]) -> dict[str, Figures]:
    """The figures of the stages at one size; the generated files stay until all have run."""
    folder.mkdir(parents=True)
    results: dict[str, Figures] = {}
    # A cache of its own, so that what is shared between processes is first made.
    root, cache = str(Path(__file__).resolve().parents[2]), str(folder / "cache")
    environment = {**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": cache}
    for stage in stages:
        command = [sys.executable, "-m", "tests.scale.steps", stage, str(folder), str(frames)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        if ended.returncode:
            print(f"{stage} at {frames:,} frames failed:\n{ended.stderr}", file=sys.stderr)
            raise SystemExit(1)
        results[stage] = json.loads(ended.stdout.splitlines()[-1])
        print(f"{frames:>12,}  {stage:<14}" + _line(results[stage]), flush=True)
    return results


def _line(figures: Figures) -> str:
    return "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def growth(results: Results, stage: str, figure: str) -> float:
    """The exponent of a figure between the two largest sizes; NaN where there is one size or no cost."""
    sizes = sorted(map(int, results))[-2:]
    values = [results[str(size)][stage][figure] for size in sizes]
    if len(sizes) < 2 or min(values) <= 0:
        return math.nan
    return math.log(values[1] / values[0]) / math.log(sizes[1] / sizes[0])


def table(results: Results, baseline: Results) -> tuple[str, bool]:
    """The figures as a table, beside those of the baseline, and whether none is worse."""
    is_good = True
    lines = [f"{'stage':<14}{'frames':>12}{'CPU s':>10}{'growth':>8}{'MB':>9}{'growth':>8}{'baseline CPU s, MB':>24}"]
    largest = str(max(map(int, results)))
    for size, stages in results.items():
        for stage, figures in stages.items():
            exponents = [f"{growth(results, stage, name):8.2f}" if size == largest else " " * 8 for name in LEAST]
            before = baseline.get(size, {}).get(stage)
            worse = [
                name for name, least in LEAST.items() if before and figures[name] > max(least, CHANGE * before[name])
            ]
            is_good = is_good and not worse
            remark = "-" if before is None else f"{before['CPU s']:.2f}, {before['MB']:.0f}"
            remark += f" worse: {', '.join(worse)}" if worse else ""
            lines.append(
                f"{stage:<14}{int(size):>12,}{figures['CPU s']:>10.2f}{exponents[0]}{figures['MB']:>9.0f}{exponents[1]}"
                f"{remark:>24}"
            )
    return "\n".join(lines), is_good


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and compare; 1 where a figure is worse than the baseline's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", nargs="*", type=int)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--baseline", action="store_true", help="write the baseline anew")
    parser.add_argument("--folder", type=Path, help="where files are generated (4 GB for every ten million frames)")
    parser.add_argument("--leave-out", nargs="*", default=[], choices=list(STAGES), help="stages that are not run")
    options = parser.parse_args(arguments)
    is_tiny = os.environ.get("BENCH_SIZE") == "tiny"
    sizes = sorted(options.frames or (TINY if is_tiny else SIZES))
    results: Results = {}
    for frames in sizes:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            stages = [stage for stage in STAGES if stage not in options.leave_out]
            results[str(frames)] = measure(frames, folder / "scale", stages)
        finally:
            shutil.rmtree(folder)
    baseline: Results = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    text, is_good = table(results, baseline)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    if options.baseline:
        BASELINE.write_text(json.dumps({**baseline, **results}, indent=1) + "\n")
    # What a tiny size costs says nothing.
    return 0 if is_good or is_tiny else 1


if __name__ == "__main__":
    sys.exit(main())
