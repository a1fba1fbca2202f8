"""What comparing the hash of every frame costs: the stream, `read_frames`, and describing, with the check and without.

python tests/benchmarks/bench_hashing.py [frames]

Both sides run in turn in one process; CPU seconds of this process and its threads. Printed are the ratio of the two
medians, that of the two least values (what else runs on the machine only adds), and the hashes by themselves, as a
share of the work without them. Judged: that share is no more than 2 %, because the ratios
move by more than that on a machine that does other work.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.frames.reader import FrameReader
from tests.benchmarks.results import exit_status, record, scaled
from tests.benchmarks.street import write_street
from train.data.describe import describe
from train.models import registry as models

LIMIT = 1.02
ROUNDS = scaled(15, 1)
LENGTH = 5


def unchecked(self: FrameReader, row: int, data: bytes) -> bytes:
    """In the place of `FrameReader._whole`: whatever is stored is right."""
    return data


def stream(dataset: Dataset) -> None:
    """An epoch of windows."""
    with dataset.stream(dataset.sequences(length=LENGTH)).batches(16, threads=1) as batches:
        for _ in batches:
            pass


def read_frames(dataset: Dataset) -> None:
    """Every frame once, in six calls, at their own size."""
    for rows in np.array_split(np.arange(dataset.manifest.counts.frames), 6):
        dataset.read_frames(rows)


def described(dataset: Dataset) -> None:
    """Every window by a small model: the reading and describing of an index."""
    model = models.create("mean-small", encoder="resnet10t", cut="layer1", weights="random", size=(240, 320))
    describe(model, dataset, dataset.sequences(length=LENGTH), device="cpu", batch_size=16)


def cpu_seconds(work: Callable[[Dataset], None], path: Path) -> float:
    """CPU time of some work on a dataset that is opened anew."""
    started = time.process_time()
    work(seqdata.open(path))
    return time.process_time() - started


def hashing(path: Path, times: int = 20) -> float:
    """CPU seconds of the hashes of all frames by themselves."""
    reader = seqdata.open(path).frame_reader()
    images = reader.encoded(np.arange(seqdata.open(path).manifest.counts.frames))
    started = time.process_time()
    for _ in range(times):
        for row, data in images.items():
            reader._whole(row, data)
    return (time.process_time() - started) / times


def compared(work: Callable[[Dataset], None], path: Path) -> tuple[float, float, float]:
    """CPU seconds without the check (median), and the ratios of the medians and of the least values with it."""
    checked: Any = FrameReader._whole
    pairs = []
    for number in range(ROUNDS + 1):
        seconds = {}
        # Which side goes first changes from round to round: what runs second finds warmer caches.
        for check in (checked, unchecked) if number % 2 else (unchecked, checked):
            FrameReader._whole = check  # type: ignore[method-assign]
            seconds[check] = cpu_seconds(work, path)
        FrameReader._whole = checked  # type: ignore[method-assign]
        pairs.append((seconds[unchecked], seconds[checked]))
    without, with_check = np.array(pairs[1:]).T  # the first round warms up
    before, after = float(np.median(without)), float(np.median(with_check))
    return before, after / before, float(with_check.min() / without.min())


def main() -> int:
    """One drive of real or drawn frames at 640 × 480."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(400, 40)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        raw = write_street(Path(folder) / "raw", count)
        build(BuildRequest("folder", raw, Path(folder) / "out"))
        alone = hashing(Path(folder) / "out")
        print(f"{count} frames, {ROUNDS} rounds; hashes by themselves {alone:.4f} CPU s")
        print(f"{'CPU s without':>39}{'medians':>10}{'least':>10}{'hashes':>10}", flush=True)
        for work in (stream, read_frames, described):
            seconds, medians, least = compared(work, Path(folder) / "out")
            ratios.append(1 + alone / seconds)
            record(f"{work.__name__}: with the hash check against without", least, "x")
            figures = f"{seconds:>13.3f}{medians:>10.4f}{least:>10.4f}{alone / seconds:>10.2%}"
            print(f"{work.__name__:<26}{figures}", flush=True)
    return exit_status(max(ratios) <= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
