"""Sizes and figures of the benchmarks: small enough for a check, or full; kept as JSON, to be compared with a baseline.

Two environment variables decide, so that every benchmark is still a plain script:
`BENCH_SIZE=tiny` runs each in seconds, to see that it works, and its limits are not judged;
`BENCH_OUT=FOLDER` writes the figures of each script to `FOLDER/<script>.json`.

`python tests/benchmarks/results.py FOLDER [BASELINE]` prints the figures beside a baseline.
"""

import json
import os
import sys
from pathlib import Path
from typing import Literal

Better = Literal["lower", "higher"]
BASELINE = Path(__file__).with_name("baseline.json")
CHANGE = 1.25  # figures of a shared machine move by about this factor between two runs
_figures: dict[str, dict[str, float | str]] = {}


def is_tiny() -> bool:
    """Whether the benchmarks only show that they work."""
    return os.environ.get("BENCH_SIZE") == "tiny"


def scaled(full: int, tiny: int) -> int:
    """The size to measure at: `full`, or `tiny` where only working counts."""
    return tiny if is_tiny() else full


def record(name: str, value: float, unit: str, better: Better = "lower") -> float:
    """Keep a figure under its name and return it; the JSON file is written anew at each call."""
    _figures[name] = {"value": float(value), "unit": unit, "better": better}
    folder = os.environ.get("BENCH_OUT")
    if folder:
        path = Path(folder) / f"{Path(sys.argv[0]).stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_figures, indent=1) + "\n")
    return value


def exit_status(is_good: bool) -> int:
    """0 where every limit is kept, else 1; always 0 at tiny sizes, which say nothing about limits."""
    return 0 if is_good or is_tiny() else 1


def compare(folder: Path, baseline: Path = BASELINE) -> str:
    """A table of the figures in `folder` and of a baseline; a figure that changed by more than a quarter says so."""
    old = json.loads(baseline.read_text()) if baseline.is_file() else {}
    lines = [f"{'benchmark':<18}{'figure':<48}{'baseline':>12}{'now':>12}{'ratio':>8}"]
    for path in sorted(folder.glob("bench_*.json")):
        for name, figure in json.loads(path.read_text()).items():
            value, unit = figure["value"], figure["unit"]
            before = old.get(path.stem, {}).get(name, {}).get("value")
            if not before:
                lines.append(f"{path.stem:<18}{name:<48}{'-':>12}{value:>12.4g}{'':>8} {unit}")
                continue
            ratio = value / before
            gain = ratio if figure["better"] == "higher" else 1 / ratio if ratio else 1.0
            remark = "" if 1 / CHANGE <= gain <= CHANGE else " better" if gain > 1 else " worse"
            lines.append(f"{path.stem:<18}{name:<48}{before:>12.4g}{value:>12.4g}{ratio:>8.2f} {unit}{remark}")
    return "\n".join(lines)


def merge(folder: Path) -> dict[str, dict[str, dict[str, float | str]]]:
    """Figures of every script in `folder`, as a baseline holds them."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("bench_*.json"))}


if __name__ == "__main__":
    if sys.argv[1] == "--baseline":
        BASELINE.write_text(json.dumps(merge(Path(sys.argv[2])), indent=1) + "\n")
    else:
        print(compare(Path(sys.argv[1]), *map(Path, sys.argv[2:3])))
