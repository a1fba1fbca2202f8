"""New versions of a dataset: what a withdrawal costs as segments, and as whole tables, which compact writes.

A dataset of tables alone, in the shape of MSLS (tests/scale); CPU seconds of this process, imports left out. Limits at
99,000 frames: withdrawing one frame below 0.3 CPU s and 100 kB.

python tests/benchmarks/bench_versions.py [FRAMES]
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import seqdata
from seqdata import protocols
from seqdata.dataset.compact import compact
from seqdata.dataset.versions import withdraw
from tests.benchmarks.results import exit_status, record, scaled
from tests.scale import steps

FRAMES = 99_000
ROUNDS = scaled(3, 1)
LIMIT_SECONDS, LIMIT_BYTES = 0.3, 100_000
WITHDRAW, COMPACT = "withdraw one frame", "write all tables (compact)"


def lend(folder: Path) -> Path:
    """A copy of the dataset in its first version; tables are linked, because no command writes into them."""
    place = folder / "changed"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "dataset", place, copy_function=os.link)
    for path in place.glob("manifest.*"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    return place


def cpu_seconds(work: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


def one_round(folder: Path, frames: int) -> tuple[dict[str, float], int]:
    """CPU seconds of each step, and the bytes that the withdrawal wrote, both manifests among them."""
    place, protocol = lend(folder), protocols.load(folder / "scale.toml")
    key = seqdata.open(place).frame_key(frames // 2)
    figures = {WITHDRAW: cpu_seconds(withdraw, place, [key], "a face")}
    new = [*(place / "versions").rglob("*.*"), *place.glob("manifest.*")]
    size = sum(path.stat().st_size for path in new if path.is_file())
    figures["read train truth of segments"] = cpu_seconds(seqdata.open(place).protocol_positives, protocol, "train")
    figures[COMPACT] = cpu_seconds(compact, place)
    figures["read train truth of whole tables"] = cpu_seconds(seqdata.open(place).protocol_positives, protocol, "train")
    return figures, size


def main() -> int:
    """Print the least of some rounds."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(FRAMES, 6_000)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        steps.generate(folder, frames)
        steps.seal(folder, frames)
        rounds = [one_round(folder, frames) for _ in range(ROUNDS)]
    least = {name: min(figures[name] for figures, _ in rounds) for name in rounds[0][0]}
    size = rounds[-1][1]
    print(f"{frames:,} frames; least of {ROUNDS} rounds")
    for name, value in least.items():
        print(f"{name:<36}{record(name, value, 's'):>9.3f} CPU s")
    print(f"{'written by the withdrawal':<36}{record('written by the withdrawal', size, 'bytes'):>9,.0f} bytes")
    return exit_status(least[WITHDRAW] < LIMIT_SECONDS and size < LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
